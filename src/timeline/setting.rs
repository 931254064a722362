//! Settings of a loaded engine: what its arguments ask for, and what it was found to have.

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
