//! Arranges points into epochs and rounds, and says what each reload is for.

use super::{EngineKey, Epoch, Point, StepApi, seed};

/// One load for each of `keys`, which stand in the order of their first point: no order needs fewer reloads. Each point
/// comes with the index of its key.
pub(super) fn arrange(keys: Vec<EngineKey>, points: Vec<(usize, Point)>, plan_seed: u64) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = Vec::new();
    for key in keys {
        let reason = epochs.last().map_or_else(|| "first load".to_owned(), |before| difference(&before.key, &key));
        epochs.push(Epoch { key, reason, points: Vec::new(), rounds: Vec::new() });
    }
    for (index, point) in points {
        epochs[index].points.push(point);
    }
    for (index, epoch) in epochs.iter_mut().enumerate() {
        let rounds = epoch.points.iter().map(|point| point.repeats).max().unwrap_or(0);
        let due_in = |round| (0..epoch.points.len()).filter(|point| epoch.points[*point].repeats > round).collect();
        epoch.rounds = (0..rounds).map(|round| seed::shuffled(due_in(round), plan_seed, index, round)).collect();
    }
    epochs
}

/// The settings in which two engine keys differ, in words.
fn difference(before: &EngineKey, after: &EngineKey) -> String {
    let mut changes = Vec::new();
    let mut change = |name: &str, before: String, after: String| {
        if before != after {
            changes.push(format!("{name} {before} -> {after}"));
        }
    };
    change("device", before.device.to_string(), after.device.to_string());
    change("model", before.model.clone(), after.model.clone());
    let size = |key: &EngineKey| key.tensor_parallel_size.to_string();
    change("tensor_parallel_size", size(before), size(after));
    change("quantization", before.quantization.as_str().into(), after.quantization.as_str().into());
    let step_api = |key: &EngineKey| if key.step_api == StepApi::EngineCore { "engine_core" } else { "llm_engine" };
    change("step_api", step_api(before).into(), step_api(after).into());
    let args = |key: &EngineKey| {
        format!("`{}`", shlex::try_join(key.engine_args.iter().map(String::as_str)).unwrap_or_default())
    };
    change("args", args(before), args(after));
    changes.join(", ")
}
