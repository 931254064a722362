//! The settings of a measurement, each of them optional, as one level of the configuration gives them.

use std::collections::BTreeMap;

use super::entry;
use super::node::{Node, Place, Value};
use super::reader::{Given, Reader};
use super::workload::{Scale, WORKLOADS, Workload};
use crate::machine::device::DeviceClass;
use crate::question::plan::{Drive, MAX_TELEMETRY_HZ, PrefixMode, Quantization, StepApi};

/// Longest prompt, output or prefix that is taken for a real one, in tokens.
pub(super) const MAX_LEN: u32 = 10_000_000;
/// Most requests in a run, and most in flight or in a batch.
const MAX_REQUESTS: u32 = 1_000_000;
/// Most runs of one point.
pub(crate) const MAX_REPEATS: u32 = 1_000;
/// Most tensor-parallel ranks.
pub(super) const MAX_RANKS: u32 = 4_096;

macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        /// What one level of the configuration says; levels are laid over each other.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Settings {
            $($(#[$doc])* pub $field: Option<Given<$type>>,)*
        }

        impl Settings {
            /// These settings, with what they leave open taken from `lower`.
            pub(crate) fn over(self, lower: &Settings) -> Settings {
                Settings { $($field: self.$field.or_else(|| lower.$field.clone()),)* }
            }

            /// Name and place of every setting that is given.
            pub(super) fn given(&self) -> Vec<(&'static str, Place)> {
                let places = [$((stringify!($field), self.$field.as_ref().map(|given| given.place)),)*];
                places.into_iter().filter_map(|(name, place)| Some((name, place?))).collect()
            }

            /// Whether both give `key` the same value.
            pub(super) fn agrees(&self, other: &Settings, key: &str) -> bool {
                match key {
                    $(stringify!($field) => match (&self.$field, &other.$field) {
                        (Some(one), Some(other)) => one.value == other.value,
                        _ => false,
                    },)*
                    _ => false,
                }
            }
        }
    };
}

settings! {
    /// Device class of the engine.
    device: DeviceClass,
    /// Hub name, folder, or `builtin:` name.
    model: String,
    /// Words for vLLM's own parser, of an axis: they come behind those of the entry.
    args: Vec<String>,
    /// Quantization by meaning.
    quantization: Quantization,
    /// Tensor-parallel ranks; from `args` or an axis, else the entry has a list of them.
    tensor_parallel_size: u32,
    /// A named workload, which gives the three lengths.
    workload: Workload,
    /// By what the lengths of the workload are multiplied.
    scale: Scale,
    /// Prompt tokens.
    input_len: u32,
    /// Output tokens.
    output_len: u32,
    /// Shared leading prompt tokens.
    prefix_len: u32,
    /// How the prefix counts.
    prefix_mode: PrefixMode,
    /// Distinct prefixes, which the requests take in turn.
    num_prefixes: u32,
    /// Share of the prompts that is to come from the cache; takes the place of `prefix_len`.
    prefix_hit_rate: f64,
    /// Requests in a run.
    num_prompts: u32,
    /// Runs of each point.
    repeats: u32,
    /// Requests before the measured window.
    warmup: u32,
    /// Times a second that the machine is sampled.
    telemetry_hz: u32,
    /// Seed of the prompts; in `defaults`, of the whole plan.
    seed: u64,
    /// Most requests in flight in a closed load; `None` is all at once.
    concurrency: Option<u32>,
    /// Who decides when the engine steps.
    drive: Drive,
    /// Which step function is called.
    step_api: StepApi,
    /// Live-lowered limit.
    max_num_seqs: u32,
    /// Live-lowered limit.
    max_num_batched_tokens: u32,
    /// Metrics and the bounds that they must keep.
    slo: BTreeMap<String, f64>,
}

/// Keys that `defaults` and an entry take.
pub(crate) const SETTING_KEYS: [&str; 21] = [
    "device",
    "model",
    "quantization",
    "workload",
    "scale",
    "input_len",
    "output_len",
    "prefix_len",
    "prefix_mode",
    "num_prefixes",
    "prefix_hit_rate",
    "num_prompts",
    "repeats",
    "warmup",
    "seed",
    "load",
    "drive",
    "step_api",
    "limits",
    "telemetry_hz",
    "slo",
];

/// Keys that `matrix` crosses.
pub(crate) const AXIS_KEYS: [&str; 21] = [
    "device",
    "model",
    "args",
    "quantization",
    "tensor_parallel_size",
    "workload",
    "input_len",
    "output_len",
    "prefix_len",
    "prefix_mode",
    "num_prefixes",
    "prefix_hit_rate",
    "num_prompts",
    "repeats",
    "warmup",
    "seed",
    "concurrency",
    "drive",
    "step_api",
    "max_num_seqs",
    "max_num_batched_tokens",
];

/// Axes of whole numbers, which take ranges.
const COUNT_KEYS: [&str; 12] = [
    "tensor_parallel_size",
    "input_len",
    "output_len",
    "prefix_len",
    "num_prefixes",
    "num_prompts",
    "repeats",
    "warmup",
    "seed",
    "concurrency",
    "max_num_seqs",
    "max_num_batched_tokens",
];

/// Keys of one of `length_configs`.
pub(super) const LENGTH_KEYS: [&str; 3] = ["input_len", "output_len", "prefix_len"];

/// Keys of `limits`.
const LIMIT_KEYS: [&str; 2] = ["max_num_seqs", "max_num_batched_tokens"];

impl Settings {
    /// Reads the value of `key`, which is one of [`SETTING_KEYS`] or [`AXIS_KEYS`].
    pub(super) fn read(&mut self, reader: &mut Reader, key: &str, node: &Node) {
        match key {
            "device" => self.device = reader.choice(key, node, &DeviceClass::ALL.map(|class| (class.as_str(), class))),
            "model" => self.model = reader.name(key, node),
            "args" => self.args = read_added_args(reader, node),
            "quantization" => {
                use Quantization::*;
                self.quantization = reader.choice(key, node, &[("none", None), ("fp8", Fp8), ("fp4", Fp4)]);
            }
            "tensor_parallel_size" => self.tensor_parallel_size = reader.count(key, node, 1, MAX_RANKS),
            "workload" => {
                self.workload = reader.choice(key, node, &WORKLOADS.map(|workload| (workload.name, workload)))
            }
            "input_len" => self.input_len = reader.count(key, node, 1, MAX_LEN),
            "output_len" => self.output_len = reader.count(key, node, 1, MAX_LEN),
            "prefix_len" => self.prefix_len = reader.count(key, node, 0, MAX_LEN),
            "prefix_mode" => {
                let choices = [("inside", PrefixMode::Inside), ("added", PrefixMode::Added)];
                self.prefix_mode = reader.choice(key, node, &choices);
            }
            "scale" => self.scale = read_scale(reader, node),
            "num_prefixes" => self.num_prefixes = reader.count(key, node, 1, MAX_REQUESTS),
            "prefix_hit_rate" => self.prefix_hit_rate = reader.share(key, node),
            "num_prompts" => self.num_prompts = reader.count(key, node, 1, MAX_REQUESTS),
            "repeats" => self.repeats = reader.count(key, node, 1, MAX_REPEATS),
            "warmup" => self.warmup = reader.count(key, node, 0, MAX_REQUESTS),
            "telemetry_hz" => self.telemetry_hz = reader.count(key, node, 0, MAX_TELEMETRY_HZ),
            "seed" => self.seed = reader.whole(key, node, 0..=u64::MAX),
            "concurrency" => {
                let count = reader.count(key, node, 1, MAX_REQUESTS);
                self.concurrency = count.map(|count| Given::new(Some(count.value), count.place));
            }
            "load" => self.concurrency = read_load(reader, node),
            "drive" => self.drive = reader.choice(key, node, &[("free", Drive::Free), ("stepped", Drive::Stepped)]),
            "step_api" => {
                let choices = [("engine_core", StepApi::EngineCore), ("llm_engine", StepApi::LlmEngine)];
                self.step_api = reader.choice(key, node, &choices);
            }
            "max_num_seqs" => self.max_num_seqs = reader.count(key, node, 1, MAX_REQUESTS),
            "max_num_batched_tokens" => self.max_num_batched_tokens = reader.count(key, node, 1, MAX_LEN),
            "limits" => self.read_limits(reader, node),
            "slo" => self.slo = read_slo(reader, node),
            _ => reader.unknown(node.place, "key", key, &SETTING_KEYS),
        }
    }

    fn read_limits(&mut self, reader: &mut Reader, node: &Node) {
        for (key, value) in reader.table("limits", node).unwrap_or_default() {
            if LIMIT_KEYS.contains(&key.text.as_str()) {
                self.read(reader, &key.text, value);
            } else {
                reader.unknown(key.place, "key of `limits`:", &key.text, &LIMIT_KEYS);
            }
        }
    }

    /// Whether `key` takes whole numbers.
    pub(super) fn counts(key: &str) -> bool {
        COUNT_KEYS.contains(&key)
    }

    /// The value of a key that takes whole numbers.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        let of = |given: &Option<Given<u32>>| given.as_ref().map(|given| given.value.into());
        match key {
            "tensor_parallel_size" => of(&self.tensor_parallel_size),
            "input_len" => of(&self.input_len),
            "output_len" => of(&self.output_len),
            "prefix_len" => of(&self.prefix_len),
            "num_prefixes" => of(&self.num_prefixes),
            "num_prompts" => of(&self.num_prompts),
            "repeats" => of(&self.repeats),
            "warmup" => of(&self.warmup),
            "seed" => self.seed.as_ref().map(|given| given.value),
            "concurrency" => self.concurrency.as_ref().and_then(|given| given.value).map(u64::from),
            "max_num_seqs" => of(&self.max_num_seqs),
            "max_num_batched_tokens" => of(&self.max_num_batched_tokens),
            _ => None,
        }
    }

    /// The lengths that a named workload stands for, wherever this level gives none itself. A hit rate of this level takes
    /// the place of the workload's prefix.
    pub(crate) fn expand_workload(&mut self, scale: Scale) {
        if let Some(Given { value, place }) = self.workload {
            let lengths = value.scaled(scale);
            self.input_len.get_or_insert(Given::new(lengths.input_len, place));
            self.output_len.get_or_insert(Given::new(lengths.output_len, place));
            if self.prefix_hit_rate.is_none() {
                self.prefix_len.get_or_insert(Given::new(lengths.prefix_len, place));
            }
        }
    }
}

/// The words of one value of an axis `args`. What has a key of its own has an axis of its own.
fn read_added_args(reader: &mut Reader, node: &Node) -> Option<Given<Vec<String>>> {
    let Given { value: split, place } = entry::read_args(reader, node)?;
    if let Some((key, word, _)) = split.taken.first() {
        reader.problem(
            place,
            format!("`{word}` in a value of the axis `args` stands for the key `{key}`; make `{key}` the axis"),
        );
        return None;
    }
    Some(Given::new(split.engine_args, place))
}

/// A fraction such as `1/8`, or the number 1.
fn read_scale(reader: &mut Reader, node: &Node) -> Option<Given<Scale>> {
    let scale = match &node.value {
        Value::Text(text) => Scale::parse(text),
        Value::Integer(1) => Some(Scale::FULL),
        _ => None,
    };
    match scale {
        Some(scale) => Some(Given::new(scale, node.place)),
        None => reader.mismatch("scale", "a fraction of two whole numbers from 1 to 1000, such as 1/8", node),
    }
}

/// `closed`, or `{closed: {concurrency: N}}`.
fn read_load(reader: &mut Reader, node: &Node) -> Option<Given<Option<u32>>> {
    const KNOWN: [&str; 1] = ["closed"];
    let Value::Table(_) = node.value else {
        return reader.choice("load", node, &[("closed", None)]);
    };
    let mut concurrency = None;
    for (key, value) in reader.table("load", node)? {
        if key.text != "closed" {
            reader.unknown(key.place, "load", &key.text, &KNOWN);
            continue;
        }
        for (key, value) in reader.table("closed", value)? {
            if key.text == "concurrency" {
                concurrency = reader.count(&key.text, value, 1, MAX_REQUESTS).map(|count| count.value);
            } else {
                reader.unknown(key.place, "key of `closed`:", &key.text, &["concurrency"]);
            }
        }
    }
    Some(Given::new(concurrency, node.place))
}

/// A table of metrics of the report and bounds.
fn read_slo(reader: &mut Reader, node: &Node) -> Option<Given<BTreeMap<String, f64>>> {
    let known = slo_metrics();
    let mut bounds = BTreeMap::new();
    for (key, value) in reader.table("slo", node)? {
        if known.contains(&key.text) {
            if let Some(bound) = reader.positive(&key.text, value) {
                bounds.insert(key.text.clone(), bound);
            }
        } else {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            reader.unknown(key.place, "metric", &key.text, &known);
        }
    }
    Some(Given::new(bounds, node.place))
}

/// The metrics of the report that an objective can be set for.
fn slo_metrics() -> Vec<String> {
    let mut metrics = ["requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "prefix_hit_rate_measured"]
        .map(String::from)
        .to_vec();
    for quantity in ["ttft_s", "itl_s", "time_per_output_token_s", "e2e_s", "tpot_tokens_per_s"] {
        metrics.extend(["avg", "p50", "p90", "p99"].map(|statistic| format!("{statistic}_{quantity}")));
    }
    metrics
}
