//! How many blocks an engine's KV cache has, as far as that follows from the configuration: vLLM 0.32 divides the memory that
//! it is given by the bytes of a block, and keeps one block for itself.

use serde_json::Value;

use crate::device::DeviceClass;
use crate::plan::{flag_value, human_readable_int, ranks};

/// Model types whose layers all keep the keys and values of every head, for every token.
const PLAIN_MODELS: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// What a token takes in the cache, by the model's `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvShape {
    layers: u64,
    kv_heads: u64,
    head_dim: u64,
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
        })
    }

    /// The fewest bytes that a token can take on a rank: where vLLM chooses the type, the smaller one.
    fn bytes_of_token(self, engine_args: &[String], tensor: u64) -> Option<u64> {
        let cache_type = flag_value(engine_args, "--kv-cache-dtype").unwrap_or("auto");
        let bytes = match (cache_type, flag_value(engine_args, "--dtype")) {
            ("fp8" | "fp8_e4m3" | "fp8_e5m2", _) => 1,
            ("auto", Some("float32" | "float")) => 4,
            ("auto" | "bfloat16" | "float16", _) => 2,
            _ => return None,
        };
        let layers = self.layers / u64::from(ranks::pipeline(engine_args));
        Some(2 * layers * (self.kv_heads / tensor).max(1) * self.head_dim * bytes).filter(|bytes| *bytes > 0)
    }
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
    /// `VLLM_CPU_KVCACHE_SPACE` of the user, in GiB.
    pub(super) space_gib: Option<u64>,
}

const BLOCKS: &str = "--num-gpu-blocks-override";
const BYTES: &str = "--kv-cache-memory-bytes";
const SPACE: &str = "VLLM_CPU_KVCACHE_SPACE";

/// `None` where the loaded engine has to be asked.
pub(super) fn known(asked: &Asked<'_>) -> Option<KvCache> {
    let shape = asked.shape?;
    if let Some(blocks) = flag_value(asked.engine_args, BLOCKS) {
        let usable_blocks = human_readable_int(blocks)?.saturating_sub(1);
        return Some(KvCache { usable_blocks, source: "`--num-gpu-blocks-override` in `args`", is_in_args: true });
    }
    // On cpu the variable counts more than the flag. What a class gives where neither is there is no wish of the user's.
    let (bytes, source, is_in_args) = match (asked.device, asked.space_gib, flag_value(asked.engine_args, BYTES)) {
        (DeviceClass::Cpu, Some(gib), _) => (gib.checked_mul(1 << 30)?, SPACE, false),
        (DeviceClass::Cpu | DeviceClass::Cuda, _, Some(bytes)) => {
            (human_readable_int(bytes)?, "`--kv-cache-memory-bytes` in `args`", true)
        }
        _ => return None,
    };
    let of_token = shape.bytes_of_token(asked.engine_args, asked.tensor_parallel_size.into())?;
    let blocks = bytes / (of_token * u64::from(asked.block_size));
    Some(KvCache { usable_blocks: blocks.saturating_sub(1), source, is_in_args })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(device: DeviceClass, args: &str, tensor: u32, space_gib: Option<u64>) -> Option<u64> {
        let config = r#"{"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8,
                         "num_key_value_heads": 4}"#;
        let shape = KvShape::of(&serde_json::from_str(config).unwrap());
        let engine_args: Vec<String> = args.split_whitespace().map(String::from).collect();
        let asked = Asked {
            device,
            engine_args: &engine_args,
            tensor_parallel_size: tensor,
            shape,
            block_size: 128,
            space_gib,
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
        assert_eq!(usable(Cpu, "", 1, None), None, "nobody asked for a size");
        assert_eq!(usable(Tpu, "--num-gpu-blocks-override 12", 1, None), Some(11));
        assert_eq!(usable(Tpu, "", 1, None), None);
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
