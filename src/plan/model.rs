//! The types of a resolved plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::device::DeviceClass;

/// Everything a command will measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the sweep: the configuration file's stem, or the built-in sweep's name. Names the results folder.
    pub name: String,
    /// Seed of the round orders and of every point that gives none.
    pub seed: u64,
    /// One engine load each, in the order of execution.
    pub epochs: Vec<Epoch>,
}

/// The life of one loaded engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Every setting that needs a reload.
    pub key: EngineKey,
    /// What this load is for, in words: `first load`, or the settings that differ from the epoch before.
    pub reason: String,
    /// The points measured on this engine.
    pub points: Vec<Point>,
    /// For every round, the indices into `points` in the order of execution.
    pub rounds: Vec<Vec<usize>>,
}

/// Every setting that needs a reload of the engine. Two points with equal keys share an epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EngineKey {
    /// Device class of the engine.
    pub device: DeviceClass,
    /// A hub name, or the path of a folder with `config.json`.
    pub model: String,
    /// Number of tensor-parallel ranks.
    pub tensor_parallel_size: u32,
    /// Quantization by meaning; the device profile resolves it to vLLM's own value.
    pub quantization: Quantization,
    /// What remains of `args` for vLLM's own parser, split as a shell would, without the model.
    pub engine_args: Vec<String>,
    /// Which step function the sidecar calls.
    pub step_api: StepApi,
    /// Where `args` stands in the configuration, for messages about it; not part of the key's identity.
    #[serde(skip)]
    pub args_location: IgnoredInEq<Location>,
}

/// Quantization of the weights, by meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// As the checkpoint has them.
    #[default]
    None,
    /// 8-bit floating point.
    Fp8,
    /// 4-bit floating point.
    Fp4,
}

/// Which of vLLM's step functions the sidecar calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepApi {
    /// `EngineCore.step_fn`, as vLLM's own server process does.
    #[default]
    EngineCore,
    /// `LLMEngine.step`, as offline users do.
    LlmEngine,
}

/// Who decides when the engine steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drive {
    /// The engine steps while it has work.
    #[default]
    Free,
    /// The harness grants each step through the request ring.
    Stepped,
}

/// How a shared prefix counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixMode {
    /// The prefix lies inside `input_len`.
    #[default]
    Inside,
    /// The prefix is added in front of `input_len` tokens, as vLLM's own benchmark reads it.
    Added,
}

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// A request follows as soon as one of `concurrency` in flight has finished; `None`: all at once.
    Closed {
        /// Most requests in flight.
        concurrency: Option<u32>,
    },
}

/// Scheduler limits that are lowered on the running engine, never raised above what it was built with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Limits {
    /// Most requests in one batch.
    pub max_num_seqs: Option<u32>,
    /// Most tokens in one step.
    pub max_num_batched_tokens: Option<u32>,
}

/// One resolved combination of workload, load and settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Name of the entry it comes from.
    pub name: String,
    /// Label, unique in the plan, of characters that are safe in a file name: `i512-o32-p0-n8`.
    pub point: String,
    /// Prompt tokens of each request, all included.
    pub input_len: u32,
    /// Output tokens asked of each request; the most, where a script asks different ones.
    pub output_len: u32,
    /// Output tokens asked of each request in turn, where a script gives the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripted_output_lens: Option<Vec<u32>>,
    /// Leading prompt tokens that all requests share.
    pub prefix_len: u32,
    /// How the configuration gave the prefix; `input_len` above has already been resolved by it.
    pub prefix_mode: PrefixMode,
    /// Requests measured in each run.
    pub num_prompts: u32,
    /// Runs of this point, one in each round.
    pub repeats: u32,
    /// Requests that run before the measured window.
    pub warmup: u32,
    /// Seed of the prompts.
    pub seed: u64,
    /// How requests arrive.
    pub load: Load,
    /// Who decides when the engine steps.
    pub drive: Drive,
    /// Limits lowered on the running engine.
    pub limits: Limits,
    /// Objectives: a metric of the report (`p99_ttft_s`) and the bound that it must keep.
    pub slo: BTreeMap<String, f64>,
    /// Where the lengths stand in the configuration, for messages about them.
    #[serde(skip)]
    pub location: IgnoredInEq<Location>,
}

/// A place in a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file; `None` for a built-in sweep.
    pub file: Option<PathBuf>,
    /// 1-based line; 0 when it is about the file as a whole.
    pub line: usize,
    /// 1-based column.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display())?,
            None => f.write_str("built-in sweep")?,
        }
        if self.line == 0 { Ok(()) } else { write!(f, ":{}:{}", self.line, self.column) }
    }
}

/// Carries a value that says where something came from, and takes no part in comparisons.
#[derive(Clone, Debug, Default)]
pub struct IgnoredInEq<T>(pub T);

impl<T> PartialEq for IgnoredInEq<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<T> Eq for IgnoredInEq<T> {}
impl<T> PartialOrd for IgnoredInEq<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for IgnoredInEq<T> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Point {
    /// Whether all requests are asked for `output_len` tokens.
    pub fn has_one_output_len(&self) -> bool {
        self.scripted_output_lens.iter().flatten().all(|tokens| *tokens == self.output_len)
    }

    /// Output tokens asked of all measured requests together.
    pub fn output_tokens(&self) -> u64 {
        match &self.scripted_output_lens {
            Some(lens) => lens.iter().map(|tokens| u64::from(*tokens)).sum(),
            None => u64::from(self.num_prompts) * u64::from(self.output_len),
        }
    }

    /// Output tokens asked of the measured request `index`.
    pub fn output_len_of(&self, index: u32) -> u32 {
        let scripted = self.scripted_output_lens.as_deref().unwrap_or_default();
        scripted.get(index as usize).copied().unwrap_or(self.output_len)
    }
}

impl Plan {
    /// Number of runs that the plan asks for.
    pub fn num_runs(&self) -> usize {
        self.epochs.iter().flat_map(|epoch| &epoch.rounds).map(Vec::len).sum()
    }

    /// The device classes of its engines, each once.
    pub fn device_classes(&self) -> Vec<DeviceClass> {
        let classes: BTreeSet<DeviceClass> = self.epochs.iter().map(|epoch| epoch.key.device).collect();
        classes.into_iter().collect()
    }

    /// Number of points over all epochs.
    pub fn num_points(&self) -> usize {
        self.epochs.iter().map(|epoch| epoch.points.len()).sum()
    }
}
