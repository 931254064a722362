//! How the weights of a checkpoint are stored, by the `quantization_config` of its `config.json`.

use serde_json::Value;

use crate::question::plan::Quantization;

/// A checkpoint that is quantized already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckpointQuantization {
    /// Its `quant_method`, with the kind of the weights where the method has several: `compressed-tensors (float, 8
    /// bits)`.
    pub(super) method: String,
    /// What its weights are, by meaning.
    pub(super) format: Quantization,
}

impl CheckpointQuantization {
    /// What `config.json` says; `None` for a checkpoint that is not quantized. vLLM looks at the same two keys
    /// (`ModelArchConfigConvertorBase` in 0.32).
    pub(super) fn of(config: &Value) -> Option<CheckpointQuantization> {
        let language = config.get("text_config").unwrap_or(config);
        let keys = ["quantization_config", "compression_config"];
        let found = keys.into_iter().flat_map(|key| [config.get(key), language.get(key)]).flatten();
        let stored = found.into_iter().find(|value| value.is_object())?;
        let method = stored.get("quant_method").and_then(Value::as_str).unwrap_or("compressed-tensors").to_owned();
        let format = match method.as_str() {
            "compressed-tensors" => of_groups(stored),
            // NVIDIA's own: one method for FP8 and NVFP4, told apart by the algorithm.
            "modelopt" => of_algorithm(stored),
            method => of_method(method).unwrap_or(Quantization::Other),
        };
        Some(CheckpointQuantization { method, format })
    }
}

/// What a `--quantization` value of vLLM 0.32 makes of the weights; `None` where the value alone does not say.
pub(super) fn of_method(method: &str) -> Option<Quantization> {
    match method {
        "fp8" | "fp8_per_tensor" | "fp8_per_channel" | "fp8_per_block" | "mxfp8" | "modelopt" | "modelopt_mxfp8"
        | "fbgemm_fp8" | "deepseek_v4_fp8" => Some(Quantization::Fp8),
        "mxfp4" | "modelopt_fp4" | "gpt_oss_mxfp4" | "nvfp4_per_token" => Some(Quantization::Fp4),
        _ => None,
    }
}

/// The format that most of the groups of a compressed-tensors configuration have.
fn of_groups(stored: &Value) -> Quantization {
    let groups = stored.get("config_groups").and_then(Value::as_object);
    let formats: Vec<Quantization> = groups
        .into_iter()
        .flat_map(|groups| groups.values())
        .filter_map(|group| of_weights(group.get("weights")?))
        .collect();
    match formats.first() {
        Some(first) if formats.iter().all(|format| format == first) => *first,
        _ => Quantization::Other,
    }
}

fn of_weights(weights: &Value) -> Option<Quantization> {
    let (kind, bits) = (weights.get("type")?.as_str()?, weights.get("num_bits")?.as_u64()?);
    Some(match (kind, bits) {
        ("float", 8) => Quantization::Fp8,
        ("float", 4) => Quantization::Fp4,
        _ => Quantization::Other,
    })
}

fn of_algorithm(stored: &Value) -> Quantization {
    let nested = stored.get("quantization").unwrap_or(stored);
    match nested.get("quant_algo").and_then(Value::as_str).unwrap_or_default() {
        "FP8" | "FP8_PER_CHANNEL_PER_TOKEN" | "FP8_PB_WO" | "MXFP8" => Quantization::Fp8,
        "NVFP4" | "W4A16_NVFP4" | "MXFP4" => Quantization::Fp4,
        _ => Quantization::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(config: &str) -> Option<Quantization> {
        let config: Value = serde_json::from_str(config).unwrap();
        CheckpointQuantization::of(&config).map(|found| found.format)
    }

    #[test]
    fn a_checkpoint_is_what_its_config_says() {
        let groups = |kind: &str, bits: u32| {
            format!(
                r#"{{"quantization_config": {{"quant_method": "compressed-tensors", "config_groups":
                   {{"group_0": {{"weights": {{"type": "{kind}", "num_bits": {bits}}}}}}}}}}}"#
            )
        };
        for (config, wanted) in [
            ("{}".to_owned(), None),
            (r#"{"quantization_config": null}"#.to_owned(), None),
            (groups("float", 8), Some(Quantization::Fp8)),
            (groups("float", 4), Some(Quantization::Fp4)),
            (groups("int", 4), Some(Quantization::Other)),
            (r#"{"quantization_config": {"quant_method": "fp8"}}"#.to_owned(), Some(Quantization::Fp8)),
            (r#"{"quantization_config": {"quant_method": "awq"}}"#.to_owned(), Some(Quantization::Other)),
            (r#"{"quantization_config": {"quant_method": "mxfp4"}}"#.to_owned(), Some(Quantization::Fp4)),
            (
                r#"{"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}"#.to_owned(),
                Some(Quantization::Fp4),
            ),
            (
                r#"{"text_config": {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}}"#
                    .to_owned(),
                Some(Quantization::Fp8),
            ),
        ] {
            assert_eq!(format(&config), wanted, "{config}");
        }
    }
}
