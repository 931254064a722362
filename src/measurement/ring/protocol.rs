// Made by ffi/generate.py from ffi/protocol.toml; do not edit.

//! Records and constants of the data plane.

use bytemuck::{Pod, Zeroable};

/// Version of the layout; both sides refuse any other.
pub const ABI_VERSION: u32 = 2;
/// First word of a ring's header.
pub const MAGIC: u64 = 0x31474e5248434e42;
/// Bytes in a record: one cache line.
pub const RECORD_SIZE: usize = 64;
/// Stream id of the ring that carries events from the engine to the recorder.
pub const EVENT_STREAM: u32 = 1;
/// Stream id of the ring that carries requests from the harness to the engine.
pub const REQUEST_STREAM: u32 = 2;
/// Token events that one TOKENS record holds at most.
pub const TOKENS_PER_RECORD: u32 = 8;
/// Most records that a ring may hold; a header that claims more is refused.
pub const MAX_CAPACITY: u32 = 16777216;
/// Stands in a count for a value that the engine did not give.
pub const UNKNOWN_COUNT: u32 = 0xFFFFFFFF;
/// Stands in a time for a value that the engine did not give.
pub const ABSENT_NS: u64 = 0xFFFFFFFFFFFFFFFF;

/// Up to 8 token events of one step, all known at emitted_ns. `count` of the 8 slots are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TokensRecord {
    /// Which record this is.
    pub kind: u8,
    /// Used slots, or a small code; see the record.
    pub count: u8,
    /// Zero.
    pub flags: u16,
    /// Engine step, counted from 0 within the run.
    pub step: u32,
    /// CLOCK_MONOTONIC, the first thing that the push does.
    pub emitted_ns: u64,
    /// Handles of the requests.
    pub request: [u32; 8],
    /// Tokens of each event, at least 1.
    pub tokens: [u16; 8],
}

impl TokensRecord {
    /// Value of `kind` in this record.
    pub const KIND: u8 = 1;
}

/// One engine step, pushed after it. `flags`: how often its thread was taken off its core in it (65535: or more).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct StepRecord {
    /// Which record this is.
    pub kind: u8,
    /// Used slots, or a small code; see the record.
    pub count: u8,
    /// Zero.
    pub flags: u16,
    /// Engine step, counted from 0 within the run.
    pub step: u32,
    /// CLOCK_MONOTONIC, the first thing that the push does.
    pub emitted_ns: u64,
    /// Before the scheduler was called.
    pub started_ns: u64,
    /// After the step function returned.
    pub ended_ns: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u32,
    /// Tokens computed for requests in decode.
    pub decode_tokens: u32,
    /// Requests waiting after the step.
    pub waiting: u32,
    /// Share of the KV cache in use, in parts per million.
    pub kv_cache_usage_ppm: u32,
    /// Time that tap and push took together; UNKNOWN_COUNT if the tap was not reached.
    pub tap_push_ns: u32,
    /// Token events that the tap pushed in this step.
    pub token_events: u32,
    /// Requests in prefill.
    pub prefill_requests: u16,
    /// Requests in decode.
    pub decode_requests: u16,
    /// Requests running after the step.
    pub running: u16,
    /// Requests preempted in this step.
    pub preemptions: u16,
}

impl StepRecord {
    /// Value of `kind` in this record.
    pub const KIND: u8 = 2;
}

/// A request has ended. `count` is the reason (1 stop, 2 length, 3 abort, 4 error, 5 other), `flags` its preemptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FinishRecord {
    /// Which record this is.
    pub kind: u8,
    /// Used slots, or a small code; see the record.
    pub count: u8,
    /// Zero.
    pub flags: u16,
    /// Engine step, counted from 0 within the run.
    pub step: u32,
    /// CLOCK_MONOTONIC, the first thing that the push does.
    pub emitted_ns: u64,
    /// The engine's QUEUED stamp.
    pub queued_ns: u64,
    /// The engine's first SCHEDULED stamp.
    pub scheduled_ns: u64,
    /// The engine's stamp of the step that gave the first token.
    pub first_token_ns: u64,
    /// The engine's stamp of the step that gave the last token.
    pub last_token_ns: u64,
    /// Handle of the request.
    pub request: u32,
    /// Prompt tokens as the engine counted them.
    pub prompt_tokens: u32,
    /// Output tokens as the engine counted them.
    pub output_tokens: u32,
    /// Prompt tokens that came from the prefix cache.
    pub cached_tokens: u32,
}

impl FinishRecord {
    /// Value of `kind` in this record.
    pub const KIND: u8 = 3;
}

/// The last record of a run: nothing of it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndedRecord {
    /// Which record this is.
    pub kind: u8,
    /// Used slots, or a small code; see the record.
    pub count: u8,
    /// Zero.
    pub flags: u16,
    /// Engine step, counted from 0 within the run.
    pub step: u32,
    /// CLOCK_MONOTONIC, the first thing that the push does.
    pub emitted_ns: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Zero.
    pub reserved: [u64; 5],
}

impl EndedRecord {
    /// Value of `kind` in this record.
    pub const KIND: u8 = 4;
}

/// Hand a staged request to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SubmitRecord {
    /// Which record this is.
    pub kind: u8,
    /// Used slots, or a small code; see the record.
    pub count: u8,
    /// Zero.
    pub flags: u16,
    /// Engine step, counted from 0 within the run.
    pub step: u32,
    /// CLOCK_MONOTONIC, the first thing that the push does.
    pub emitted_ns: u64,
    /// Handle of the request.
    pub request: u32,
    /// Zero.
    pub reserved: [u32; 11],
}

impl SubmitRecord {
    /// Value of `kind` in this record.
    pub const KIND: u8 = 16;
}

/// Allow engine steps, where the harness drives each one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct GrantRecord {
    /// Which record this is.
    pub kind: u8,
    /// Used slots, or a small code; see the record.
    pub count: u8,
    /// Zero.
    pub flags: u16,
    /// Engine step, counted from 0 within the run.
    pub step: u32,
    /// CLOCK_MONOTONIC, the first thing that the push does.
    pub emitted_ns: u64,
    /// Steps allowed.
    pub steps: u32,
    /// Zero.
    pub reserved: [u32; 11],
}

impl GrantRecord {
    /// Value of `kind` in this record.
    pub const KIND: u8 = 17;
}

/// The run is over: abort what is unfinished, then push Ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndRecord {
    /// Which record this is.
    pub kind: u8,
    /// Used slots, or a small code; see the record.
    pub count: u8,
    /// Zero.
    pub flags: u16,
    /// Engine step, counted from 0 within the run.
    pub step: u32,
    /// CLOCK_MONOTONIC, the first thing that the push does.
    pub emitted_ns: u64,
    /// Zero.
    pub reserved: [u64; 6],
}

impl EndRecord {
    /// Value of `kind` in this record.
    pub const KIND: u8 = 18;
}
