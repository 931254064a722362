//! Labels of points: unique in a plan, and safe as a file name.

use std::collections::{BTreeMap, BTreeSet};

use super::{Drive, EngineKey, Load, Point, PrefixMode, Quantization, StepApi};

/// Longest part of a label that comes from a user's text, in bytes.
const MAX_SLUG_BYTES: usize = 40;

/// Labels every point, each of which comes with the index of its engine key: the lengths and the number of prompts, then what else differs between points of the plan.
pub(crate) fn assign(keys: &[EngineKey], points: &mut [(usize, Point)]) {
    let parts: Vec<[String; 13]> = points.iter().map(|(key, point)| suffixes(&keys[*key], point)).collect();
    let differs: [bool; 13] =
        std::array::from_fn(|index| parts.iter().map(|suffixes| &suffixes[index]).collect::<BTreeSet<_>>().len() > 1);
    let mut labels: Vec<String> = points
        .iter()
        .zip(&parts)
        .map(|((_, point), suffixes)| {
            let shown = suffixes.iter().zip(differs).filter(|(_, differs)| *differs).map(|(suffix, _)| suffix.as_str());
            [base(point)].into_iter().chain(shown.map(String::from)).collect()
        })
        .collect();
    name_the_shared(&mut labels, points);
    number_what_is_left(&mut labels);
    for ((_, point), label) in points.iter_mut().zip(labels) {
        point.point = label;
    }
}

fn base(point: &Point) -> String {
    format!("i{}-o{}-p{}-n{}", point.input_len, point.output_len, point.prefix_len, point.num_prompts)
}

/// What tells points of equal lengths apart; empty where a value is the usual one.
fn suffixes(key: &EngineKey, point: &Point) -> [String; 13] {
    let number = |prefix: &str, value: Option<u32>| value.map_or_else(String::new, |value| format!("-{prefix}{value}"));
    let flag = |is_set: bool, text: &str| if is_set { format!("-{text}") } else { String::new() };
    let Load::Closed { concurrency } = point.load;
    [
        number("c", concurrency),
        number("seqs", point.limits.max_num_seqs),
        number("tok", point.limits.max_num_batched_tokens),
        format!("-{}", key.device),
        number("tp", Some(key.tensor_parallel_size)),
        flag(key.quantization != Quantization::None, key.quantization.as_str()),
        format!("-{}", slug(key.model.rsplit(['/', ':']).next().unwrap_or_default())),
        flag(point.drive == Drive::Stepped, "stepped"),
        flag(key.step_api == StepApi::LlmEngine, "llmengine"),
        flag(point.prefix_mode == PrefixMode::Added, "added"),
        number("prefixes", (point.primed_prefixes() > 1).then_some(point.num_prefixes)),
        number("w", Some(point.warmup)),
        number("r", Some(point.repeats)),
    ]
}

/// Lower-case letters, digits, `.`, `_` and `-` of `text`, at most [`MAX_SLUG_BYTES`] of them.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().take(MAX_SLUG_BYTES) {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') {
            slug.push(c);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_matches(['-', '.']).to_owned()
}

/// Appends the entry's name to every label that more than one point has.
fn name_the_shared(labels: &mut [String], points: &[(usize, Point)]) {
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for label in labels.iter() {
        *users.entry(label.clone()).or_default() += 1;
    }
    for (label, (_, point)) in labels.iter_mut().zip(points) {
        if users.get(label).is_some_and(|users| *users > 1) {
            *label += &format!("-{}", slug(&point.name));
        }
    }
}

/// Numbers the labels that are still shared, counting on until a label is free.
fn number_what_is_left(labels: &mut [String]) {
    let mut taken = BTreeSet::new();
    for label in labels {
        let mut candidate = label.clone();
        let mut nth = 1;
        while !taken.insert(candidate.clone()) {
            nth += 1;
            candidate = format!("{label}-{nth}");
        }
        *label = candidate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_safe_in_a_file_name() {
        assert_eq!(slug("Ironwood: Code/Gen (High)"), "ironwood-code-gen-high");
        assert_eq!(slug("../../etc/passwd"), "etc-passwd");
        assert_eq!(slug("größe"), "gr-e");
        assert!(slug(&"x".repeat(500)).len() <= MAX_SLUG_BYTES);
    }

    #[test]
    fn labels_that_meet_are_still_told_apart() {
        let mut labels = ["a", "a", "a-2"].map(String::from);
        number_what_is_left(&mut labels);
        assert_eq!(labels, ["a", "a-2", "a-2-2"]);
    }
}
