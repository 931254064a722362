//! How long the threads of a run were ready and waited for a processor, because others had it.

use std::fs;
use std::time::{Duration, Instant};

/// Share of a run from which on a warning is given, and the shortest wait that is worth one: a thread always waits a little
/// after it was woken.
const SHARE: f64 = 0.02;
const SHORTEST: Duration = Duration::from_millis(10);

/// How long a thread has been ready to run and waited for a processor: the second number of `/proc/PID/schedstat`, in
/// nanoseconds; for a process that of its main thread. Nothing where the system does not keep it.
pub(super) fn waited(id: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{id}/schedstat")).unwrap_or_default();
    let waited_ns = text.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(waited_ns.unwrap_or(0))
}

/// One thread over a run.
struct Thread {
    name: &'static str,
    id: u32,
    before: Duration,
    latest: Duration,
}

/// The threads of a run.
pub(super) struct RunQueue {
    began: Instant,
    threads: Vec<Thread>,
    /// Whether they share their cores, so that one of them may have kept another waiting.
    is_shared: bool,
}

impl RunQueue {
    /// Counts from now on; `is_shared` where the threads have no cores of their own.
    pub(super) fn begin(threads: &[(&'static str, u32)], is_shared: bool) -> RunQueue {
        let thread = |&(name, id): &(&'static str, u32)| {
            let before = waited(id);
            Thread { name, id, before, latest: before }
        };
        RunQueue { began: Instant::now(), threads: threads.iter().map(thread).collect(), is_shared }
    }

    /// Reads the counts. A thread that has ended keeps its last one.
    pub(super) fn look(&mut self) {
        for thread in &mut self.threads {
            thread.latest = thread.latest.max(waited(thread.id));
        }
    }

    /// A warning for each thread that others kept from its core.
    pub(super) fn warnings(&self) -> Vec<String> {
        let ran = self.began.elapsed();
        let threads = self.threads.iter().map(|thread| (thread.name, thread.latest.saturating_sub(thread.before)));
        threads.filter_map(|(name, waited)| warning(name, waited, ran, self.is_shared)).collect()
    }
}

fn warning(name: &str, waited: Duration, ran: Duration, is_shared: bool) -> Option<String> {
    let share = waited.as_secs_f64() / ran.as_secs_f64().max(1e-9);
    (share > SHARE && waited >= SHORTEST).then(|| {
        let (waited_ms, percent) = (waited.as_secs_f64() * 1e3, share * 100.0);
        let who = if is_shared {
            "busy cores: other threads (engine and recorder share their cores)"
        } else {
            "busy machine: other processes"
        };
        format!("{who} kept {name} waiting for its core for {waited_ms:.0} ms, {percent:.1} % of the run")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waited_for_its_core_is_named() {
        let of = |waited_ms, ran_ms| {
            warning("the engine", Duration::from_millis(waited_ms), Duration::from_millis(ran_ms), false)
        };
        let said = "busy machine: other processes kept the engine waiting for its core for 97 ms, 9.7 % of the run";
        assert_eq!(of(97, 1_000).as_deref(), Some(said));
        assert_eq!((of(9, 100), of(97, 10_000)), (None, None));
    }

    #[test]
    fn other_processes_are_not_blamed_where_engine_and_recorder_share_cores() {
        let said = warning("the engine", Duration::from_millis(97), Duration::from_secs(1), true).unwrap();
        let wanted = "busy cores: other threads (engine and recorder share their cores) kept the engine waiting";
        assert!(said.starts_with(wanted), "{said}");
    }

    #[test]
    fn a_thread_that_shares_its_core_has_waited() {
        let core = std::thread::available_parallelism().map_or(1, usize::from);
        let id = || nix::unistd::gettid().as_raw().unsigned_abs();
        let mut queue = RunQueue::begin(&[("this thread", id())], false);
        let until = Instant::now() + Duration::from_millis(300);
        std::thread::scope(|scope| {
            // More threads than cores, so that each has to wait for its turn.
            (0..2 * core).for_each(|_| drop(scope.spawn(|| while Instant::now() < until {})));
            while Instant::now() < until {}
        });
        queue.look();
        assert!(queue.warnings()[0].starts_with("busy machine: other processes kept this thread waiting"));
    }
}
