//! Two results that were measured one after the other.

use super::differences::differences;
use super::{Decision, MetricComparison, PointComparison, Question, metrics_of};
use crate::metrics::Metric;
use crate::report::{PointEntry, Report, RunEntry};
use crate::statistics::unpaired_effect;
use crate::verdict::Status;

/// The points that both have, and what is to be said of the rest.
pub(super) fn compare(a: &Report, b: &Report, question: &Question) -> (Vec<PointComparison>, Vec<String>) {
    let key = |point: &PointEntry| (point.identity.name.clone(), point.identity.point.clone());
    let mut both = Vec::new();
    let mut remarks = vec![
        "unverified: both results were measured in commands of their own, and whatever changed between them is in the \
         difference; measure pairs (`bench engine --ab`) to decide"
            .to_owned(),
    ];
    for of_a in &a.points {
        match b.points.iter().find(|of_b| key(of_b) == key(of_a)) {
            Some(of_b) => both.push([of_a, of_b]),
            None => remarks.push(format!("{} {} is in A alone", of_a.identity.name, of_a.identity.point)),
        }
    }
    let alone = b.points.iter().filter(|of_b| !a.points.iter().any(|of_a| key(of_a) == key(of_b)));
    remarks.extend(alone.map(|point| format!("{} {} is in B alone", point.identity.name, point.identity.point)));
    if [a, b].iter().any(|report| report.environment.get("host").is_none_or(serde_json::Value::is_null)) {
        remarks.push("the two results do not say that they come from the same machine".to_owned());
    }
    remarks.extend(differences(a, b, &both));
    let points = both.iter().map(|[of_a, of_b]| compare_points((a, of_a), (b, of_b), question)).collect();
    (points, remarks)
}

fn compare_points(
    (report_a, a): (&Report, &PointEntry),
    (report_b, b): (&Report, &PointEntry),
    question: &Question,
) -> PointComparison {
    let runs = [valid_runs(report_a, a), valid_runs(report_b, b)];
    let metrics = metrics_of(question).into_iter();
    PointComparison {
        metrics: metrics.map(|metric| compare_metric(metric, &runs, a, b)).collect(),
        ..PointComparison::of(a, b, question)
    }
}

fn valid_runs<'r>(report: &'r Report, point: &PointEntry) -> Vec<&'r RunEntry> {
    let of_point = report.runs.iter().filter(|run| run.identity.point == point.identity.point);
    of_point.filter(|run| run.status == Status::Valid).collect()
}

fn compare_metric(metric: Metric, runs: &[Vec<&RunEntry>; 2], a: &PointEntry, b: &PointEntry) -> MetricComparison {
    let both = MetricComparison::of(metric, a, b);
    let [values_a, values_b] =
        runs.each_ref().map(|runs| runs.iter().filter_map(|run| run.values.get(metric)).collect::<Vec<f64>>());
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
