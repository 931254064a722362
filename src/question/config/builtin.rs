//! The sweep and the models that are part of the binary.

use super::Config;
use crate::machine::device::DeviceClass;

/// The built-in sweep of the class cpu, as YAML: what runs when no configuration is named.
pub const BUILTIN_SMOKE: &str = include_str!("../../../configs/smoke-cpu.yaml");
/// The built-in sweep of the other classes.
const ACCELERATOR_SMOKE: &str = include_str!("../../../configs/smoke-accelerator.yaml");

/// The model of the built-in sweep, as `--model` names it.
pub const BUILTIN_MODEL: &str = "builtin:tiny-llama";

/// `config.json` of [`BUILTIN_MODEL`]. Nothing else is needed: the weights are dummies and there is no tokenizer.
pub const BUILTIN_MODEL_CONFIG: &str = include_str!("../../../configs/models/tiny-llama/config.json");

/// The models that come with the binary: name and `config.json`.
const MODELS: [(&str, &str); 1] = [(BUILTIN_MODEL, BUILTIN_MODEL_CONFIG)];

/// The built-in smoke sweep of a device class.
///
/// # Panics
/// Never: a test reads the same texts.
pub fn builtin_smoke(device: DeviceClass) -> Config {
    let (text, name) = match device {
        DeviceClass::Cpu => (BUILTIN_SMOKE, "smoke-cpu"),
        DeviceClass::Cuda | DeviceClass::Tpu => (ACCELERATOR_SMOKE, "smoke-accelerator"),
    };
    super::parse(text, name.into(), None).expect("the built-in sweeps are valid configurations")
}

/// For a name that begins with `builtin:`, the model's `config.json`, or the known name that is nearest. `None` for
/// every other model.
pub fn builtin_model_config(model: &str) -> Option<Result<&'static str, &'static str>> {
    if !model.starts_with("builtin:") {
        return None;
    }
    let nearest = super::suggest::nearest(model, MODELS.map(|(name, _)| name)).unwrap_or(BUILTIN_MODEL);
    Some(MODELS.into_iter().find(|(name, _)| *name == model).map(|(_, config)| config).ok_or(nearest))
}

/// Models of the hub of which the binary knows the `config.json`, so that lengths can be checked without the hub: name and
/// text.
const KNOWN_MODELS: [(&str, &str); 1] =
    [("meta-llama/Llama-3.1-70B-Instruct", include_str!("../../../configs/models/llama-3.1-70b-instruct/config.json"))];

/// `config.json` of a model of the hub, if the binary knows it: architecture and lengths, for plans alone. An engine reads
/// the model's own.
pub fn known_model_config(model: &str) -> Option<&'static str> {
    KNOWN_MODELS.into_iter().find(|(name, _)| *name == model).map(|(_, config)| config)
}
