//! Quantization by meaning, resolved to what vLLM 0.32 takes for a device class and a checkpoint.
//!
//! Which combinations were run, and which are known from vLLM's source alone, is in `docs/quantization.md`.

use serde_json::{Value, json};

use super::checkpoint::{CheckpointQuantization, of_method};
use crate::machine::device::DeviceClass;
use crate::question::plan::{Quantization, QuantizationSwitches, flag_value};

/// What of a configuration decides on the quantization.
pub(super) struct Asked<'a> {
    pub(super) device: DeviceClass,
    /// The key `quantization`; `None` if nothing gives it.
    pub(super) key: Option<Quantization>,
    pub(super) engine_args: &'a [String],
    /// The checkpoint's own; `None` if it has none, or lies elsewhere.
    pub(super) checkpoint: Option<&'a CheckpointQuantization>,
}

/// Which part of the configuration a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Culprit {
    /// The key `quantization`.
    Key,
    /// `args`.
    Args,
    /// The model.
    Model,
}

type Refusal = (Culprit, String);

/// The environment variable that selects tpu-inference's implementation of a model, and the one that runs vLLM's own.
const VLLM_IMPLEMENTATION: (&str, &str) = ("MODEL_IMPL_TYPE", "vllm");

/// The label of the run, and the switches for it.
///
/// # Errors
/// What is wrong, why, and what there is instead.
pub(super) fn resolve(asked: &Asked<'_>) -> Result<(Quantization, QuantizationSwitches), Refusal> {
    let flag = ["--quantization", "-q"].into_iter().find_map(|flag| Some((flag, flag_value(asked.engine_args, flag)?)));
    if let (Some(_), Some((flag, _))) = (asked.key, flag) {
        let message = format!("`quantization` and `{flag}` in `args` exclude each other; keep one");
        return Err((Culprit::Key, message));
    }
    let label = match (asked.key, flag) {
        (Some(key), _) => key,
        (None, Some((flag, method))) => of_flag(asked, flag, method)?,
        (None, None) => qwix_rule(asked.engine_args).or(asked.checkpoint.map(|own| own.format)).unwrap_or_default(),
    };
    let culprit = match (asked.key, flag) {
        (Some(_), _) => Culprit::Key,
        (None, Some(_)) => Culprit::Args,
        (None, None) => Culprit::Model,
    };
    if label == Quantization::Fp4 && asked.device == DeviceClass::Cpu {
        let message = "FP4 is not supported on cpu: vLLM 0.32 has no FP4 kernel for it; use `quantization: none` or \
                       `fp8`, or another device (cuda: NVIDIA Blackwell; tpu: FP4 checkpoints)";
        return Err((culprit, message.to_owned()));
    }
    let switches = match (asked.key, asked.checkpoint) {
        (Some(key), Some(own)) if key != own.format => return Err((Culprit::Key, differs(key, own))),
        (_, Some(_)) => from_checkpoint(asked.device),
        (Some(Quantization::Fp8 | Quantization::Fp4), None) => online(asked, label)?,
        _ => QuantizationSwitches::default(),
    };
    Ok((label, switches))
}

/// The label of what `--quantization METHOD` in `args` loads.
fn of_flag(asked: &Asked<'_>, flag: &str, method: &str) -> Result<Quantization, Refusal> {
    if let "nvfp4" | "petit_nvfp4" = method {
        let message = format!(
            "`{flag} {method}` is no value that vLLM 0.32 knows: an NVFP4 checkpoint needs no flag, and `mxfp4` \
             quantizes at load on cuda"
        );
        return Err((Culprit::Args, message));
    }
    if let (DeviceClass::Tpu, "fp8", None) = (asked.device, method, asked.checkpoint) {
        let message = format!(
            "`{flag} fp8` is not supported on tpu: tpu-inference 0.32 fails on it with a KeyError; use \
             `quantization: fp8`, which quantizes with qwix"
        );
        return Err((Culprit::Args, message));
    }
    let by_checkpoint = asked.checkpoint.map(|own| own.format);
    Ok(by_checkpoint.or(of_method(method)).unwrap_or(Quantization::Other))
}

fn differs(key: Quantization, own: &CheckpointQuantization) -> String {
    let (key, format, method) = (key.as_str(), own.format.as_str(), &own.method);
    let instead = match own.format {
        Quantization::Other => "leave `quantization` out, or".to_owned(),
        format => format!("use `quantization: {}`, or", format.as_str()),
    };
    format!(
        "`quantization: {key}` is not what the model is: its weights are stored as {format} ({method}, by its \
         config.json), and vLLM loads them as they are; {instead} a model that is not quantized"
    )
}

/// A quantized checkpoint is recognised by vLLM itself. On tpu only vLLM's own implementation of the models reads one:
/// the other one leaves the weights in BF16, without a word.
fn from_checkpoint(device: DeviceClass) -> QuantizationSwitches {
    let (name, value) = VLLM_IMPLEMENTATION;
    let env = if device == DeviceClass::Tpu { vec![(name.to_owned(), value.to_owned())] } else { Vec::new() };
    QuantizationSwitches { args: Vec::new(), env }
}

/// Quantization at load, of a checkpoint that is not quantized.
fn online(asked: &Asked<'_>, label: Quantization) -> Result<QuantizationSwitches, Refusal> {
    let method = match (asked.device, label) {
        // The only one with a kernel on every CPU.
        (DeviceClass::Cpu, _) => "fp8_per_channel",
        (DeviceClass::Cuda, Quantization::Fp8) => "fp8_per_tensor",
        // The only one for layers that are no experts.
        (DeviceClass::Cuda, _) => "mxfp4",
        (DeviceClass::Tpu, Quantization::Fp8) => return qwix(asked),
        (DeviceClass::Tpu, _) => {
            let message = "`quantization: fp4` on tpu needs a checkpoint in NVFP4 (modelopt or compressed-tensors) \
                           whose config.json lies on this machine: tpu-inference 0.32 quantizes to FP8 at most; \
                           use such a model, or `fp8`";
            return Err((Culprit::Key, message.to_owned()));
        }
    };
    if let Some(dtype @ ("float32" | "float")) = flag_value(asked.engine_args, "--dtype") {
        let message = format!(
            "`--dtype {dtype}` in `args` and `quantization: {}` exclude each other: vLLM quantizes at load from \
             bfloat16 or float16 alone (`--quantization {method}`); take the flag out, or give `--dtype bfloat16`",
            label.as_str()
        );
        return Err((Culprit::Args, message));
    }
    Ok(QuantizationSwitches { args: vec!["--quantization".to_owned(), method.to_owned()], env: Vec::new() })
}

const ADDITIONAL_CONFIG: &str = "--additional-config";

/// A rule for all of qwix, added to what `args` has for the same flag.
fn qwix(asked: &Asked<'_>) -> Result<QuantizationSwitches, Refusal> {
    let whole =
        || "`quantization: fp8` on tpu adds a rule to `--additional-config`, which has to be one JSON table".to_owned();
    let mut config = match flag_value(asked.engine_args, ADDITIONAL_CONFIG) {
        Some(text) => serde_json::from_str(text).map_err(|_| (Culprit::Args, whole()))?,
        None => json!({}),
    };
    let is_dotted = |word: &String| word.replace('_', "-").starts_with("--additional-config.");
    let Some(table) = config.as_object_mut().filter(|_| !asked.engine_args.iter().any(is_dotted)) else {
        return Err((Culprit::Args, whole()));
    };
    if table.contains_key("quantization") {
        let message =
            "`quantization` and the `quantization` of `--additional-config` in `args` exclude each other; keep one";
        return Err((Culprit::Key, message.to_owned()));
    }
    let rule = json!({"module_path": ".*", "weight_qtype": "float8_e4m3fn", "act_qtype": "float8_e4m3fn"});
    table.insert("quantization".to_owned(), json!({"qwix": {"rules": [rule]}}));
    Ok(QuantizationSwitches { args: vec![ADDITIONAL_CONFIG.to_owned(), config.to_string()], env: Vec::new() })
}

/// What qwix rules in `args` make of the weights; `None` without any.
fn qwix_rule(engine_args: &[String]) -> Option<Quantization> {
    let config: Value = serde_json::from_str(flag_value(engine_args, ADDITIONAL_CONFIG)?).ok()?;
    let rules = config.pointer("/quantization/qwix/rules")?.as_array()?;
    let weights = rules.iter().find_map(|rule| rule.get("weight_qtype")?.as_str())?;
    Some(match weights {
        weights if weights.starts_with("float8") => Quantization::Fp8,
        weights if weights.starts_with("float4") => Quantization::Fp4,
        _ => Quantization::Other,
    })
}
