//! Two results that were measured one after the other.

use std::collections::{HashMap, HashSet};

use super::differences::differences;
use super::{Decision, MetricComparison, PointComparison, Question, metrics_of, runs_by_point};
use crate::analysis::metrics::Metric;
use crate::analysis::verdict::Status;
use crate::presentation::report::{PointEntry, Report, RunEntry};
use crate::statistics::unpaired_effect;

/// The points that both have, and what is to be said of the rest.
pub(super) fn compare(a: &Report, b: &Report, question: &Question) -> (Vec<PointComparison>, Vec<String>) {
    let known_b: HashMap<Key<'_>, &PointEntry> = b.points.iter().map(|point| (key(point), point)).collect();
    let known_a: HashSet<Key<'_>> = a.points.iter().map(key).collect();
    let mut both = Vec::new();
    let mut remarks = vec![
        "unverified: both results were measured in commands of their own, and whatever changed between them is in the \
         difference; measure pairs (`bench engine --ab`) to decide"
            .to_owned(),
    ];
    for of_a in &a.points {
        match known_b.get(&key(of_a)) {
            Some(of_b) => both.push([of_a, of_b]),
            None => remarks.push(format!("{} {} is in A alone", of_a.identity.name, of_a.identity.point)),
        }
    }
    let alone = b.points.iter().filter(|of_b| !known_a.contains(&key(of_b)));
    remarks.extend(alone.map(|point| format!("{} {} is in B alone", point.identity.name, point.identity.point)));
    if [a, b].iter().any(|report| report.environment.get("host").is_none_or(serde_json::Value::is_null)) {
        remarks.push("the two results do not say that they come from the same machine".to_owned());
    }
    remarks.extend(differences(a, b, &both));
    let runs = [a, b].map(|report| runs_by_point(report.runs.iter().filter(|run| run.status == Status::Valid)));
    let compare = |points: &[&PointEntry; 2]| {
        let of_point =
            |side: usize| runs[side].get(points[side].identity.point.as_str()).map_or(&[][..], Vec::as_slice);
        compare_points(*points, [of_point(0), of_point(1)], question)
    };
    (both.iter().map(compare).collect(), remarks)
}

/// What makes two points the same: the name of the entry, and the label.
type Key<'r> = (&'r str, &'r str);

fn key(point: &PointEntry) -> Key<'_> {
    (&point.identity.name, &point.identity.point)
}

fn compare_points([a, b]: [&PointEntry; 2], runs: [&[&RunEntry]; 2], question: &Question) -> PointComparison {
    let metrics = metrics_of(question).into_iter();
    PointComparison {
        metrics: metrics.map(|metric| compare_metric(metric, runs, a, b)).collect(),
        ..PointComparison::of(a, b, question)
    }
}

fn compare_metric(metric: Metric, runs: [&[&RunEntry]; 2], a: &PointEntry, b: &PointEntry) -> MetricComparison {
    let both = MetricComparison::of(metric, a, b);
    let [values_a, values_b] =
        runs.map(|runs| runs.iter().filter_map(|run| run.values.get(metric)).collect::<Vec<f64>>());
    let effect = if both.is_known() { unpaired_effect(&values_a, &values_b) } else { None };
    let interval = effect.and_then(|effect| effect.interval);
    MetricComparison {
        ratio: effect.map(|effect| effect.ratio),
        low: interval.and_then(|interval| interval.low),
        high: interval.and_then(|interval| interval.high),
        decision: Decision::Unverified,
        ..both
    }
}
