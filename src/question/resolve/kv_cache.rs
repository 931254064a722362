//! How many blocks an engine's KV cache has, as far as that follows from the configuration: vLLM 0.32 divides the memory that
//! it is given by the bytes of a block, and keeps one block for itself.

use serde_json::Value;

use super::lengths::changes_model_config;
use crate::machine::device::{DeviceClass, Value as ProfileValue};
use crate::question::plan::{flag_value, human_readable_int, ranks};

/// Model types whose layers all keep the keys and values of every head, for every token.
const PLAIN_MODELS: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// What a token takes in the cache, by the model's `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvShape {
    layers: u64,
    kv_heads: u64,
    head_dim: u64,
    /// Whether the checkpoint says how its cache is quantized.
    has_cache_type: bool,
}

impl KvShape {
    /// `None` for a model whose layers may differ in what they keep.
    pub(super) fn of(config: &Value) -> Option<KvShape> {
        let number = |key: &str| config.get(key).and_then(Value::as_u64).filter(|number| *number > 0);
        let is_plain =
            config.get("model_type").and_then(Value::as_str).is_some_and(|kind| PLAIN_MODELS.contains(&kind));
        let slides = config.get("sliding_window").is_some_and(|window| !window.is_null())
            && config.get("use_sliding_window") != Some(&Value::Bool(false));
        if !is_plain || slides {
            return None;
        }
        let heads = number("num_attention_heads")?;
        Some(KvShape {
            layers: number("num_hidden_layers")?,
            kv_heads: number("num_key_value_heads").unwrap_or(heads),
            head_dim: number("head_dim").or_else(|| Some(number("hidden_size")? / heads))?,
            has_cache_type: ["quantization_config", "compression_config"]
                .into_iter()
                .any(|key| config.get(key).is_some_and(names_cache)),
        })
    }

    /// The fewest bytes that a token can take on a rank: where vLLM chooses the type, the smaller one.
    fn bytes_of_token(self, engine_args: &[String], tensor: u64) -> Option<u64> {
        let cache_type = flag_value(engine_args, "--kv-cache-dtype").unwrap_or("auto");
        let bytes = match (cache_type, flag_value(engine_args, "--dtype")) {
            ("auto", _) if self.has_cache_type => return None,
            ("fp8" | "fp8_e4m3" | "fp8_e5m2", _) => 1,
            ("auto", Some("float32" | "float")) => 4,
            ("auto" | "bfloat16" | "float16", _) => 2,
            _ => return None,
        };
        let layers = self.layers / u64::from(ranks::pipeline(engine_args));
        let heads = self.kv_heads.checked_div(tensor)?.max(1);
        let factors = [2, layers, heads, self.head_dim, bytes];
        factors.into_iter().try_fold(1, u64::checked_mul).filter(|bytes| *bytes > 0)
    }
}

/// Whether a `quantization_config` says something of the cache (`kv_cache_scheme`, `kv_cache_quant_algo`).
fn names_cache(stored: &Value) -> bool {
    let Value::Object(keys) = stored else { return false };
    keys.iter().any(|(key, value)| (key.starts_with("kv_cache") && !value.is_null()) || names_cache(value))
}

/// `VLLM_CPU_KVCACHE_SPACE` of the user's environment: memory of the KV cache on cpu, above what `args` say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuKvSpace {
    /// It is not set: the profile of the device sets it, unless an engine's `args` give a size.
    #[default]
    Unset,
    /// So many GiB.
    Gib(u64),
    /// It is set to a text that is no number.
    NoNumber,
}

/// The cache of an engine that is not loaded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvCache {
    /// Blocks for requests, at most.
    pub(super) usable_blocks: u64,
    /// What its size comes from.
    pub(super) source: &'static str,
    /// Whether that stands in `args`.
    pub(super) is_in_args: bool,
}

/// What decides on the size of a cache.
pub(super) struct Asked<'a> {
    pub(super) device: DeviceClass,
    pub(super) engine_args: &'a [String],
    pub(super) tensor_parallel_size: u32,
    pub(super) shape: Option<KvShape>,
    pub(super) block_size: u32,
    pub(super) space: CpuKvSpace,
    /// Whether the profile's size counts where nothing else gives one.
    pub(super) has_profile_space: bool,
}

const BLOCKS: &str = "--num-gpu-blocks-override";
pub(super) const BYTES: &str = "--kv-cache-memory-bytes";
const SPACE: &str = "VLLM_CPU_KVCACHE_SPACE";

/// `None` where the loaded engine has to be asked.
pub(super) fn known(asked: &Asked<'_>) -> Option<KvCache> {
    let shape = asked.shape?;
    if changes_model_config(asked.engine_args) || ranks::decode_context(asked.engine_args) > 1 {
        return None;
    }
    if let Some(blocks) = flag_value(asked.engine_args, BLOCKS) {
        let usable_blocks = human_readable_int(blocks)?.saturating_sub(1);
        return Some(KvCache { usable_blocks, source: "`--num-gpu-blocks-override` in `args`", is_in_args: true });
    }
    // On cpu the variable counts more than the flag.
    let (bytes, source, is_in_args) = match (asked.device, asked.space, flag_value(asked.engine_args, BYTES)) {
        (DeviceClass::Cpu, CpuKvSpace::NoNumber, _) => return None,
        (DeviceClass::Cpu, CpuKvSpace::Gib(gib), _) => (gib.checked_mul(1 << 30)?, SPACE, false),
        (DeviceClass::Cpu | DeviceClass::Cuda, _, Some(bytes)) => {
            (human_readable_int(bytes)?, "`--kv-cache-memory-bytes` in `args`", true)
        }
        (DeviceClass::Cpu, CpuKvSpace::Unset, None) if asked.has_profile_space => (
            space_of_profile()?.checked_mul(1 << 30)?,
            "VLLM_CPU_KVCACHE_SPACE, which bench sets where you do not",
            false,
        ),
        _ => return None,
    };
    let of_token = shape.bytes_of_token(asked.engine_args, asked.tensor_parallel_size.into())?;
    let blocks = bytes.checked_div(of_token.checked_mul(asked.block_size.into())?)?;
    Some(KvCache { usable_blocks: blocks.saturating_sub(1), source, is_in_args })
}

/// The GiB that the profile of cpu gives.
fn space_of_profile() -> Option<u64> {
    let variable = DeviceClass::Cpu.profile().variables.iter().find(|variable| variable.name == SPACE)?;
    match variable.value {
        ProfileValue::Text(gib) => gib.parse().ok(),
        ProfileValue::BelowVllmCache(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(device: DeviceClass, args: &str, tensor: u32, space_gib: Option<u64>) -> Option<u64> {
        let config = r#"{"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8,
                         "num_key_value_heads": 4}"#;
        usable_by(config, device, args, tensor, space_gib)
    }

    fn usable_by(config: &str, device: DeviceClass, args: &str, tensor: u32, space_gib: Option<u64>) -> Option<u64> {
        let shape = KvShape::of(&serde_json::from_str(config).unwrap());
        let engine_args: Vec<String> = args.split_whitespace().map(String::from).collect();
        let asked = Asked {
            device,
            engine_args: &engine_args,
            tensor_parallel_size: tensor,
            shape,
            block_size: 128,
            space: space_gib.map_or(CpuKvSpace::Unset, CpuKvSpace::Gib),
            has_profile_space: true,
        };
        known(&asked).map(|cache| cache.usable_blocks)
    }

    #[test]
    fn blocks_are_what_the_memory_divides_into_without_vllms_own_one() {
        use DeviceClass::{Cpu, Cuda, Tpu};
        // A block of 128 tokens: 2 x 4 layers x 4 heads x 32 x 2 bytes x 128 = 256 KiB.
        let mib = "--kv-cache-memory-bytes 1048576";
        assert_eq!(usable(Cuda, mib, 1, None), Some(3));
        assert_eq!(usable(Cuda, &format!("{mib} --kv-cache-dtype fp8"), 1, None), Some(7));
        assert_eq!(usable(Cuda, &format!("{mib} --dtype float32"), 1, None), Some(1));
        assert_eq!(usable(Cuda, mib, 2, None), Some(7), "half the heads on each rank");
        assert_eq!(usable(Cuda, &format!("{mib} -pp 2"), 1, None), Some(7), "half the layers on each rank");
        assert_eq!(usable(Cuda, &format!("{mib} --kv-cache-dtype nvfp4"), 1, None), None);
        assert_eq!(usable(Cuda, "", 1, None), None, "what is left of a GPU's memory");
        assert_eq!(usable(Cpu, mib, 1, None), Some(3));
        assert_eq!(usable(Cpu, mib, 1, Some(1)), Some(4095), "the variable counts more");
        assert_eq!(usable(Cpu, "", 1, None), Some((4 << 12) - 1), "what bench sets");
        assert_eq!(usable(Tpu, "--num-gpu-blocks-override 12", 1, None), Some(11));
        assert_eq!(usable(Tpu, "", 1, None), None);
    }

    #[test]
    fn what_changes_the_bytes_of_a_token_is_left_to_the_load() {
        let mib = "--kv-cache-memory-bytes 1048576";
        for args in [
            "--hf-overrides {}",
            "--hf_overrides.num_hidden_layers=2",
            "--hf-config-path x",
            "--config-format mistral",
            "--config x.yaml",
            "-dcp 2",
            "--decode-context-parallel-size=2",
        ] {
            assert_eq!(usable(DeviceClass::Cuda, &format!("{mib} {args}"), 1, None), None, "{args}");
        }
        assert_eq!(usable(DeviceClass::Cuda, &format!("{mib} -dcp 1"), 1, None), Some(3));
        let quantized = |stored: &str, args: &str| {
            let config = format!(
                r#"{{"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8,
                     "num_key_value_heads": 4, "quantization_config": {stored}}}"#
            );
            usable_by(&config, DeviceClass::Cuda, &format!("{mib} {args}"), 1, None)
        };
        for stored in [
            r#"{"quant_method": "modelopt", "quantization": {"kv_cache_quant_algo": "FP8"}}"#,
            r#"{"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}"#,
        ] {
            assert_eq!(quantized(stored, ""), None, "{stored}");
            assert_eq!(quantized(stored, "--kv-cache-dtype fp8"), Some(7), "{stored}");
        }
        assert_eq!(quantized(r#"{"quant_method": "fp8", "kv_cache_scheme": null}"#, ""), Some(3));
    }

    #[test]
    fn models_whose_layers_differ_are_left_to_the_load() {
        let shape = |config: &str| KvShape::of(&serde_json::from_str(config).unwrap());
        let sizes = r#""num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8"#;
        assert!(shape(&format!(r#"{{"model_type": "llama", {sizes}}}"#)).is_some());
        assert_eq!(shape(&format!(r#"{{"model_type": "deepseek_v3", {sizes}}}"#)), None);
        assert_eq!(shape(&format!(r#"{{"model_type": "mistral", "sliding_window": 4096, {sizes}}}"#)), None);
        let unused = r#""sliding_window": 4096, "use_sliding_window": false"#;
        assert!(shape(&format!(r#"{{"model_type": "qwen2", {unused}, {sizes}}}"#)).is_some());
        assert_eq!(shape(r#"{"model_type": "llama"}"#), None);
    }
}
