//! Whether the loaded engine has the settings that its arguments and its labels say.

use crate::measurement::timeline::EngineFacts;
use crate::question::plan::EngineKey;

/// Why a run does not count: each setting that the loaded engine has otherwise than asked. What is not known is no reason.
pub(super) fn reasons(key: &EngineKey, facts: &EngineFacts) -> Vec<String> {
    let differing = facts.settings.iter().flatten().filter(|setting| setting.differs);
    let mut reasons: Vec<String> = differing
        .map(|setting| {
            let [asked, found] = [&setting.asked, &setting.found].map(|value| value.as_deref().unwrap_or("nothing"));
            format!("args ask for {} {asked}, and the loaded engine has {found}", setting.name)
        })
        .collect();
    let labelled = key.tensor_parallel_size.to_string();
    if let Some(found) = facts.found("tensor_parallel_size").filter(|found| *found != labelled) {
        reasons.push(format!("labelled tensor_parallel_size {labelled}, and the loaded engine has {found}"));
    }
    reasons
}
