//! The types of a resolved plan.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{PairMember, QuantizationSwitches, Role, VaryingSetting};
use crate::base::printable::printable;
use crate::machine::device::DeviceClass;

/// Everything a command will measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the sweep: the configuration file's stem, or the built-in sweep's name. Names the results folder.
    pub name: String,
    /// Seed of the round orders and of every point that gives none.
    pub seed: u64,
    /// The settings that are not the same in all points, with their classes; absent in plans of older versions.
    #[serde(default)]
    pub varying: Vec<VaryingSetting>,
    /// In the order of execution; an engine load each, but for those of engines that [stay loaded](Plan::loads_engine).
    pub epochs: Vec<Epoch>,
}

/// Runs on one loaded engine, directly one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Every setting that needs a reload.
    pub key: EngineKey,
    /// What its load is for, in words: `first load`, or the settings that differ from the epoch before; `still loaded` where it
    /// needs none.
    pub reason: String,
    /// The points measured on this engine.
    pub points: Vec<Point>,
    /// The round that `rounds` begins with: above 0 where pairs reload the engine between their members.
    #[serde(default)]
    pub first_round: u32,
    /// For every round from there on, the indices into `points` in the order of execution.
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
    /// Quantization by meaning: what the weights are to be in the loaded engine.
    pub quantization: Quantization,
    /// What tells vLLM to load them so.
    #[serde(default, skip_serializing_if = "QuantizationSwitches::is_empty")]
    pub quantization_switches: QuantizationSwitches,
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
    /// 16 or 32 bits, not quantized.
    #[default]
    None,
    /// 8-bit floating point.
    Fp8,
    /// 4-bit floating point.
    Fp4,
    /// Anything else, or what only the loaded engine knows: asked for by `--quantization` in `args` or by the checkpoint.
    Other,
}

impl Quantization {
    /// The name in configurations and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Quantization::None => "none",
            Quantization::Fp8 => "fp8",
            Quantization::Fp4 => "fp4",
            Quantization::Other => "other",
        }
    }
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
    /// Distinct prefixes of `prefix_len` tokens, which the requests take in turn. Each is primed on its own.
    #[serde(default = "one")]
    pub num_prefixes: u32,
    /// The hit rate that the configuration asks for, from which `prefix_len` follows; `None` where it gives the length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_hit_rate: Option<HitRate>,
    /// The named workload that the lengths come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<NamedWorkload>,
    /// Requests measured in each run.
    pub num_prompts: u32,
    /// Runs of this point, one in each round; at most, where `until_ci` says when there are enough.
    pub repeats: u32,
    /// No more runs are measured once the intervals are this narrow: half-width, relative to the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ci: Option<f64>,
    /// Requests that run before the measured window.
    pub warmup: u32,
    /// Times a second that the machine is sampled beside a run; 0 for not at all, as in runs of older versions.
    #[serde(default)]
    pub telemetry_hz: u32,
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
    /// What its runs are for.
    #[serde(default, skip_serializing_if = "Role::is_measured")]
    pub role: Role,
    /// The pair that it belongs to, where two values are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<PairMember>,
    /// Where the lengths stand in the configuration, for messages about them.
    #[serde(skip)]
    pub location: IgnoredInEq<Location>,
}

/// A share of the prompts that is asked to come from the prefix cache, and what whole blocks make of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HitRate {
    /// As the configuration gives it, from 0 to 1.
    pub asked: f64,
    /// The nearest one that whole blocks of the prompt can give.
    pub reachable: f64,
    /// Tokens in a block that `reachable` counts on; the loaded engine has to have the same.
    pub block_size: u32,
}

/// A named workload, and the factor by which its lengths were multiplied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedWorkload {
    /// What `workload:` calls it.
    pub name: String,
    /// `1/8`; `1/1` for the lengths as they are.
    pub scale: String,
}

/// Prefixes of a point that was stored before there could be more of them.
fn one() -> u32 {
    1
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
            Some(file) => f.write_str(&printable(&file.to_string_lossy()))?,
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
    /// Distinct prefixes that are primed before the measured window: none without a shared prefix.
    pub fn primed_prefixes(&self) -> u32 {
        if self.prefix_len == 0 { 0 } else { self.num_prefixes }
    }

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

    /// Prompt and output tokens of all measured requests together.
    pub fn tokens(&self) -> u64 {
        u64::from(self.num_prompts) * u64::from(self.input_len) + self.output_tokens()
    }

    /// Which stream of its seed the prompts of repeat `repeat` come from: a new one each time, except where runs are compared
    /// with each other as the same work.
    pub fn prompt_stream(&self, repeat: u32) -> u32 {
        if self.role.is_measured() { repeat } else { 0 }
    }

    /// Output tokens asked of the measured request `index`.
    pub fn output_len_of(&self, index: u32) -> u32 {
        let scripted = self.scripted_output_lens.as_deref().unwrap_or_default();
        scripted.get(index as usize).copied().unwrap_or(self.output_len)
    }
}
