//! What a model that lies on this machine says about the lengths it takes, and about its weights.

use std::io;
use std::path::Path;

use super::checkpoint::CheckpointQuantization;
use super::kv_cache::KvShape;
use crate::base::bounded_file::read_bounded;
use crate::question::config::{builtin_model_config, known_model_config, quoted};

/// Largest `config.json` that is read; real ones have a few kilobytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// A model, as far as it is known before an engine is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalModel {
    /// How the engine key names it: a hub or `builtin:` name as it was given, an absolute path for a folder.
    pub(super) name: String,
    /// Longest sequence by `config.json`; `None` for a hub name that the binary does not know, and where vLLM derives it from
    /// more than one key.
    pub(super) max_position_embeddings: Option<u64>,
    /// How its weights are stored, if they are quantized; `None` for a hub name, too.
    pub(super) quantization: Option<CheckpointQuantization>,
    /// What a token takes in the KV cache; `None` for a hub name, too, and for models whose layers differ.
    pub(super) kv_shape: Option<KvShape>,
}

/// Looks at `model`: a hub name is taken as it is, a folder or a `builtin:` name has to be there.
///
/// # Errors
/// A message for the user: no such built-in model, no folder, no `config.json` or one that is not JSON.
pub(super) fn look_at(model: &str) -> Result<LocalModel, String> {
    match builtin_model_config(model) {
        Some(Ok(config)) => {
            return described(model.to_owned(), config);
        }
        Some(Err(nearest)) => {
            return Err(format!("there is no built-in model {}; the nearest known one is `{nearest}`", quoted(model)));
        }
        None => {}
    }
    if model.starts_with('~') {
        return Err(format!("`~` is not expanded in the model {}; write the folder out", quoted(model)));
    }
    let folder = Path::new(model);
    if !folder.is_dir() {
        return if is_hub_name(model) {
            let known = known_model_config(model).map(|config| described(model.to_owned(), config)).transpose()?;
            Ok(known.unwrap_or_else(|| LocalModel {
                name: model.to_owned(),
                max_position_embeddings: None,
                quantization: None,
                kv_shape: None,
            }))
        } else {
            Err(format!("the model folder {} does not exist", quoted(model)))
        };
    }
    let config = folder.join("config.json");
    let text =
        read_bounded(&config, MAX_CONFIG_BYTES).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    let text = text.map_err(|error| {
        format!("the model folder {} has no `config.json` that can be read: {error}", quoted(model))
    })?;
    let absolute = folder.canonicalize().map_err(|error| format!("the model folder {}: {error}", quoted(model)))?;
    let local = described(absolute.to_string_lossy().into_owned(), &text)
        .map_err(|error| format!("{}: {error}", config.display()))?;
    // vLLM reads how weights and cache are quantized there, too.
    let is_quantized = folder.join("hf_quant_config.json").exists();
    Ok(LocalModel { kv_shape: local.kv_shape.filter(|_| !is_quantized), ..local })
}

/// What the text of a `config.json` says.
fn described(name: String, config: &str) -> Result<LocalModel, String> {
    let config = serde_json::from_str(config).map_err(|error| format!("`config.json` is not JSON: {error}"))?;
    let (quantization, kv_shape) = (CheckpointQuantization::of(&config), KvShape::of(&config));
    Ok(LocalModel { name, max_position_embeddings: max_positions(&config), quantization, kv_shape })
}

/// Whether `model` can be a name on the hub: `name` or `owner/name`, of letters, digits, `.`, `_` and `-`.
fn is_hub_name(model: &str) -> bool {
    let parts: Vec<&str> = model.split('/').collect();
    let is_part = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    parts.len() <= 2 && parts.iter().all(is_part)
}

/// `max_position_embeddings` of a `config.json`, unless something in it scales the positions: then vLLM derives the
/// length from several keys (`_get_and_verify_max_len`), and the loaded engine is asked instead. Llama 3's scaling is
/// already in the number.
fn max_positions(config: &serde_json::Value) -> Option<u64> {
    let language = config.get("text_config").unwrap_or(config);
    let given = |key: &str| language.get(key).filter(|value| !value.is_null());
    let is_llama3 = |rope: &serde_json::Value| rope.get("rope_type").is_some_and(|kind| kind == "llama3");
    let scales = given("rope_scaling").is_some_and(|rope| !is_llama3(rope))
        || given("rope_parameters").is_some_and(|rope| rope.get("factor").is_some() && !is_llama3(rope));
    if scales || given("model_max_length").is_some() {
        return None;
    }
    language.get("max_position_embeddings").and_then(serde_json::Value::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names_and_paths_are_told_apart() {
        for name in ["gpt2", "meta-llama/Llama-3.1-70B-Instruct", "a/b_c.d"] {
            assert!(is_hub_name(name), "{name}");
        }
        for path in ["/models/x", "./x", "../x", "a/b/c", "a/", "a b", ""] {
            assert!(!is_hub_name(path), "{path}");
        }
    }

    #[test]
    fn scaled_positions_are_left_to_the_engine() {
        let positions = |config: &str| described(String::new(), config).map(|model| model.max_position_embeddings);
        assert_eq!(positions(r#"{"max_position_embeddings": 2048}"#), Ok(Some(2048)));
        assert_eq!(positions(r#"{"text_config": {"max_position_embeddings": 9}}"#), Ok(Some(9)));
        assert_eq!(positions(r#"{"max_position_embeddings": 9, "rope_scaling": null}"#), Ok(Some(9)));
        assert_eq!(positions(r#"{"max_position_embeddings": 9, "rope_scaling": {"factor": 2}}"#), Ok(None));
        let llama3 = r#"{"max_position_embeddings": 9, "rope_scaling": {"factor": 2, "rope_type": "llama3"}}"#;
        assert_eq!(positions(llama3), Ok(Some(9)));
        assert_eq!(positions(r#"{"max_position_embeddings": 9, "model_max_length": 12}"#), Ok(None));
        assert_eq!(positions("{}"), Ok(None));
        assert!(positions("{").is_err());
    }
}
