//! Whether a device class is on this machine: what was looked for, what was found, and how to get what is missing.
//! No Python takes part.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use super::{DeviceClass, cpu, cuda, tpu};

/// Where a machine describes itself.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// NVIDIA's management library: a path, or a name that the loader looks up.
    pub nvml: OsString,
}

impl Machine {
    /// The one that this process runs on.
    pub fn this() -> Machine {
        Machine { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into(), nvml: "libnvidia-ml.so.1".into() }
    }

    /// Looks for a device class.
    pub fn look_for(&self, device: DeviceClass) -> Finding {
        let (checks, tensor_parallel) = match device {
            DeviceClass::Cpu => (cpu::look(self), None),
            DeviceClass::Cuda => cuda::look(self),
            DeviceClass::Tpu => tpu::look(self),
        };
        Finding { device, is_present: checks.iter().all(|check| check.found.is_ok()), tensor_parallel, checks }
    }
}

/// What there is of a device class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The class that was looked for.
    pub device: DeviceClass,
    /// Whether an engine can run on it: nothing that it needs is missing.
    pub is_present: bool,
    /// Largest `tensor_parallel_size` that this host has devices for; none where that means nothing, or is not known.
    pub tensor_parallel: Option<u32>,
    /// What was looked for.
    pub checks: Vec<Check>,
}

impl Finding {
    /// What is missing, and how to get it.
    pub fn missing(&self) -> impl Iterator<Item = (&Check, &Missing)> {
        self.checks.iter().filter_map(|check| check.found.as_ref().err().map(|missing| (check, missing)))
    }
}

/// One thing that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is, and where it was looked for.
    pub what: String,
    /// What was found, or that nothing was.
    #[serde(flatten, serialize_with = "found_or_missing")]
    pub found: Result<String, Missing>,
}

impl Check {
    pub(super) fn new(what: impl Into<String>, found: Result<String, Missing>) -> Check {
        Check { what: what.into(), found }
    }
}

/// Something that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What was found instead.
    pub missing: String,
    /// How to get it.
    pub remedy: String,
}

impl Missing {
    pub(super) fn new(missing: impl Into<String>, remedy: impl Into<String>) -> Missing {
        Missing { missing: missing.into(), remedy: remedy.into() }
    }
}

/// `found`, or `missing` and `remedy`; what does not apply is null.
fn found_or_missing<S: serde::Serializer>(found: &Result<String, Missing>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Row<'a> {
        found: Option<&'a str>,
        missing: Option<&'a str>,
        remedy: Option<&'a str>,
    }
    let missing = found.as_ref().err();
    let row = Row {
        found: found.as_deref().ok(),
        missing: missing.map(|missing| missing.missing.as_str()),
        remedy: missing.map(|missing| missing.remedy.as_str()),
    };
    row.serialize(serializer)
}
