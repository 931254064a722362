//! The events of a timeline, in memory and on disk the same fixed-size records.

use bytemuck::{Pod, Zeroable};

pub use crate::base::absent::{ABSENT, known};

/// Part of a run that a request belongs to. Only [`Phase::Measure`] counts in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Fills the prefix cache.
    Prime = 0,
    /// Brings the engine to its working state.
    Warmup = 1,
    /// The measured window.
    Measure = 2,
}

impl Phase {
    /// The name in `events.csv`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Prime => "prime",
            Phase::Warmup => "warmup",
            Phase::Measure => "measure",
        }
    }

    /// The phase that a record's byte stands for.
    pub fn from_u8(value: u8) -> Option<Phase> {
        [Phase::Prime, Phase::Warmup, Phase::Measure].into_iter().find(|phase| *phase as u8 == value)
    }
}

/// One token event: `count` tokens of one request became known in one step. In the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TokenEvent {
    /// When the recorder took the record.
    pub received_ns: u64,
    /// When the tap saw the tokens; [`ABSENT`] in an imported timeline without it.
    pub emitted_ns: u64,
    /// Index into [`crate::measurement::timeline::Timeline::requests`].
    pub request: u32,
    /// Engine step, counted from 0 within the run; `u32::MAX` in an imported timeline without it.
    pub step: u32,
    /// Tokens in this event, at least 1.
    pub count: u32,
    /// The event became visible at most this long before `received_ns`: the recorder's look before had not found it.
    /// `u32::MAX` if there was no such look, or if it was 4.29 s or more ago.
    pub poll_gap_ns: u32,
}

/// One engine step, as the sidecar reported it after the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct StepEvent {
    /// Before the scheduler was called.
    pub started_ns: u64,
    /// After the step function returned.
    pub ended_ns: u64,
    /// When the tap stamped the tokens of the step; [`ABSENT`] if the step ran no model.
    pub tapped_ns: u64,
    /// Engine step, counted from 0 within the run.
    pub step: u32,
    /// Requests in prefill.
    pub prefill_requests: u32,
    /// Prompt tokens computed.
    pub prefill_tokens: u32,
    /// Requests in decode.
    pub decode_requests: u32,
    /// Tokens computed for requests in decode.
    pub decode_tokens: u32,
    /// Requests running after the step.
    pub running: u32,
    /// Requests waiting after the step.
    pub waiting: u32,
    /// Share of the KV cache in use after the step, in parts per million.
    pub kv_cache_usage_ppm: u32,
    /// Requests preempted in this step.
    pub preemptions: u32,
    /// Token events that the tap pushed in this step.
    pub token_events: u32,
    /// Time that tap and push together took inside the engine; `u32::MAX` if the tap was not reached.
    pub tap_push_ns: u32,
    /// Times that the kernel took the engine's thread off its core in this step.
    pub involuntary_switches: u32,
}

/// One request: what was asked, and how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RequestEvent {
    /// When the arrival process wanted it; [`ABSENT`] if it was never due.
    pub scheduled_ns: u64,
    /// When its handle entered the ring; [`ABSENT`] if it never did.
    pub submitted_ns: u64,
    /// When the sidecar pushed the finish record; [`ABSENT`] without one.
    pub finish_emitted_ns: u64,
    /// When the recorder took the finish record; [`ABSENT`] without one.
    pub finish_received_ns: u64,
    /// The engine's own stamps; [`ABSENT`] where the engine gave none.
    pub engine_queued_ns: u64,
    /// The engine's SCHEDULED stamp.
    pub engine_scheduled_ns: u64,
    /// The engine's stamp of the step that gave the first token.
    pub engine_first_token_ns: u64,
    /// The engine's stamp of the step that gave the last token.
    pub engine_last_token_ns: u64,
    /// Prompt tokens asked.
    pub asked_prompt_tokens: u32,
    /// Output tokens asked; `u32::MAX` if not known (an imported timeline).
    pub asked_output_tokens: u32,
    /// Leading prompt tokens shared with the other requests and primed before; the design's cached share.
    pub asked_prefix_tokens: u32,
    /// Prompt tokens as the engine counted them; `u32::MAX` without a finish record.
    pub prompt_tokens: u32,
    /// Output tokens as the engine counted them; `u32::MAX` without a finish record.
    pub output_tokens: u32,
    /// Prompt tokens that came from the cache, as the engine counted them; `u32::MAX` if it gave no count.
    pub cached_tokens: u32,
    /// Times the engine preempted it.
    pub preemptions: u32,
    /// A [`Phase`].
    pub phase: u8,
    /// A [`FinishReason`].
    pub finish_reason: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Why a request ended, as the engine said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FinishReason {
    /// It did not.
    None = 0,
    /// A stop token or string.
    Stop = 1,
    /// The output length asked for, or the model's limit.
    Length = 2,
    /// Aborted by the harness.
    Abort = 3,
    /// The engine failed on it.
    Error = 4,
    /// A reason that this version has no name for.
    Other = 5,
}

impl FinishReason {
    /// The name in the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::None => "none",
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Abort => "abort",
            FinishReason::Error => "error",
            FinishReason::Other => "other",
        }
    }

    /// The reason that a record's byte stands for.
    pub fn from_u8(value: u8) -> Option<FinishReason> {
        use FinishReason::*;
        [None, Stop, Length, Abort, Error, Other].into_iter().find(|reason| *reason as u8 == value)
    }
}

impl TokenEvent {
    /// The step, if it is known.
    pub fn step(&self) -> Option<u32> {
        (self.step != u32::MAX).then_some(self.step)
    }

    /// How long before `received_ns` the event may have become visible, if that is known.
    pub fn poll_gap_ns(&self) -> Option<u32> {
        (self.poll_gap_ns != u32::MAX).then_some(self.poll_gap_ns)
    }
}

impl RequestEvent {
    /// A request of which nothing has happened yet.
    pub fn planned(phase: Phase, prompt_tokens: u32, output_tokens: u32, prefix_tokens: u32) -> RequestEvent {
        RequestEvent {
            scheduled_ns: ABSENT,
            submitted_ns: ABSENT,
            finish_emitted_ns: ABSENT,
            finish_received_ns: ABSENT,
            engine_queued_ns: ABSENT,
            engine_scheduled_ns: ABSENT,
            engine_first_token_ns: ABSENT,
            engine_last_token_ns: ABSENT,
            asked_prompt_tokens: prompt_tokens,
            asked_output_tokens: output_tokens,
            asked_prefix_tokens: prefix_tokens,
            prompt_tokens: u32::MAX,
            output_tokens: u32::MAX,
            cached_tokens: u32::MAX,
            preemptions: 0,
            phase: phase as u8,
            finish_reason: FinishReason::None as u8,
            reserved: [0; 2],
        }
    }

    /// The phase; a byte that stands for none counts as [`Phase::Prime`], which no metric includes.
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.phase).unwrap_or(Phase::Prime)
    }

    /// Whether a finish record arrived.
    pub fn finished(&self) -> bool {
        self.finish_received_ns != ABSENT
    }
}
