//! Variables of the user that a sidecar gets with another value, and why.

use std::fmt;

use super::SidecarOptions;
use crate::base::printable::printable;

/// What a user may have set for a reason of their own: the variable, why it is replaced, and whether the numbers would be others
/// with it, which every run then says.
const REASONS: [(&str, &str, bool); 5] = [
    ("OMP_NUM_THREADS", BOUND, true),
    ("OMP_WAIT_POLICY", "threads that spin take the time of others on a shared machine", true),
    ("VLLM_CPU_OMP_THREADS_BIND", BOUND, true),
    ("PYTHONWARNINGS", "a warning that is made an error ends the sidecar", false),
    ("PYTHONHOME", "Python then looks for its library elsewhere, and does not start", false),
];

const BOUND: &str = "the engine's threads are bound to cores of their own, away from the recorder's; restrict bench to some \
                     cores with taskset instead";

/// Variables of which nobody has to be told: they are the package's own affair.
const UNTOLD: [&str; 3] = ["PYTHONPATH", "PYTHONUNBUFFERED", "VLLM_NO_USAGE_STATS"];

/// A variable of the user that is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Its name.
    pub name: String,
    /// The user's value.
    pub theirs: String,
    /// The sidecar's; empty if it gets none.
    pub ours: String,
    /// Whether the numbers would be others with the user's value.
    pub changes_numbers: bool,
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replaced { name, theirs, ours, .. } = self;
        match ours.as_str() {
            "" => write!(f, "{name}={} of the environment is not passed on", printable(theirs))?,
            _ => write!(f, "{name}={} of the environment is replaced by {}", printable(theirs), printable(ours))?,
        }
        match REASONS.iter().find(|(known, ..)| known == name) {
            Some((_, why, _)) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

impl SidecarOptions {
    /// The variables of the user that the sidecar gets with another value. `value_of` gives the user's value of a variable.
    pub fn replaced(&self, value_of: impl Fn(&str) -> Option<String>) -> Vec<Replaced> {
        let told = self.variables().into_iter().filter(|(name, _)| !UNTOLD.contains(&name.as_str()));
        let replaced = told.filter_map(|(name, ours)| {
            let theirs = value_of(&name).filter(|theirs| !theirs.is_empty() && *theirs != ours)?;
            let changes_numbers = REASONS.iter().any(|(known, _, changes)| *known == name && *changes);
            Some(Replaced { name, theirs, ours, changes_numbers })
        });
        replaced.collect()
    }
}

/// The user's value of a variable, of this process.
pub fn user_variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::machine::device::{DeviceClass, Placement, WaitStrategy};
    use crate::machine::environment::VllmSource;

    fn options(device: DeviceClass) -> SidecarOptions {
        SidecarOptions {
            device,
            python: PathBuf::new(),
            package: PathBuf::new(),
            ring_library: PathBuf::new(),
            placement: Placement {
                engine_cores: vec![1, 2],
                recorder_core: Some(3),
                harness_cores: vec![0],
                wait_strategy: WaitStrategy::Spin,
            },
            log: PathBuf::new(),
            env: Vec::new(),
            vllm: VllmSource::default(),
            with_vllm: true,
            stall_limit: SidecarOptions::STALL_LIMIT,
            warm: None,
        }
    }

    fn told(device: DeviceClass, theirs: &[(&str, &str)]) -> Vec<(String, bool)> {
        let value_of =
            |name: &str| theirs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let replaced = options(device).replaced(value_of);
        replaced.into_iter().map(|replaced| (replaced.to_string(), replaced.changes_numbers)).collect()
    }

    #[test]
    fn what_the_user_set_and_does_not_get_is_told_with_the_reason() {
        let told = told(
            DeviceClass::Cpu,
            &[
                ("OMP_NUM_THREADS", "8"),
                ("VLLM_CPU_OMP_THREADS_BIND", "0-7"),
                ("OMP_WAIT_POLICY", "passive"),
                ("PYTHONWARNINGS", "error"),
                ("PYTHONHOME", "/nowhere\u{1b}"),
                ("PYTHONPATH", "/mine"),
            ],
        );
        let starts: Vec<(&str, bool)> =
            told.iter().map(|(text, changes)| (text.split(": ").next().unwrap(), *changes)).collect();
        assert_eq!(
            starts,
            [
                ("PYTHONWARNINGS=error of the environment is not passed on", false),
                ("PYTHONHOME=/nowhere\\u{1b} of the environment is not passed on", false),
                ("OMP_NUM_THREADS=8 of the environment is replaced by 2", true),
                ("VLLM_CPU_OMP_THREADS_BIND=0-7 of the environment is replaced by 1,2", true),
            ]
        );
        assert!(told[2].0.ends_with("with taskset instead"), "{told:?}");
    }

    #[test]
    fn on_an_accelerator_the_users_threads_stay() {
        assert_eq!(told(DeviceClass::Cuda, &[("OMP_NUM_THREADS", "8")]), []);
    }
}
