//! The class of every setting: what a change of it costs.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Drive, EngineKey, Load, Point, PrefixMode, StepApi};

/// What a change of a setting costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingClass {
    /// A reload of the engine.
    EngineKey,
    /// Nothing: it is lowered on the running engine.
    Live,
    /// Nothing: it is of the run alone.
    Run,
}

/// A setting that is not the same in all points of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaryingSetting {
    /// Its key in the configuration.
    pub name: String,
    /// What a change of it costs.
    pub class: SettingClass,
    /// Its values, in the order of the points.
    pub values: Vec<String>,
}

/// Where the value of a setting stands, which decides its class.
#[derive(Clone, Copy)]
enum Value {
    Engine(fn(&EngineKey) -> String),
    Live(fn(&Point) -> String),
    Run(fn(&Point) -> String),
}

/// Every setting, what costs most to change first. A limit that is not given and a concurrency that is not bounded read
/// as in the table of points.
const SETTINGS: [(&str, Value); 24] = [
    ("device", Value::Engine(|key| key.device.to_string())),
    ("model", Value::Engine(|key| key.model.clone())),
    ("tensor_parallel_size", Value::Engine(|key| key.tensor_parallel_size.to_string())),
    ("quantization", Value::Engine(|key| key.quantization.as_str().to_owned())),
    ("step_api", Value::Engine(|key| step_api(key.step_api).to_owned())),
    ("args", Value::Engine(|key| format!("`{}`", shell(&key.engine_args)))),
    ("max_num_seqs", Value::Live(|point| limit(point.limits.max_num_seqs))),
    ("max_num_batched_tokens", Value::Live(|point| limit(point.limits.max_num_batched_tokens))),
    ("workload", Value::Run(|point| point.workload.as_ref().map_or("none", |workload| &workload.name).to_owned())),
    ("scale", Value::Run(|point| point.workload.as_ref().map_or("none", |workload| &workload.scale).to_owned())),
    ("input_len", Value::Run(|point| point.input_len.to_string())),
    ("output_len", Value::Run(|point| point.output_len.to_string())),
    ("prefix_len", Value::Run(|point| point.prefix_len.to_string())),
    ("prefix_mode", Value::Run(|point| prefix_mode(point.prefix_mode).to_owned())),
    ("num_prefixes", Value::Run(|point| point.num_prefixes.to_string())),
    ("prefix_hit_rate", Value::Run(|point| option(point.prefix_hit_rate.map(|rate| rate.asked)))),
    ("num_prompts", Value::Run(|point| point.num_prompts.to_string())),
    ("repeats", Value::Run(|point| point.repeats.to_string())),
    ("warmup", Value::Run(|point| point.warmup.to_string())),
    ("seed", Value::Run(|point| point.seed.to_string())),
    ("concurrency", Value::Run(|point| concurrency(point.load))),
    ("drive", Value::Run(|point| drive(point.drive).to_owned())),
    ("telemetry_hz", Value::Run(|point| point.telemetry_hz.to_string())),
    ("slo", Value::Run(|point| objectives(&point.slo))),
];

impl SettingClass {
    fn of(value: Value) -> SettingClass {
        match value {
            Value::Engine(_) => SettingClass::EngineKey,
            Value::Live(_) => SettingClass::Live,
            Value::Run(_) => SettingClass::Run,
        }
    }
}

/// The value of the setting `name` at a point; `None` if there is no such setting.
pub(crate) fn value_of(name: &str, key: &EngineKey, point: &Point) -> Option<String> {
    SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, value)| read(*value, key, point))
}

fn read(value: Value, key: &EngineKey, point: &Point) -> String {
    match value {
        Value::Engine(read) => read(key),
        Value::Live(read) | Value::Run(read) => read(point),
    }
}

/// The settings in which points differ. Each point comes with the index of its key.
pub(crate) fn varying(keys: &[EngineKey], points: &[(usize, Point)]) -> Vec<VaryingSetting> {
    let mut varying = Vec::new();
    for (name, value) in SETTINGS.into_iter().filter(|(name, _)| *name != "seed" || !seeds_are_derived(points)) {
        let (mut values, mut seen) = (Vec::new(), HashSet::new());
        for read in points.iter().map(|(key, point)| read(value, &keys[*key], point)) {
            if seen.insert(read.clone()) {
                values.push(read);
            }
        }
        if values.len() > 1 {
            varying.push(VaryingSetting { name: name.to_owned(), class: SettingClass::of(value), values });
        }
    }
    varying
}

/// Whether the seeds follow from the lengths, as they do where the configuration gives none.
fn seeds_are_derived(points: &[(usize, Point)]) -> bool {
    let mut of_lengths = BTreeMap::new();
    points.iter().all(|(_, point)| {
        let lengths = (point.input_len, point.output_len, point.prefix_len, point.num_prompts);
        *of_lengths.entry(lengths).or_insert(point.seed) == point.seed
    })
}

/// The settings in which two engine keys differ, in words.
pub(crate) fn difference(before: &EngineKey, after: &EngineKey) -> String {
    let mut changes = Vec::new();
    for (name, value) in SETTINGS {
        if let Value::Engine(read) = value {
            let (before, after) = (read(before), read(after));
            if before != after {
                changes.push(format!("{name} {before} -> {after}"));
            }
        }
    }
    changes.join(", ")
}

fn step_api(api: StepApi) -> &'static str {
    match api {
        StepApi::EngineCore => "engine_core",
        StepApi::LlmEngine => "llm_engine",
    }
}

fn prefix_mode(mode: PrefixMode) -> &'static str {
    match mode {
        PrefixMode::Inside => "inside",
        PrefixMode::Added => "added",
    }
}

fn drive(drive: Drive) -> &'static str {
    match drive {
        Drive::Free => "free",
        Drive::Stepped => "stepped",
    }
}

fn concurrency(load: Load) -> String {
    let Load::Closed { concurrency } = load;
    concurrency.map_or_else(|| "all at once".to_owned(), |concurrency| concurrency.to_string())
}

fn limit(limit: Option<u32>) -> String {
    limit.map_or_else(|| "as built".to_owned(), |limit| limit.to_string())
}

fn option(value: Option<f64>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn objectives(slo: &BTreeMap<String, f64>) -> String {
    let bounds: Vec<String> = slo.iter().map(|(metric, bound)| format!("{metric}: {bound}")).collect();
    format!("{{{}}}", bounds.join(", "))
}

/// Words as a shell would take them.
pub(crate) fn shell(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default()
}

/// The keys of all settings that have a class.
#[cfg(test)]
pub(crate) fn setting_keys() -> HashSet<&'static str> {
    SETTINGS.into_iter().map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_class_of_every_setting() {
        let text = include_str!("../../../docs/config.md");
        for (class, name) in
            [(SettingClass::EngineKey, "engine key"), (SettingClass::Live, "live"), (SettingClass::Run, "run")]
        {
            let row = text.lines().find(|line| line.starts_with(&format!("| {name} | `"))).unwrap();
            let documented: Vec<&str> = row.split('|').nth(2).unwrap().trim().split(", ").collect();
            let of_class = SETTINGS.iter().filter(|(_, value)| SettingClass::of(*value) == class);
            let known: Vec<String> = of_class.map(|(name, _)| format!("`{name}`")).collect();
            assert_eq!(documented, known);
        }
    }
}
