//! Arranges points into epochs and rounds, and says what each reload is for.

use std::collections::BTreeMap;

use super::{EngineKey, Epoch, Point, StepApi, seed};

/// One load for each of `keys`: no order needs fewer. Of the orders with so few, the one in which what costs most changes
/// least. Each point comes with the index of its key.
pub(super) fn arrange(keys: Vec<EngineKey>, points: Vec<(usize, Point)>, plan_seed: u64) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = Vec::new();
    let mut epoch_of = vec![0; keys.len()];
    for index in cheapest_order(&keys) {
        let key = keys[index].clone();
        let reason = epochs.last().map_or_else(|| "first load".to_owned(), |before| difference(&before.key, &key));
        epoch_of[index] = epochs.len();
        epochs.push(Epoch { key, reason, points: Vec::new(), rounds: Vec::new() });
    }
    for (index, point) in points {
        epochs[epoch_of[index]].points.push(point);
    }
    for (index, epoch) in epochs.iter_mut().enumerate() {
        let rounds = epoch.points.iter().map(|point| point.repeats).max().unwrap_or(0);
        let due_in = |round| (0..epoch.points.len()).filter(|point| epoch.points[*point].repeats > round).collect();
        epoch.rounds = (0..rounds).map(|round| seed::shuffled(due_in(round), plan_seed, index, round)).collect();
    }
    epochs
}

/// The indexes of `keys`, grouped by what costs most to change: another device is another sidecar, another model is read
/// from the disk, other ranks are other processes; the rest is a load. Within a group, values keep the order in which they
/// first stand.
fn cheapest_order(keys: &[EngineKey]) -> Vec<usize> {
    let ranks = [
        first_seen(keys, |key| key.device),
        first_seen(keys, |key| &key.model),
        first_seen(keys, |key| key.tensor_parallel_size),
        first_seen(keys, |key| key.quantization),
        first_seen(keys, |key| &key.engine_args),
    ];
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|index| (ranks.each_ref().map(|ranks| ranks[*index]), *index));
    order
}

/// For each key, as the how manieth its value of one setting first stands.
fn first_seen<'k, T: Ord>(keys: &'k [EngineKey], value: impl Fn(&'k EngineKey) -> T) -> Vec<usize> {
    let mut seen = BTreeMap::new();
    keys.iter()
        .map(|key| {
            let next = seen.len();
            *seen.entry(value(key)).or_insert(next)
        })
        .collect()
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
