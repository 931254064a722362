//! What a device can do at most: figures of its vendor, each with its source, and the cpu's own, as they were probed.

use crate::measurement::calibration::CpuPeaks;

/// The kind of number that a device's matrix units multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point, either kind.
    F16,
    /// 8-bit floating point.
    Fp8,
    /// 4-bit floating point.
    Fp4,
}

/// Peak figures of one accelerator, as its driver names it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DevicePeaks {
    /// CUDA's name of the device, or JAX's `device_kind`.
    pub name: &'static str,
    /// Dense matrix operations a second with 16-bit numbers.
    pub f16_operations_per_s: f64,
    /// The same with 8-bit numbers.
    pub fp8_operations_per_s: f64,
    /// The same with 4-bit numbers; `None` where there are no units for them.
    pub fp4_operations_per_s: Option<f64>,
    /// Bytes a second from and to the device's memory.
    pub bytes_per_s: f64,
    /// Where the figures are from.
    pub source: &'static str,
}

/// All devices of which peak figures are known. NVIDIA's data sheets give operations with 2:4 sparsity; these are half of them.
pub const DEVICE_PEAKS: [DevicePeaks; 6] = [
    DevicePeaks {
        name: "NVIDIA H100 80GB HBM3",
        f16_operations_per_s: 989.5e12,
        fp8_operations_per_s: 1_979e12,
        fp4_operations_per_s: None,
        bytes_per_s: 3.35e12,
        source: "NVIDIA H100 Tensor Core GPU data sheet, H100 SXM",
    },
    DevicePeaks {
        name: "NVIDIA H100 PCIe",
        f16_operations_per_s: 756.5e12,
        fp8_operations_per_s: 1_513e12,
        fp4_operations_per_s: None,
        bytes_per_s: 2.0e12,
        source: "NVIDIA H100 Tensor Core GPU data sheet (2022), H100 PCIe",
    },
    DevicePeaks {
        name: "NVIDIA H100 NVL",
        f16_operations_per_s: 835.5e12,
        fp8_operations_per_s: 1_670.5e12,
        fp4_operations_per_s: None,
        bytes_per_s: 3.9e12,
        source: "NVIDIA H100 Tensor Core GPU data sheet, H100 NVL",
    },
    DevicePeaks {
        name: "NVIDIA H200",
        f16_operations_per_s: 989.5e12,
        fp8_operations_per_s: 1_979e12,
        fp4_operations_per_s: None,
        bytes_per_s: 4.8e12,
        source: "NVIDIA H200 Tensor Core GPU data sheet, H200 SXM",
    },
    DevicePeaks {
        name: "NVIDIA B200",
        f16_operations_per_s: 2.25e15,
        fp8_operations_per_s: 4.5e15,
        fp4_operations_per_s: Some(9.0e15),
        bytes_per_s: 8.0e12,
        source: "NVIDIA DGX B200 data sheet, an eighth of the system",
    },
    DevicePeaks {
        // A JAX device is one of a chip's two TensorCores.
        name: "TPU7x",
        f16_operations_per_s: 2_307e12 / 2.0,
        fp8_operations_per_s: 4_614e12 / 2.0,
        fp4_operations_per_s: None,
        bytes_per_s: 7.380e12 / 2.0,
        source: "Google Cloud documentation, TPU7x (Ironwood), system architecture; half a chip",
    },
];

/// The limit of all devices of an engine together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peak {
    /// Matrix operations a second with the engine's kind of numbers; `None` where that is not known.
    pub operations_per_s: Option<f64>,
    /// Bytes a second; `None` where that is not known.
    pub bytes_per_s: Option<f64>,
    /// Where the figures are from, or why there are none.
    pub source: String,
}

impl Peak {
    /// Of `count` accelerators of one name.
    pub fn of_device(name: &str, count: u64, arithmetic: Arithmetic) -> Peak {
        let Some(device) = DEVICE_PEAKS.iter().find(|device| device.name == name) else {
            return Peak { source: format!("the peak figures of `{name}` are not known"), ..Peak::default() };
        };
        let operations_per_s = match arithmetic {
            Arithmetic::F32 => None,
            Arithmetic::F16 => Some(device.f16_operations_per_s),
            Arithmetic::Fp8 => Some(device.fp8_operations_per_s),
            Arithmetic::Fp4 => device.fp4_operations_per_s,
        };
        let all = |one: f64| one * count as f64;
        Peak {
            operations_per_s: operations_per_s.map(all),
            bytes_per_s: Some(all(device.bytes_per_s)),
            source: format!("{count} x {name}: {}", device.source),
        }
    }

    /// Of the engine's cores. The probe multiplies 32-bit numbers, and says nothing of others.
    pub fn of_cpu(probed: Option<&CpuPeaks>, arithmetic: Arithmetic) -> Peak {
        match probed {
            Some(peaks) => Peak {
                operations_per_s: (arithmetic == Arithmetic::F32).then_some(peaks.f32_operations_per_s),
                bytes_per_s: Some(peaks.bytes_per_s),
                source: format!("probed on this machine: {}", peaks.probes),
            },
            None => Peak { source: "not probed on this machine: run `bench calibrate`".to_owned(), ..Peak::default() },
        }
    }
}
