//! A run as it was recorded: identity, circumstances and events.

use serde::{Deserialize, Serialize};

use super::{EngineSetting, Hiccup, RequestEvent, Speculation, StepEvent, TokenEvent, Weights};
use crate::measurement::telemetry::{Sample, TelemetryRecord};
use crate::question::plan::{EngineKey, Point};

/// [`RunRecord::engine`] of a timeline that was read from a CSV file: nothing is known of what ran.
pub const IMPORTED_ENGINE: &str = "imported";

/// One run: what was asked, what it ran on, and all its events.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Everything but the events.
    pub run: RunRecord,
    /// In the order in which they were staged; the index is the request's id.
    pub requests: Vec<RequestEvent>,
    /// In the order of arrival.
    pub tokens: Vec<TokenEvent>,
    /// In the order of arrival.
    pub steps: Vec<StepEvent>,
    /// Times in which a recorder that looks all the time did not look, those longer than
    /// [`crate::measurement::recorder::HICCUP_NS`]; in order. Empty for a recorder that sleeps.
    pub hiccups: Vec<Hiccup>,
    /// What the machine said of itself, in the order of the looks; empty for a run that was not sampled.
    pub telemetry: Vec<Sample>,
}

/// Identity and circumstances of a run, stored beside its events as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this record's layout.
    pub schema_version: u32,
    /// What was asked.
    pub point: Point,
    /// The engine that it was asked of.
    pub engine_key: EngineKey,
    /// Which engine measured: `vllm`, or `scripted`.
    pub engine: String,
    /// Index of the epoch.
    pub epoch: u32,
    /// Which of the point's repeats this is, from 0. One beyond the planned ones is a run that was measured anew.
    pub repeat: u32,
    /// The repeat in whose place it was measured, because that one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<u32>,
    /// The round that it ran in, from 0.
    pub round: u32,
    /// Position among all runs of the command, from 0, in the order of execution.
    pub order: u32,
    /// How the run ended.
    pub outcome: Outcome,
    /// Seconds that loading the engine took, if this run is the first on it; 0 when it was reused.
    pub engine_load_s: f64,
    /// How the loaded engine was warmed up, if this run is the first on it; null for an engine that needs none.
    #[serde(default)]
    pub engine_warm_up: Option<WarmUp>,
    /// Seconds between the end of the run before and the begin of this one that were not spent stepping; null for the first.
    pub turnaround_s: Option<f64>,
    /// What the loaded engine said of itself; null if there was none.
    pub engine_facts: Option<EngineFacts>,
    /// What the transport and the recorder counted.
    pub counters: Counters,
    /// Hiccups of the recorder's core, those in the timeline and those beyond its room; null if it sleeps, or is not known.
    pub recorder_hiccups: Option<u64>,
    /// How the machine was sampled beside the run; null if it was not.
    #[serde(default)]
    pub telemetry: Option<TelemetryRecord>,
    /// Step of `CLOCK_REALTIME` against `CLOCK_MONOTONIC` over the run, in nanoseconds; null if not looked at.
    pub clock_step_ns: Option<i64>,
    /// What the engine compiled during the run, priming and warm-up included; null for engines that don't compile or don't tell.
    #[serde(default)]
    pub compilations: Option<Vec<Compilation>>,
    /// What was drafted in the measured window; null for an engine without speculative decoding.
    #[serde(default)]
    pub speculation: Option<Speculation>,
    /// Whether `reset_prefix_cache()` succeeded before this run; null if not asked.
    pub cache_reset: Option<bool>,
    /// What makes the numbers less trustworthy without making them wrong.
    pub warnings: Vec<String>,
    /// When the run began, RFC 3339, for people only.
    pub began_at: String,
}

/// Runs that were thrown away after a load, until the steps took as long as in the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmUp {
    /// How many.
    pub runs: u32,
    /// Whether the last two agreed; null if they had too few steps to tell.
    pub settled: Option<bool>,
    /// Median duration of the compared steps in each, in nanoseconds; null where there was none.
    pub median_step_ns: Vec<Option<u64>>,
    /// Seconds that all of them took, staging included.
    pub took_s: f64,
}

impl RunRecord {
    /// The planned repeat that it is, or in whose place it was measured.
    pub fn planned_repeat(&self) -> u32 {
        self.retry_of.unwrap_or(self.repeat)
    }
}

/// A program that the engine compiled, or took from its cache on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compilation {
    /// When it was ready, in nanoseconds of CLOCK_MONOTONIC.
    pub ready_ns: u64,
    /// Its name, in the engine's words.
    pub program: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "reason")]
pub enum Outcome {
    /// All that was asked has been delivered or refused; the verdict says whether it counts.
    Completed,
    /// It ended early, with the cause.
    Failed(String),
    /// It never began, with the cause.
    Skipped(String),
}

/// What a loaded engine says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// vLLM's own version; null for a scripted engine.
    pub vllm_version: Option<String>,
    /// Tokens in a block of the prefix cache; null when prefix caching is off.
    pub prefix_block_size: Option<u32>,
    /// Longest sequence that the engine takes, prompt and output together.
    pub max_model_len: u32,
    /// Size of the vocabulary.
    pub vocab_size: u32,
    /// Blocks in the KV cache.
    pub num_kv_blocks: Option<u32>,
    /// Whether the scheduler runs ahead of the model.
    pub async_scheduling: bool,
    /// Whether prefix caching is on.
    pub prefix_caching: bool,
    /// Most requests in one batch, as built.
    pub max_num_seqs: u32,
    /// Most tokens in one step, as built.
    pub max_num_batched_tokens: u32,
    /// Its parameters and the layers that use them; null if they were not looked at.
    #[serde(default)]
    pub weights: Option<Weights>,
    /// What its arguments ask for, and what it has; null if it was not looked at.
    #[serde(default)]
    pub settings: Option<Vec<EngineSetting>>,
    /// Anything else worth keeping, by name (versions, threads, dtype, executor).
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// Faults that the transport and the recorder counted. All zero in a sound run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Records that found the event ring full and were dropped by the tap.
    pub ring_dropped: u64,
    /// Records that found no room in the recorder's own memory.
    pub recorder_overflow: u64,
    /// Records with an unknown kind or an impossible content.
    pub malformed: u64,
    /// Token events that no staged, submitted and unfinished request explains.
    pub unexplained: u64,
    /// Tokens of an already finished request, discarded by design under async scheduling.
    pub discarded: u64,
}

/// The name of a run in the column `run`, before it becomes a cell of a spreadsheet.
pub fn run_name(name: &str, point: &str, repeat: u32) -> String {
    format!("{name}|{point}|{repeat}")
}
