//! Settings of a loaded engine: what its arguments ask for, and what it was found to have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EngineFacts;

/// One setting of a loaded engine, in vLLM's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSetting {
    /// Name of the argument: `kv_cache_dtype`.
    pub name: String,
    /// What the arguments ask for; null if they leave it to vLLM.
    pub asked: Option<String>,
    /// What the loaded engine has; null if this version of vLLM does not tell.
    pub found: Option<String>,
    /// Whether both are known and do not agree.
    pub differs: bool,
}

impl EngineFacts {
    /// What the loaded engine has of a setting; `None` if that is not known.
    pub fn found(&self, setting: &str) -> Option<&str> {
        self.settings.iter().flatten().find(|one| one.name == setting)?.found.as_deref()
    }
}

/// Of what an engine says beside its settings, what differs from load to load, or from holder to holder.
const OF_THE_LOAD: [&str; 6] = ["process", "process_reason", "event_ring", "nice", "reused", "self_test"];

impl EngineFacts {
    /// The facts that two engines do not share, each as `name (one; other)`. Runs of different engines are not runs of one
    /// point. A fact that one of them does not know is no difference. The number of KV blocks is none, either: on a device
    /// whose free memory decides, it varies by a few from load to load.
    pub fn differences(&self, other: &EngineFacts) -> Vec<String> {
        if self == other {
            return Vec::new();
        }
        let (one, other) = (self.by_name(), other.by_name());
        let differing = one.iter().filter_map(|(name, value)| {
            let theirs = other.get(name).filter(|theirs| *theirs != value && !theirs.is_null() && !value.is_null())?;
            let is_short = |value: &serde_json::Value| !value.is_object() && !value.is_array();
            let is_shown = is_short(value) && is_short(theirs);
            Some(if is_shown { format!("{name} ({value}; {theirs})") } else { name.clone() })
        });
        differing.collect()
    }

    fn by_name(&self) -> BTreeMap<String, serde_json::Value> {
        let Ok(serde_json::Value::Object(mut facts)) = serde_json::to_value(self) else { return BTreeMap::new() };
        facts.remove("num_kv_blocks");
        facts.remove("settings");
        let more = facts.remove("other");
        let more = more.as_ref().and_then(serde_json::Value::as_object).into_iter().flatten();
        let more = more.filter(|(name, _)| !OF_THE_LOAD.contains(&name.as_str()));
        let more: Vec<_> = more.map(|(name, value)| (name.clone(), value.clone())).collect();
        let settings = self.settings.iter().flatten().filter(|one| !facts.contains_key(&one.name));
        let found = |one: &EngineSetting| one.found.clone().map_or(serde_json::Value::Null, Into::into);
        let settings: Vec<_> = settings.map(|one| (format!("loaded {}", one.name), found(one))).collect();
        facts.into_iter().chain(more).chain(settings).collect()
    }
}
