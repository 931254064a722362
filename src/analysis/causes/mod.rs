//! Causes: for each of the slowest latencies the step that ended it, what shared that step, and what made it slow.
//!
//! A latency's excess is what it has above the median of its run. It is cut into parts that the timeline gives (time on the
//! recorder's side, between steps, in the queue, and what steps of the same composition typically take), and the part
//! that makes at least half of the excess is its cause. `docs/causes.md` has the rules.

mod itl;
mod steps;
mod tail;
mod ttft;

pub use tail::{CauseShare, Causes, Slow, Tail};

use serde::Serialize;

/// What made a latency slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The engine compiled or loaded a program.
    Compilation,
    /// The request was preempted, and its tokens were computed again.
    Preemption,
    /// The token lay in the ring, or the recorder's core was taken away.
    RecorderStall,
    /// The harness submitted the request late.
    LateIssue,
    /// The engine's loop stood between two steps, in the tap, or its thread was taken off its core.
    EngineStall,
    /// The request waited in the engine's queue.
    Queue,
    /// The steps computed prompt tokens.
    Prefill,
    /// The steps had a larger batch than most.
    Batch,
    /// Steps ran without the request.
    NotScheduled,
    /// The machine said that it was throttled.
    Throttling,
    /// Nothing that was recorded accounts for half of the excess.
    Unexplained,
}

impl Cause {
    /// All of them, in the order of the rules.
    pub const ALL: [Cause; 11] = [
        Cause::Compilation,
        Cause::Preemption,
        Cause::RecorderStall,
        Cause::LateIssue,
        Cause::EngineStall,
        Cause::Queue,
        Cause::Prefill,
        Cause::Batch,
        Cause::NotScheduled,
        Cause::Throttling,
        Cause::Unexplained,
    ];

    /// In words, for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Cause::Compilation => "compilation",
            Cause::Preemption => "preemption",
            Cause::RecorderStall => "recorder's host stalled",
            Cause::LateIssue => "submitted late",
            Cause::EngineStall => "engine's host stalled",
            Cause::Queue => "waited in the queue",
            Cause::Prefill => "prefill",
            Cause::Batch => "larger batch",
            Cause::NotScheduled => "not in the batch",
            Cause::Throttling => "throttling",
            Cause::Unexplained => "unexplained",
        }
    }
}
