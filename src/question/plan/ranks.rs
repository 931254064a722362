//! How many processes an engine computes with, as vLLM 0.32 counts them, and what of it an engine in this process cannot have.

use serde_json::Value;

use super::{EngineKey, flag_value, has_flag, human_readable_int, switch};
use crate::machine::device::DeviceClass;

/// The sizes in `args` that multiply the ranks, beside `tensor_parallel_size` (`ParallelConfig.world_size`): the long flag,
/// the short one, and what people call it. `--decode-context-parallel-size` shares ranks that are there.
const SIZES: [(&str, &str, &str); 2] = [
    ("--pipeline-parallel-size", "-pp", "pipeline parallel"),
    ("--prefill-context-parallel-size", "-pcp", "prefill context parallel"),
];

/// Flags with which vLLM makes an engine one of several replicas, with or without a number behind them.
const REPLICAS: [(&str, &str); 8] = [
    ("--data-parallel-size", "-dp"),
    ("--data-parallel-size-local", "-dpl"),
    ("--data-parallel-rank", "-dpn"),
    ("--data-parallel-start-rank", "-dpr"),
    ("--data-parallel-address", "-dpa"),
    ("--data-parallel-hybrid-lb", "-dph"),
    ("--data-parallel-external-lb", "-dpe"),
    ("--data-parallel-multi-port-external-lb", "-dpm"),
];

/// The value of a flag, by its long or its short name.
fn value_of<'a>(engine_args: &'a [String], long: &str, short: &str) -> Option<&'a str> {
    flag_value(engine_args, long).or_else(|| flag_value(engine_args, short))
}

/// A parallel size in `args`; 1 where it is not given, and where vLLM's parser will say what is wrong with it.
fn size(engine_args: &[String], long: &str, short: &str) -> u32 {
    let number = value_of(engine_args, long, short).and_then(human_readable_int);
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(1).max(1)
}

/// Pipeline stages, among which the layers are divided.
pub(crate) fn pipeline(engine_args: &[String]) -> u32 {
    let (long, short, _) = SIZES[0];
    size(engine_args, long, short)
}

/// Ranks among which the tokens of the KV cache are divided.
pub(crate) fn decode_context(engine_args: &[String]) -> u32 {
    size(engine_args, "--decode-context-parallel-size", "-dcp")
}

impl EngineKey {
    /// Processes that compute the model, each on a device of its own.
    pub fn ranks(&self) -> u32 {
        let others = self.other_sizes();
        others.iter().fold(self.tensor_parallel_size, |ranks, (_, size)| ranks.saturating_mul(*size))
    }

    /// The sizes that multiply the ranks beside `tensor_parallel_size`, with their flags.
    pub(crate) fn other_sizes(&self) -> [(&'static str, u32); SIZES.len()] {
        SIZES.map(|(long, short, _)| (long, size(&self.engine_args, long, short)))
    }

    /// What the ranks come from, for people: `tensor parallel 2`, or `4 ranks (tensor parallel 2 x pipeline parallel 2)`.
    pub fn ranks_in_words(&self) -> String {
        let tensor = format!("tensor parallel {}", self.tensor_parallel_size);
        let others = SIZES.iter().map(|(long, short, what)| (size(&self.engine_args, long, short), what));
        let others: Vec<String> =
            others.filter(|(size, _)| *size > 1).map(|(size, what)| format!("{what} {size}")).collect();
        if others.is_empty() { tensor } else { format!("{} ranks ({tensor} x {})", self.ranks(), others.join(" x ")) }
    }

    /// Whether other hosts may have a part of the ranks: with an executor that starts processes elsewhere, or several nodes.
    pub fn is_spread_over_hosts(&self) -> bool {
        let backend = flag_value(&self.engine_args, "--distributed-executor-backend");
        backend.is_some_and(|backend| !matches!(backend, "mp" | "uni")) || size(&self.engine_args, "--nnodes", "-n") > 1
    }
}

/// Why an engine cannot be one of several replicas, and what to do.
pub(crate) const NO_REPLICAS: &str = "data parallelism runs several engines with a coordinator, and bench steps one engine; take \
                                      it out, and measure one replica, or use `tensor_parallel_sizes`";

/// The word of `args` that asks for data parallelism, which an engine that is stepped in its own process cannot have: vLLM
/// runs a replica for each rank, with a coordinator between them, and waits for the others.
pub(crate) fn data_parallel(engine_args: &[String]) -> Option<&'static str> {
    let asks = |long: &str, short: &str| match long {
        // One replica is what there is anyway.
        "--data-parallel-size" | "--data-parallel-size-local" => {
            value_of(engine_args, long, short).is_some_and(|value| value.trim() != "1")
        }
        _ => has_flag(engine_args, long) || has_flag(engine_args, short),
    };
    REPLICAS.into_iter().find(|(long, short)| asks(long, short)).map(|(long, _)| long)
}

/// The flag because of which the workers would fail in their first step: vLLM 0.32 makes the buffers between pipeline stages in
/// the warm-up of the model, which its cpu worker leaves out where nothing is compiled and the size of the KV cache is given, as
/// it always is here.
pub(crate) fn lacks_stage_buffers(device: DeviceClass, engine_args: &[String]) -> Option<&'static str> {
    if device != DeviceClass::Cpu || pipeline(engine_args) == 1 {
        return None;
    }
    // With LoRA vLLM turns compilation off on cpu.
    let switches = ["--enforce-eager", "--enable-lora"];
    let switched = switches.into_iter().find(|flag| switch(engine_args, flag) == Some(true));
    switched.or_else(|| match compilation_mode(engine_args) {
        Some(is_none) => is_none.then_some("--compilation-config"),
        None => (optimization_level(engine_args) == Some("0")).then_some("--optimization-level"),
    })
}

/// Whether the mode of the compilation that `args` give is none; `None` where they give no mode.
fn compilation_mode(engine_args: &[String]) -> Option<bool> {
    let is_none =
        |mode: &Value| mode.as_u64() == Some(0) || mode.as_str().is_some_and(|mode| mode.eq_ignore_ascii_case("none"));
    let key = value_of(engine_args, "--compilation-config.mode", "-cc.mode");
    if let Some(mode) = key {
        return Some(mode == "0" || mode.eq_ignore_ascii_case("none"));
    }
    let config: Value = serde_json::from_str(value_of(engine_args, "--compilation-config", "-cc")?).ok()?;
    config.get("mode").filter(|mode| !mode.is_null()).map(is_none)
}

/// The level of `--optimization-level 0`, `-O 0`, `-O=0` or `-O0`.
fn optimization_level(engine_args: &[String]) -> Option<&str> {
    let attached = engine_args.iter().rev().filter_map(|word| word.strip_prefix("-O"));
    let mut attached = attached.filter(|level| !level.is_empty() && !level.starts_with('='));
    attached.next().or_else(|| value_of(engine_args, "--optimization-level", "-O"))
}
