//! Which core does what: the engine's cores, and one for the recorder where there is one to spare.

use std::collections::BTreeSet;
use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How the recorder waits for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitStrategy {
    /// It looks all the time, on a core of its own.
    Spin,
    /// It looks for a while, then sleeps on an eventfd, since it shares its core.
    SpinThenSleep,
}

impl WaitStrategy {
    /// All of them.
    pub const ALL: [WaitStrategy; 2] = [WaitStrategy::Spin, WaitStrategy::SpinThenSleep];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            WaitStrategy::Spin => "spin",
            WaitStrategy::SpinThenSleep => "spin-then-sleep",
        }
    }

    /// Looks at the ring before it is asked whether to go on, of the `most` that a spinning one takes.
    pub fn looks(self, most: u32) -> u32 {
        most
    }
}

/// Where the threads of a measurement run. Cores are the kernel's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The engine process, one hardware thread for each physical core.
    pub engine_cores: Vec<usize>,
    /// The recorder; `None` if no core could be spared for it.
    pub recorder_core: Option<usize>,
    /// Everything else of the harness, which sleeps during a run but for a few redraws a second.
    pub harness_cores: Vec<usize>,
    /// How the recorder waits, which follows from the cores there are.
    pub wait_strategy: WaitStrategy,
}

/// The cores that this process may use, and which of them share a physical core.
#[derive(Clone, Debug)]
pub struct Topology {
    /// One set for each physical core, of the hardware threads that may be used; in order of their first thread.
    pub physical: Vec<BTreeSet<usize>>,
}

impl Topology {
    /// Of this machine, from the affinity mask and sysfs. A core that sysfs does not describe stands for itself.
    pub fn of_this_machine() -> nix::Result<Topology> {
        let mask = sched_getaffinity(Pid::from_raw(0))?;
        let allowed: BTreeSet<usize> =
            (0..CpuSet::count()).filter(|core| mask.is_set(*core).unwrap_or(false)).collect();
        let mut physical: Vec<BTreeSet<usize>> = Vec::new();
        for core in &allowed {
            if physical.iter().any(|threads| threads.contains(core)) {
                continue;
            }
            let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
            let siblings = fs::read_to_string(path).map(|text| parse_list(&text)).unwrap_or_default();
            let mut threads: BTreeSet<usize> = siblings.intersection(&allowed).copied().collect();
            threads.insert(*core);
            physical.push(threads);
        }
        Ok(Topology { physical })
    }
}

/// Cores in the kernel's list notation, `0-3,8`. Parts that are not numbers are left out.
fn parse_list(text: &str) -> BTreeSet<usize> {
    let mut cores = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

/// From how many physical cores on the harness's other threads get one of their own.
const CORES_FOR_HOUSEKEEPING: usize = 4;

impl Placement {
    /// The recorder takes the last physical core, alone; the engine one thread on each of the others. With four or
    /// more, the first is left to the rest of the harness and to the kernel's interrupts.
    pub fn choose(topology: &Topology) -> Placement {
        let first_thread = |threads: &BTreeSet<usize>| threads.iter().next().copied();
        let cores: Vec<usize> = topology.physical.iter().filter_map(first_thread).collect();
        match cores.as_slice() {
            [] => Placement::shared(vec![0]),
            [only] => Placement::shared(vec![*only]),
            [rest @ .., last] if rest.len() + 1 < CORES_FOR_HOUSEKEEPING => Placement {
                engine_cores: rest.to_vec(),
                recorder_core: Some(*last),
                harness_cores: vec![*last],
                wait_strategy: WaitStrategy::Spin,
            },
            [first, rest @ .., last] => Placement {
                engine_cores: rest.to_vec(),
                recorder_core: Some(*last),
                harness_cores: vec![*first],
                wait_strategy: WaitStrategy::Spin,
            },
        }
    }

    fn shared(cores: Vec<usize>) -> Placement {
        Placement {
            engine_cores: cores.clone(),
            recorder_core: None,
            harness_cores: cores,
            wait_strategy: WaitStrategy::SpinThenSleep,
        }
    }

    /// OpenMP's settings for an engine on these cores. Spinning OpenMP threads cost a shared machine a factor of
    /// eight, so they wait passively, and there are no more of them than cores.
    pub fn openmp_environment(&self) -> Vec<(&'static str, String)> {
        let cores: Vec<String> = self.engine_cores.iter().map(ToString::to_string).collect();
        vec![
            ("OMP_NUM_THREADS", cores.len().to_string()),
            ("OMP_WAIT_POLICY", "passive".to_owned()),
            ("VLLM_CPU_OMP_THREADS_BIND", cores.join(",")),
        ]
    }
}

/// Restricts the calling thread to `cores`; threads that it starts afterwards inherit that.
pub fn pin_current_thread(cores: &[usize]) -> nix::Result<()> {
    let mut mask = CpuSet::new();
    for core in cores {
        mask.set(*core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(physical: &[&[usize]]) -> Topology {
        Topology { physical: physical.iter().map(|threads| threads.iter().copied().collect()).collect() }
    }

    #[test]
    fn one_core_is_shared_and_the_recorder_may_sleep() {
        let placement = Placement::choose(&topology(&[&[0]]));
        assert_eq!(placement.recorder_core, None);
        assert_eq!(placement.wait_strategy, WaitStrategy::SpinThenSleep);
    }

    #[test]
    fn two_cores_are_split() {
        let placement = Placement::choose(&topology(&[&[0], &[1]]));
        assert_eq!((placement.engine_cores, placement.recorder_core), (vec![0], Some(1)));
    }

    #[test]
    fn the_recorders_sibling_is_left_idle() {
        let placement = Placement::choose(&topology(&[&[0, 4], &[1, 5], &[2, 6], &[3, 7]]));
        assert_eq!(placement.engine_cores, [1, 2]);
        assert_eq!(placement.recorder_core, Some(3));
        assert_eq!(placement.harness_cores, [0]);
    }

    #[test]
    fn two_threads_of_one_core_are_one_core() {
        assert_eq!(Placement::choose(&topology(&[&[0, 1]])).recorder_core, None);
    }

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(parse_list("0-2,8\n"), BTreeSet::from([0, 1, 2, 8]));
        assert_eq!(parse_list("x,1"), BTreeSet::from([1]));
    }
}
