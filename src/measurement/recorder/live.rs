//! What a person may see while a run goes on, without disturbing it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::measurement::ring::clock_ns;
use crate::measurement::timeline::Phase;

/// Running totals of a run. The recorder alone writes them; whoever draws reads them a few times a second.
///
/// All loads and stores are relaxed, and have no partner: the totals are for display, each on its own, and nothing is
/// read through them. With one writer a plain load and store add up, without a locked instruction.
#[derive(Debug, Default)]
pub struct Live {
    phase: AtomicU64,
    phase_began_ns: AtomicU64,
    output_tokens: AtomicU64,
    first_tokens: AtomicU64,
    ttft_sum_ns: AtomicU64,
    batches: AtomicU64,
    longest_step_ns: AtomicU64,
    most_step_tokens: AtomicU64,
}

/// What [`Live`] held at one moment.
#[derive(Clone, Copy, Debug)]
pub struct LiveTotals {
    /// The phase that goes on.
    pub phase: Phase,
    /// When it began.
    pub phase_began_ns: u64,
    /// Output tokens of the phase so far.
    pub output_tokens: u64,
    /// Requests of the phase that have their first token.
    pub first_tokens: u64,
    /// Sum of their TTFT.
    pub ttft_sum_ns: u64,
    /// Batches of records since the run began: it stands still when the engine does.
    pub batches: u64,
    /// The longest step so far, in nanoseconds.
    pub longest_step_ns: u64,
    /// Most tokens, prefilled and decoded, in one step so far.
    pub most_step_tokens: u64,
}

impl Live {
    /// The totals so far.
    pub fn totals(&self) -> LiveTotals {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        LiveTotals {
            phase: Phase::from_u8(read(&self.phase) as u8).unwrap_or(Phase::Prime),
            phase_began_ns: read(&self.phase_began_ns),
            output_tokens: read(&self.output_tokens),
            first_tokens: read(&self.first_tokens),
            ttft_sum_ns: read(&self.ttft_sum_ns),
            batches: read(&self.batches),
            longest_step_ns: read(&self.longest_step_ns),
            most_step_tokens: read(&self.most_step_tokens),
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        for total in [&self.output_tokens, &self.first_tokens, &self.ttft_sum_ns] {
            total.store(0, Ordering::Relaxed);
        }
        self.phase.store(phase as u64, Ordering::Relaxed);
        self.phase_began_ns.store(clock_ns(), Ordering::Relaxed);
    }

    pub(super) fn tokens(&self, count: u64) {
        add(&self.output_tokens, count);
    }

    pub(super) fn first_token(&self, ttft_ns: u64) {
        add(&self.first_tokens, 1);
        add(&self.ttft_sum_ns, ttft_ns);
    }

    pub(super) fn batch(&self) {
        add(&self.batches, 1);
    }

    pub(super) fn step(&self, took_ns: u64, tokens: u64) {
        raise(&self.longest_step_ns, took_ns);
        raise(&self.most_step_tokens, tokens);
    }
}

fn raise(total: &AtomicU64, to: u64) {
    if to > total.load(Ordering::Relaxed) {
        total.store(to, Ordering::Relaxed);
    }
}

fn add(total: &AtomicU64, amount: u64) {
    total.store(total.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
