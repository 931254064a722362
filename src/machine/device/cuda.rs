//! NVIDIA GPUs, from NVML and the CUDA driver, both opened at run time.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::{Check, Machine, Missing, pci};

/// NVIDIA's PCI vendor id.
const VENDOR: u16 = 0x10de;
/// PCI base class of display controllers.
const DISPLAY: u8 = 0x03;

/// The checks, and the number of GPUs if it is known.
pub(super) fn look(machine: &Machine) -> (Vec<Check>, Option<u32>) {
    let what = format!("NVML, which NVIDIA's driver brings ({})", machine.nvml.to_string_lossy());
    let nvml = match Nvml::builder().lib_path(&machine.nvml).init() {
        Ok(nvml) => nvml,
        Err(err) => return (vec![Check::new(what, Err(without_nvml(machine, &err)))], None),
    };
    let driver = nvml.sys_driver_version().map(|version| format!("driver {version}"));
    let gpus = nvml.device_count().unwrap_or(0);
    let checks = vec![
        Check::new(what, driver.map_err(|err| unexpected("the driver's version", &err))),
        cuda_driver(&nvml),
        Check::new("GPUs, as NVML lists them", list(&nvml, gpus)),
    ];
    (checks, Some(gpus).filter(|gpus| *gpus > 0))
}

/// What the PCI bus says to it: whether a driver is missing, or a GPU.
fn without_nvml(machine: &Machine, err: &NvmlError) -> Missing {
    let on_bus = pci::of_vendor(machine, VENDOR).into_iter().filter(|function| function.base_class == DISPLAY);
    let addresses: Vec<String> = on_bus.map(|function| function.address).collect();
    let said = one_line(err);
    if addresses.is_empty() {
        return Missing::new(
            format!("{said}; no GPU of NVIDIA (vendor 0x10de) on the PCI bus either"),
            "run on a host with an NVIDIA GPU; in a container, let it see the GPUs (docker run --gpus all)",
        );
    }
    Missing::new(
        format!("{said}; on the PCI bus there is {}", addresses.join(", ")),
        "install NVIDIA's driver, and see that `nvidia-smi` lists the GPU; in a container, use NVIDIA's container toolkit",
    )
}

/// NVML asks libcuda.so.1 itself.
fn cuda_driver(nvml: &Nvml) -> Check {
    let found = match nvml.sys_cuda_driver_version() {
        // 1000 * major + 10 * minor.
        Ok(version) => Ok(format!("CUDA {}.{}", version / 1000, version % 1000 / 10)),
        Err(NvmlError::LibraryNotFound) => Err(Missing::new(
            "not found",
            "install the compute part of NVIDIA's driver (Debian and Ubuntu: libnvidia-compute or libcuda1); a container \
             needs NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )),
        Err(err) => Err(unexpected("the version of CUDA", &err)),
    };
    Check::new("the CUDA driver (libcuda.so.1)", found)
}

fn list(nvml: &Nvml, gpus: u32) -> Result<String, Missing> {
    if gpus == 0 {
        return Err(Missing::new(
            "none",
            "see what `nvidia-smi` says; a GPU that has fallen off the bus needs a reboot",
        ));
    }
    let named = (0..gpus).map(|index| describe(nvml, index).map_err(|err| unexpected(&format!("GPU {index}"), &err)));
    Ok(named.collect::<Result<Vec<_>, _>>()?.join("; "))
}

/// Name, compute capability and memory of a GPU.
fn describe(nvml: &Nvml, index: u32) -> Result<String, NvmlError> {
    let gpu = nvml.device_by_index(index)?;
    let capability = gpu.cuda_compute_capability()?;
    let memory_gib = gpu.memory_info()?.total as f64 / f64::from(1 << 30);
    Ok(format!("{} (SM {}.{}, {memory_gib:.1} GiB)", gpu.name()?, capability.major, capability.minor))
}

fn unexpected(what: &str, err: &NvmlError) -> Missing {
    Missing::new(format!("NVML does not say {what}: {}", one_line(err)), "see what `nvidia-smi` says")
}

fn one_line(err: &NvmlError) -> String {
    err.to_string().lines().next().unwrap_or_default().to_owned()
}
