//! GPUs, through NVIDIA's management library, which is opened at run time.

use std::ffi::OsStr;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;

use super::sample::{DeviceKind, Quantity, Sample, SampledDevice};
use super::sampling::Found;

/// The name that the driver installs; the one without a version belongs to the development package.
pub(super) const LIBRARY: &str = "libnvidia-ml.so.1";

/// The GPUs that the engine uses.
pub(super) struct Gpus {
    nvml: Nvml,
    indices: Vec<u32>,
}

/// A GPU as NVML lists it.
struct Listed {
    uuid: String,
    name: String,
}

impl Gpus {
    /// Opens the library, and finds the `count` GPUs that an engine of so many ranks takes; `None` if it cannot.
    pub(super) fn open(library: &OsStr, count: u32, found: &mut Found) -> Option<Gpus> {
        let nvml = match Nvml::builder().lib_path(library).init() {
            Ok(nvml) => nvml,
            Err(error) => {
                found.missing.push(format!("NVML: {} could not be opened: {error}", library.display()));
                return None;
            }
        };
        let variable = |name| std::env::var(name).ok();
        let chosen = list(&nvml).map_err(|error| error.to_string()).and_then(|gpus| {
            let indices = choose(&gpus, variable("CUDA_VISIBLE_DEVICES"), variable("CUDA_DEVICE_ORDER"), count)?;
            Ok((gpus, indices))
        });
        match chosen {
            Ok((gpus, indices)) => {
                found.sources.push(format!("NVML ({} of {} GPUs)", indices.len(), gpus.len()));
                let name = |index: &u32| gpus[*index as usize].name.clone();
                let device = |index| SampledDevice { kind: DeviceKind::Gpu, name: name(index) };
                found.devices.extend(indices.iter().map(device));
                Some(Gpus { nvml, indices })
            }
            Err(problem) => {
                found.missing.push(format!("NVML: {problem}"));
                None
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.indices.len()
    }

    /// Reads the `place`-th of them.
    pub(super) fn read(&self, place: usize, sample: &mut Sample) {
        let Ok(gpu) = self.nvml.device_by_index(self.indices[place]) else { return };
        let khz = |clock| gpu.clock_info(clock).ok().map(|mhz| u64::from(mhz) * 1_000);
        let memory = gpu.memory_info().ok();
        let values = [
            (Quantity::EnergyTotalUj, gpu.total_energy_consumption().ok().map(|mj| mj * 1_000)),
            (Quantity::PowerMw, gpu.power_usage().ok().map(u64::from)),
            (Quantity::ClockKhz, khz(Clock::SM)),
            (Quantity::MemoryClockKhz, khz(Clock::Memory)),
            (Quantity::TemperatureC, gpu.temperature(TemperatureSensor::Gpu).ok().map(u64::from)),
            (Quantity::MemoryUsedBytes, memory.as_ref().map(|memory| memory.used)),
            (Quantity::MemorySizeBytes, memory.as_ref().map(|memory| memory.total)),
            (Quantity::ThrottleReasonBits, gpu.current_throttle_reasons().ok().map(|reasons| reasons.bits())),
        ];
        for (quantity, value) in values {
            sample.set(quantity, value);
        }
    }
}

fn list(nvml: &Nvml) -> Result<Vec<Listed>, NvmlError> {
    (0..nvml.device_count()?)
        .map(|index| {
            let gpu = nvml.device_by_index(index)?;
            Ok(Listed { uuid: gpu.uuid()?, name: gpu.name()? })
        })
        .collect()
}

/// NVML's numbers of the first `count` GPUs that CUDA shows to the engine.
///
/// # Errors
/// A sentence, where it is not certain which ones those are.
fn choose(gpus: &[Listed], visible: Option<String>, order: Option<String>, count: u32) -> Result<Vec<u32>, String> {
    let alike = gpus.iter().all(|gpu| gpu.name == gpus[0].name);
    let names: Vec<&str> = visible.as_deref().map(|list| list.split(',').map(str::trim).collect()).unwrap_or_default();
    let by_number = visible.is_none() || names.iter().any(|name| name.parse::<u32>().is_ok());
    if by_number && !alike && order.as_deref() != Some("PCI_BUS_ID") {
        return Err("GPUs of different models, which CUDA numbers by speed and NVML by bus: \
                    set CUDA_DEVICE_ORDER=PCI_BUS_ID to have the engine's sampled"
            .to_owned());
    }
    let all = match visible {
        None => (0..gpus.len() as u32).collect(),
        Some(_) => names
            .iter()
            .map(|name| {
                let by_uuid = || gpus.iter().position(|gpu| !name.is_empty() && gpu.uuid.starts_with(name));
                let index = name.parse().ok().or_else(|| by_uuid().map(|index| index as u32));
                index.filter(|index| (*index as usize) < gpus.len()).ok_or_else(|| {
                    format!("CUDA_VISIBLE_DEVICES names `{name}`, which is none of the {} GPUs", gpus.len())
                })
            })
            .collect::<Result<Vec<u32>, String>>()?,
    };
    match all.get(..count as usize) {
        Some(chosen) => Ok(chosen.to_vec()),
        None => Err(format!("the engine takes {count} GPUs, and {} are visible", all.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(names: &[&str]) -> Vec<Listed> {
        let listed = |(index, name): (usize, &&str)| Listed { uuid: format!("GPU-{index}a"), name: (*name).to_owned() };
        names.iter().enumerate().map(listed).collect()
    }

    #[test]
    fn the_engines_gpus_are_the_first_visible_ones() {
        let four = gpus(&["B200"; 4]);
        let of = |visible: Option<&str>, count| choose(&four, visible.map(str::to_owned), None, count);
        assert_eq!(of(None, 2), Ok(vec![0, 1]));
        assert_eq!(of(Some("3, 1"), 1), Ok(vec![3]));
        assert_eq!(of(Some("GPU-2,GPU-0a"), 2), Ok(vec![2, 0]));
        assert!(of(Some("4"), 1).unwrap_err().contains("`4`, which is none of the 4 GPUs"));
        assert!(of(Some(""), 1).unwrap_err().contains("``"));
        assert!(of(Some("1"), 2).unwrap_err().contains("takes 2 GPUs, and 1 are visible"));
    }

    #[test]
    fn of_different_models_only_a_certain_one_is_taken() {
        let mixed = gpus(&["H100", "B200"]);
        let of = |visible: Option<&str>, order: Option<&str>| {
            choose(&mixed, visible.map(str::to_owned), order.map(str::to_owned), 1)
        };
        assert!(of(None, None).unwrap_err().contains("different models"));
        assert!(of(Some("1"), Some("FASTEST_FIRST")).is_err());
        assert_eq!(of(Some("1"), Some("PCI_BUS_ID")), Ok(vec![1]));
        assert_eq!(of(Some("GPU-1"), None), Ok(vec![1]));
    }
}
