//! Which thread runs where, how urgently, and how the recorder waits: the engine's cores, and one for the recorder where
//! there is one to spare.

use std::collections::BTreeSet;
use std::{fs, io};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::DeviceClass;

/// The variable by which vLLM's CPU backend binds the threads of each rank.
const CORES_OF_RANKS: &str = "VLLM_CPU_OMP_THREADS_BIND";

/// How the recorder waits for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum WaitStrategy {
    /// Looks all the time; meant for a core of its own.
    Spin,
    /// Looks for about 100 us, then sleeps until something comes; meant for a core that it shares.
    SpinThenSleep,
    /// Looks once, then sleeps until something comes; takes the least from others, and sees everything a wake-up later.
    Sleep,
}

impl WaitStrategy {
    /// All of them.
    pub const ALL: [WaitStrategy; 3] = [WaitStrategy::Spin, WaitStrategy::SpinThenSleep, WaitStrategy::Sleep];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            WaitStrategy::Spin => "spin",
            WaitStrategy::SpinThenSleep => "spin-then-sleep",
            WaitStrategy::Sleep => "sleep",
        }
    }

    /// Whether it sleeps on an eventfd, so that the other side must wake it.
    pub fn sleeps(self) -> bool {
        self != WaitStrategy::Spin
    }
}

/// Nice value of the recorder: nothing but the kernel's own real-time threads comes before it.
const RECORDER_NICE: i32 = -20;
/// Nice value of the engine: before everything on its cores that is no part of the measurement.
const ENGINE_NICE: i32 = -10;

/// Nice value of the thread that samples the machine: after everything else.
const TELEMETRY_NICE: i32 = 19;

/// Where the threads of a measurement run. Cores are the kernel's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The engine process, one hardware thread for each physical core.
    pub engine_cores: Vec<usize>,
    /// The recorder; `None` if no core could be spared for it.
    pub recorder_core: Option<usize>,
    /// Everything else of the harness, which sleeps during a run but for a few redraws a second.
    pub harness_cores: Vec<usize>,
    /// How the recorder waits, which follows from the cores there are unless somebody asks for another.
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
        Placement::of_ranks(topology, 1)
    }

    /// The same for an engine of so many processes that compute on these cores. Each gets a core of its own before the rest
    /// of the harness has one, and before the recorder has one: two ranks on one core wait for each other in every layer.
    pub fn of_ranks(topology: &Topology, ranks: u32) -> Placement {
        let first_thread = |threads: &BTreeSet<usize>| threads.iter().next().copied();
        let cores: Vec<usize> = topology.physical.iter().filter_map(first_thread).collect();
        let spare = cores.len().saturating_sub(ranks as usize);
        match cores.as_slice() {
            [] => Placement::shared(vec![0]),
            all if spare == 0 => Placement::shared(all.to_vec()),
            [first, rest @ .., last] if spare > 1 && cores.len() >= CORES_FOR_HOUSEKEEPING => Placement {
                engine_cores: rest.to_vec(),
                recorder_core: Some(*last),
                harness_cores: vec![*first],
                wait_strategy: WaitStrategy::Spin,
            },
            [rest @ .., last] => Placement {
                engine_cores: rest.to_vec(),
                recorder_core: Some(*last),
                harness_cores: vec![*last],
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

    /// The same, with the wait strategy that was asked for, if one was.
    pub fn with_wait(self, asked: Option<WaitStrategy>) -> Placement {
        Placement { wait_strategy: asked.unwrap_or(self.wait_strategy), ..self }
    }

    /// How and where the recorder waits, for people.
    pub fn waiting_in_words(&self) -> String {
        let how = match self.wait_strategy {
            WaitStrategy::Spin => "spin",
            WaitStrategy::SpinThenSleep => "spin, then sleep on an eventfd",
            WaitStrategy::Sleep => "sleep on an eventfd",
        };
        format!("{how}, on a core {}", if self.recorder_core.is_some() { "of its own" } else { "that it shares" })
    }

    /// What about this placement makes every run less trustworthy.
    pub fn warnings(&self) -> Vec<String> {
        let shared = self.recorder_core.is_none().then(|| match self.engine_cores.len() {
            0 | 1 => "the recorder has no core of its own".to_owned(),
            cores => format!(
                "the recorder has no core of its own: the engine's ranks are on all {cores} cores, and share one with it"
            ),
        });
        let takes = "the recorder spins on a core that it shares: it takes time from the engine";
        shared.into_iter().chain(self.spins_on_a_shared_core().then(|| takes.to_owned())).collect()
    }

    fn spins_on_a_shared_core(&self) -> bool {
        self.recorder_core.is_none() && self.wait_strategy == WaitStrategy::Spin
    }

    /// The nice values of recorder and engine. `None` where the recorder spins on a core that it shares: whichever came
    /// first there would starve the other.
    fn nice_values(&self) -> Option<(i32, i32)> {
        (!self.spins_on_a_shared_core()).then_some((RECORDER_NICE, ENGINE_NICE))
    }

    /// The nice value that the engine process is to take, if it may; `None` leaves it as it is.
    pub fn engine_nice(&self) -> Option<i32> {
        self.nice_values().map(|(_, engine)| engine)
    }

    /// Makes the calling thread the recorder's: binds it to its core and raises its priority, as far as is permitted.
    pub fn seat_recorder(&self) -> RecorderSeat {
        let pinned = self
            .recorder_core
            .map(|core| pin_current_thread(&[core]).map_err(|err| not_pinned("the recorder", core, &err.into())));
        let raised =
            self.nice_values().map(|(nice, _)| renice_current_thread(nice).map_err(|err| not_raised(nice, &err)));
        RecorderSeat {
            nice: raised.as_ref().and_then(|raised| raised.as_ref().ok()).copied(),
            not_pinned: pinned.and_then(Result::err),
            not_raised: raised.and_then(Result::err),
        }
    }

    /// Makes the calling thread one of the engine's, as [`Placement::seat_recorder`] does with the recorder's: what stands in
    /// for an engine in a calibration.
    ///
    /// # Errors
    /// A sentence for a core that it could not be bound to; a priority that is not permitted is none.
    pub fn seat_engine(&self) -> Result<(), String> {
        let core = self.engine_cores.first().copied().unwrap_or(0);
        pin_current_thread(&[core]).map_err(|err| not_pinned("a stand-in of the engine", core, &err.into()))?;
        if let Some(nice) = self.engine_nice() {
            let _ = renice_current_thread(nice); // the recorder's seat tells of it
        }
        Ok(())
    }

    /// Makes the calling thread the one that samples the machine: away from the engine, and from the recorder where there
    /// is another core. Beside a recorder that spins it keeps its priority: at a lower one it would get next to no time.
    /// Returns why it is not bound, if it should be.
    pub fn seat_telemetry(&self) -> Option<String> {
        let refused = pin_current_thread(&self.harness_cores).err();
        if self.recorder_core.is_none_or(|core| !self.harness_cores.contains(&core)) {
            let _ = renice_current_thread(TELEMETRY_NICE); // anyone may lower a priority
        }
        let cores: Vec<String> = self.harness_cores.iter().map(ToString::to_string).collect();
        refused.map(|err| format!("pinning: telemetry could not be bound to the cores {}: {err}", cores.join(", ")))
    }

    /// OpenMP's settings for an engine on these cores. Spinning OpenMP threads cost a shared machine a factor of
    /// eight, so they wait passively, and there are no more of them than cores. On an accelerator the cores compute
    /// nothing of the model, and vLLM's own choice stands.
    pub fn openmp_environment(&self, device: DeviceClass) -> Vec<(&'static str, String)> {
        if device != DeviceClass::Cpu {
            return Vec::new();
        }
        let cores: Vec<String> = self.engine_cores.iter().map(ToString::to_string).collect();
        vec![
            ("OMP_NUM_THREADS", cores.len().to_string()),
            ("OMP_WAIT_POLICY", "passive".to_owned()),
            (CORES_OF_RANKS, cores.join(",")),
        ]
    }

    /// The same for an engine of several ranks, which vLLM wants to be told the cores of each: the engine's cores are dealt out
    /// in order. `None` where there is nothing to deal out, and where there are fewer cores than ranks, which is refused before.
    pub fn openmp_of_ranks(&self, device: DeviceClass, ranks: u32) -> Option<(String, String)> {
        let (cores, ranks) = (&self.engine_cores, ranks as usize);
        if device != DeviceClass::Cpu || ranks < 2 || cores.len() < ranks {
            return None;
        }
        let of_rank = |rank: usize| &cores[cores.len() * rank / ranks..cores.len() * (rank + 1) / ranks];
        let list = |cores: &[usize]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let lists: Vec<String> = (0..ranks).map(|rank| list(of_rank(rank))).collect();
        Some((CORES_OF_RANKS.to_owned(), lists.join("|")))
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

/// Gives the calling thread this nice value, which threads that it starts afterwards inherit. Returns the one in force.
fn renice_current_thread(nice: i32) -> io::Result<i32> {
    // Linux keeps a nice value for each thread; no process id means the calling one.
    rustix::process::setpriority_process(None, nice)?;
    Ok(rustix::process::getpriority_process(None)?)
}

/// What became of a thread that was made the recorder's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecorderSeat {
    /// Its nice value if it was raised.
    pub nice: Option<i32>,
    /// Why it is not bound to its core, if it should be.
    pub not_pinned: Option<String>,
    /// Why its priority was not raised, if it should be.
    pub not_raised: Option<String>,
}

fn not_pinned(who: &str, core: usize, err: &io::Error) -> String {
    format!("pinning: {who} could not be bound to core {core}: {err}")
}

fn not_raised(nice: i32, err: &io::Error) -> String {
    format!(
        "priority: the recorder could not be raised to nice {nice}: {err} (it takes CAP_SYS_NICE, or a larger RLIMIT_NICE)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(physical: &[&[usize]]) -> Topology {
        Topology { physical: physical.iter().map(|threads| threads.iter().copied().collect()).collect() }
    }

    #[test]
    fn every_rank_gets_cores_of_its_own() {
        let of = |cores: &[&[usize]], ranks| {
            let placement = Placement::of_ranks(&topology(cores), ranks);
            placement.openmp_of_ranks(DeviceClass::Cpu, ranks).map(|(_, lists)| lists)
        };
        // The first core is the system's, the last one the recorder's.
        let six: &[&[usize]] = &[&[0], &[1], &[2], &[3], &[4], &[5]];
        assert_eq!(of(six, 1), None);
        assert_eq!(of(six, 2).as_deref(), Some("1,2|3,4"));
        assert_eq!(of(six, 3).as_deref(), Some("1|2|3,4"));
        assert_eq!(of(six, 5).as_deref(), Some("0|1|2|3|4"), "the system's core before two ranks on one");
        assert_eq!(of(six, 6).as_deref(), Some("0|1|2|3|4|5"), "the recorder's, too");
        assert_eq!(of(&[&[0], &[1]], 2).as_deref(), Some("0|1"));
        assert_eq!(of(&[&[0], &[1]], 3), None, "refused before");
        let placement = Placement::choose(&topology(six));
        assert_eq!(placement.openmp_of_ranks(DeviceClass::Cuda, 2), None);
    }

    #[test]
    fn ranks_on_all_cores_leave_the_recorder_none_and_every_run_is_warned() {
        let two = topology(&[&[0], &[1]]);
        let placement = Placement::of_ranks(&two, 2);
        assert_eq!((placement.recorder_core, placement.wait_strategy), (None, WaitStrategy::SpinThenSleep));
        assert!(
            placement.warnings()[0].contains("the engine's ranks are on all 2 cores"),
            "{:?}",
            placement.warnings()
        );
        let four = topology(&[&[0], &[1], &[2], &[3]]);
        let placement = Placement::of_ranks(&four, 3);
        assert_eq!((placement.engine_cores.len(), placement.recorder_core), (3, Some(3)));
        assert_eq!((placement.warnings().len(), placement.harness_cores), (0, vec![3]));
    }

    #[test]
    fn one_core_is_shared_and_the_recorder_may_sleep() {
        let placement = Placement::choose(&topology(&[&[0]]));
        assert_eq!(placement.recorder_core, None);
        assert_eq!(placement.wait_strategy, WaitStrategy::SpinThenSleep);
    }

    #[test]
    fn a_strategy_that_is_asked_for_replaces_the_one_that_follows_from_the_cores() {
        for (cores, own) in [(&[&[0_usize][..]][..], WaitStrategy::SpinThenSleep), (&[&[0], &[1]], WaitStrategy::Spin)]
        {
            let placement = Placement::choose(&topology(cores));
            assert_eq!(placement.clone().with_wait(None).wait_strategy, own);
            for asked in [WaitStrategy::Spin, WaitStrategy::SpinThenSleep, WaitStrategy::Sleep] {
                assert_eq!(placement.clone().with_wait(Some(asked)).wait_strategy, asked);
            }
        }
    }

    #[test]
    fn only_a_recorder_that_spins_on_a_shared_core_is_warned_of_and_not_raised() {
        for (cores, is_shared) in [(&[&[0_usize][..]][..], true), (&[&[0], &[1]], false)] {
            for asked in [WaitStrategy::Spin, WaitStrategy::SpinThenSleep, WaitStrategy::Sleep] {
                let placement = Placement::choose(&topology(cores)).with_wait(Some(asked));
                let takes_time = is_shared && asked == WaitStrategy::Spin;
                assert_eq!(placement.engine_nice(), (!takes_time).then_some(-10));
                assert_eq!(placement.warnings().len(), usize::from(is_shared) + usize::from(takes_time));
                let place = if is_shared { "on a core that it shares" } else { "on a core of its own" };
                assert!(placement.waiting_in_words().ends_with(place));
            }
        }
    }

    #[test]
    fn a_refusal_says_what_was_refused_and_why() {
        let refused = io::Error::from(nix::Error::EPERM);
        assert_eq!(
            not_pinned("the recorder", 3, &refused),
            "pinning: the recorder could not be bound to core 3: Operation not permitted (os error 1)"
        );
        let said = not_raised(-20, &refused);
        assert!(
            said.starts_with("priority: the recorder could not be raised to nice -20: Operation not permitted"),
            "{said}"
        );
        let nowhere = Placement { recorder_core: Some(CpuSet::count()), ..Placement::choose(&topology(&[&[0], &[1]])) };
        let seat = std::thread::spawn(move || nowhere.seat_recorder()).join().unwrap();
        assert!(seat.not_pinned.unwrap().starts_with("pinning: the recorder could not be bound to core"));
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
