//! Both sides of the pairs in one result.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::decision::{is_equivalent, leaves_1_out};
use super::{Decision, MetricComparison, PointComparison, Question, metrics_of, runs_by_point};
use crate::analysis::metrics::Metric;
use crate::analysis::verdict::Status;
use crate::presentation::report::{PointEntry, Report, RunEntry};
use crate::question::plan::Arm;
use crate::statistics::{FEWEST_PAIRS, paired_effect};

/// The pairs of a report, in the order of the plan.
pub(super) fn compare(report: &Report, question: &Question) -> Vec<PointComparison> {
    let mut of_pair: BTreeMap<u32, [Option<&PointEntry>; 2]> = BTreeMap::new();
    for point in &report.points {
        if let Some(member) = &point.identity.pair {
            of_pair.entry(member.pair).or_default()[side(member.arm)] = Some(point);
        }
    }
    let both = of_pair.into_values().filter_map(|[a, b]| Some((a?, b?)));
    let runs = runs_by_point(&report.runs);
    both.map(|(a, b)| compare_points(&runs, a, b, question)).collect()
}

/// The values that a side has, and of what: `quantization fp8`.
pub(super) fn values(report: &Report, arm: Arm) -> String {
    let members = report.points.iter().filter_map(|point| point.identity.pair.as_ref());
    let values: BTreeSet<String> =
        members.filter(|member| member.arm == arm).map(|member| format!("{} {}", member.axis, member.value)).collect();
    values.into_iter().collect::<Vec<_>>().join("; ")
}

fn side(arm: Arm) -> usize {
    match arm {
        Arm::A => 0,
        Arm::B => 1,
    }
}

fn compare_points(
    runs: &HashMap<&str, Vec<&RunEntry>>,
    a: &PointEntry,
    b: &PointEntry,
    question: &Question,
) -> PointComparison {
    // A round has one pair. Of a run that was measured anew in a fresh engine the two did not run one after the other.
    let mut rounds: BTreeMap<u32, [Option<&RunEntry>; 2]> = BTreeMap::new();
    for (index, point) in [a, b].into_iter().enumerate() {
        for run in runs.get(point.identity.point.as_str()).into_iter().flatten().copied() {
            let round = rounds.entry(run.round.unwrap_or(run.repeat)).or_default();
            if run.status == Status::Valid && run.retry_of.is_none() {
                round[index] = Some(run);
            }
        }
    }
    let all = rounds.len();
    let pairs: Vec<[&RunEntry; 2]> = rounds.into_values().filter_map(|[a, b]| Some([a?, b?])).collect();
    let metrics = metrics_of(question).into_iter();
    PointComparison {
        pairs: pairs.len(),
        pairs_left_out: all - pairs.len(),
        metrics: metrics.map(|metric| compare_metric(metric, &pairs, a, b, question.threshold)).collect(),
        ..PointComparison::of(a, b, question)
    }
}

fn compare_metric(
    metric: Metric,
    pairs: &[[&RunEntry; 2]],
    a: &PointEntry,
    b: &PointEntry,
    threshold: f64,
) -> MetricComparison {
    let both = MetricComparison::of(metric, a, b);
    let log_ratio = |[a, b]: &[&RunEntry; 2]| {
        let ratio = b.values.get(metric)? / a.values.get(metric)?;
        (ratio > 0.0 && ratio.is_finite()).then(|| ratio.ln())
    };
    let log_ratios: Vec<f64> = pairs.iter().filter_map(log_ratio).collect();
    let effect = if both.is_known() { paired_effect(&log_ratios) } else { None };
    let change = effect.as_ref().zip(both.a).map(|(effect, a)| ((effect.ratio - 1.0) * a).abs());
    let is_seen = change.zip(both.largest_known_error).is_none_or(|(change, error)| change > error);
    let note = match effect {
        _ if both.note.is_some() => both.note.clone(),
        None => Some(format!("{} of the {FEWEST_PAIRS} pairs that it takes", log_ratios.len())),
        Some(effect) => (!is_seen && leaves_1_out(&effect)).then(|| "finer than the instrument's own error".to_owned()),
    };
    MetricComparison {
        ratio: effect.map(|effect| effect.ratio),
        low: effect.map(|effect| effect.low),
        high: effect.map(|effect| effect.high),
        method: effect.map(|effect| effect.method),
        p: effect.map(|effect| effect.p),
        detectable: effect.map(|effect| effect.detectable),
        decision: Decision::of(effect.as_ref(), metric.higher_is_better(), threshold, is_seen),
        is_equivalent: effect.is_some_and(|effect| is_equivalent(&effect, threshold)),
        note,
        ..both
    }
}
