//! Notices an engine that gives no sign, by how long its own steps take.

use std::time::{Duration, Instant};

use super::SessionError;
use super::run_queue::waited;
use crate::measurement::recorder::LiveTotals;

/// How often the engine's silence is looked at, and progress drawn.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// What an engine is given beyond [`STEPS`] of its steps; with the tick in which it is noticed, a second.
const GRACE: Duration = Duration::from_millis(750);
/// How many times its longest step an engine may take for the next one.
const STEPS: u64 = 3;

/// How long the steps of an engine take, as far as it has been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    longest_step_ns: u64,
    most_step_tokens: u64,
    /// Whether a step may stop to compile, for longer than any step before.
    pub(super) compiles: bool,
}

impl Pace {
    /// Of an engine that was never seen, and whose steps are known to take up to this.
    pub(super) fn known(longest_step_ns: u64) -> Pace {
        Pace { longest_step_ns, ..Pace::default() }
    }

    fn learn(&mut self, totals: &LiveTotals) {
        self.longest_step_ns = self.longest_step_ns.max(totals.longest_step_ns);
        self.most_step_tokens = self.most_step_tokens.max(totals.most_step_tokens);
    }

    /// How long an engine may give no sign that is about to run a step of up to `step_tokens` tokens: three times the
    /// longest step seen, as many times more as this step may have more tokens than any before, and a second; at most
    /// `most`, which is all that is known of an engine whose steps were never seen, or which may compile.
    fn patience(&self, step_tokens: u64, most: Duration) -> Duration {
        if self.longest_step_ns == 0 || self.compiles {
            return most;
        }
        let growth = if self.most_step_tokens == 0 { 1 } else { step_tokens.div_ceil(self.most_step_tokens).max(1) };
        let steps = Duration::from_nanos(self.longest_step_ns.saturating_mul(STEPS).saturating_mul(growth));
        most.min(steps.saturating_add(GRACE))
    }
}

/// Watches one run.
pub(super) struct Watchdog {
    pid: u32,
    pace: Pace,
    step_tokens: u64,
    most: Duration,
    batches: u64,
    silent_for: Duration,
    looked_at: Instant,
    /// How long the engine had waited for a processor by then.
    kept_waiting: Duration,
}

impl Watchdog {
    /// Of a run with steps of up to `step_tokens` tokens, on the engine of process `pid`, which may never be silent for longer
    /// than `most`.
    pub(super) fn new(pid: u32, pace: Pace, step_tokens: u64, most: Duration) -> Watchdog {
        Watchdog {
            pid,
            pace,
            step_tokens,
            most,
            batches: 0,
            silent_for: Duration::ZERO,
            looked_at: Instant::now(),
            kept_waiting: waited(pid),
        }
    }

    /// What is now known of the engine.
    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    /// Looks once a tick; `Silent` if the engine has been given enough time.
    pub(super) fn look(&mut self, totals: &LiveTotals) -> Option<SessionError> {
        self.pace.learn(totals);
        // A harness that did not run for a while, stopped by somebody perhaps, has not heard the engine meanwhile.
        let since = self.looked_at.elapsed().min(2 * TICK);
        self.looked_at = Instant::now();
        // Nor can an engine give a sign that the system does not let run.
        let kept_waiting = waited(self.pid);
        let since = since.saturating_sub(kept_waiting.saturating_sub(self.kept_waiting));
        self.kept_waiting = kept_waiting;
        if totals.batches != self.batches {
            self.batches = totals.batches;
            self.silent_for = Duration::ZERO;
            return None;
        }
        self.silent_for += since;
        let patience = self.pace.patience(self.step_tokens, self.most);
        let (silent_for, longest_step_ns) = (self.silent_for, self.pace.longest_step_ns);
        (silent_for > patience).then_some(SessionError::Silent { silent_for, longest_step_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(120);

    fn pace(longest_step_ns: u64, most_step_tokens: u64) -> Pace {
        Pace { longest_step_ns, most_step_tokens, compiles: false }
    }

    #[test]
    fn patience_follows_the_longest_step_and_the_size_of_the_next() {
        let seconds = |pace: Pace, tokens| pace.patience(tokens, MOST).as_secs_f64();
        assert_eq!(seconds(pace(100_000_000, 64), 64), 1.05);
        assert_eq!(seconds(pace(100_000_000, 64), 8), 1.05);
        assert_eq!(seconds(pace(100_000_000, 64), 640), 3.75);
        assert_eq!(seconds(pace(u64::MAX, 1), u64::MAX), 120.0);
        assert_eq!(seconds(Pace::known(2_000_000_000), 7), 6.75);
    }

    #[test]
    fn an_engine_that_was_never_seen_or_may_compile_has_the_whole_limit() {
        assert_eq!(Pace::default().patience(8, MOST), MOST);
        assert_eq!(Pace { compiles: true, ..pace(1_000, 8) }.patience(8, MOST), MOST);
    }
}
