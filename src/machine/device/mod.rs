//! The device classes: which engine build, defaults and limits apply, and what of them is on this machine.

mod cpu;
mod cuda;
mod finding;
mod gate;
mod host;
mod pci;
mod placement;
mod profile;
mod profiles;
mod tpu;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use finding::*;
pub use gate::*;
pub use host::*;
pub use placement::*;
pub use profile::*;

/// The kind of accelerator that the engine runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceClass {
    /// The host's own processors.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// Google TPUs.
    Tpu,
}

impl DeviceClass {
    /// All classes, in the order in which they are listed to people.
    pub const ALL: [DeviceClass; 3] = [DeviceClass::Cpu, DeviceClass::Cuda, DeviceClass::Tpu];

    /// The name used in configuration files, reports and folder names.
    pub fn as_str(self) -> &'static str {
        match self {
            DeviceClass::Cpu => "cpu",
            DeviceClass::Cuda => "cuda",
            DeviceClass::Tpu => "tpu",
        }
    }
}

impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
