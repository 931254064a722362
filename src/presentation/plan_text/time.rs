//! How long a plan takes, in words.

use std::collections::HashSet;

use super::counted;
use crate::question::plan::{Epoch, EpochEstimate, Estimate, Plan, Point};

/// The line of a part of the plan whose epochs are known; `None` unless all of them are.
pub(super) fn of_epochs(epochs: &[Option<EpochEstimate>]) -> Option<String> {
    let known: Vec<&EpochEstimate> = epochs.iter().map(Option::as_ref).collect::<Option<_>>()?;
    let sum = |seconds: fn(&EpochEstimate) -> f64| duration(known.iter().map(|epoch| seconds(epoch)).sum());
    let (load, runs) = (sum(|epoch| epoch.of_load_s(epoch.load_s)), sum(|epoch| epoch.runs_s));
    let loads = match known.iter().filter(|epoch| epoch.is_loaded).count() {
        1 => format!("load {load}"),
        loads => format!("{loads} loads {load}"),
    };
    let warm_up = match known.iter().any(|epoch| epoch.warm_up_s.is_some()) {
        true => format!(", warm-up {}", sum(|epoch| epoch.of_load_s(epoch.warm_up_s.unwrap_or(0.0)))),
        false => String::new(),
    };
    Some(format!("  estimated: {loads}{warm_up}, runs {runs}"))
}

/// The time of the whole plan, and what is known of it.
pub(super) fn of_plan(plan: &Plan, estimate: &Estimate) -> String {
    let Some(total_s) = estimate.total_s() else {
        let loads: Vec<usize> = (0..plan.epochs.len()).filter(|epoch| plan.loads_engine(*epoch)).collect();
        let unknown = loads.iter().filter(|epoch| estimate.epochs[**epoch].is_none()).count();
        return match (unknown, loads.len()) {
            (1, 1) => "not known yet: this engine has never been measured on this machine".to_owned(),
            (unknown, all) if unknown == all => {
                format!("not known yet: none of these {all} engines has ever been measured on this machine")
            }
            (unknown, all) => {
                format!("not known yet: {unknown} of these {all} engines never measured on this machine")
            }
        };
    };
    let known = || estimate.epochs.iter().flatten();
    let measured: usize = known().map(|epoch| epoch.measured_runs).sum();
    let derived: usize = known().map(|epoch| epoch.derived_runs).sum();
    let basis = match (measured, derived) {
        (_, 0) => "every point has been measured on this machine before".to_owned(),
        (0, _) => "worked out from other points measured on this machine".to_owned(),
        _ => format!("{} measured before on this machine, {derived} worked out from those", counted(measured, "run")),
    };
    let imported =
        if estimate.imports_s.is_none() { "; without the import of vLLM, which was never timed here" } else { "" };
    format!("{} ({basis}{imported})", duration(total_s))
}

/// What the plan would take if every point had a process of its own, as tools without a persistent engine do it. Points
/// that a pair takes from one engine to another, in the epochs of `alternating`, would need a process for every run. `None`
/// where that is the same.
pub(super) fn process_per_point(
    plan: &Plan,
    estimate: &Estimate,
    alternating: &[std::ops::Range<usize>],
) -> Option<String> {
    let in_pairs = |point: &&Point| point.pair.is_some();
    let runs_in_pairs = |epoch: &Epoch| epoch.runs().filter(|run| in_pairs(&run.point)).count();
    let mut seen = HashSet::new();
    let mut new_points = |epoch: &Epoch, pairs_too: bool| {
        let points = epoch.points.iter().filter(|point| point.role.is_measured());
        points.filter(|point| (pairs_too || !in_pairs(point)) && seen.insert(point.point.clone())).count()
    };
    let alternates = |epoch: usize| alternating.iter().any(|group| group.contains(&epoch));
    let processes: Vec<usize> = plan
        .epochs
        .iter()
        .enumerate()
        .map(|(index, epoch)| match alternates(index) {
            true => runs_in_pairs(epoch) + new_points(epoch, false),
            false => new_points(epoch, true),
        })
        .collect();
    let count: usize = processes.iter().sum();
    let num_loads = plan.num_loads(0..plan.epochs.len());
    if count <= num_loads {
        return None;
    }
    let has_pairs = plan.epochs.iter().enumerate().any(|(index, epoch)| alternates(index) && runs_in_pairs(epoch) > 0);
    let per = if has_pairs { "point (of pairs: per run)" } else { "point" };
    let start = format!("A process per {per} would take {} and as many imports of vLLM", counted(count, "engine load"));
    let loads_s = |times: &dyn Fn(usize) -> usize| -> Option<f64> {
        let of = |(index, epoch): (usize, &Option<EpochEstimate>)| Some(times(index) as f64 * epoch.as_ref()?.load_s);
        estimate.epochs.iter().enumerate().map(of).sum()
    };
    let (Some(theirs_s), Some(ours_s)) =
        (loads_s(&|index| processes[index]), loads_s(&|index| usize::from(plan.loads_engine(index))))
    else {
        return Some(start);
    };
    let classes = plan.device_classes().len();
    let (Some(imports_s), Some(total_s)) = (estimate.imports_s, estimate.total_s()) else {
        let more = duration(theirs_s - ours_s);
        return Some(format!("{start}: {more} more of loading; how long an import takes was never timed here"));
    };
    // Of several device classes each has its own import, as long as the others' on average.
    let their_imports_s = imports_s / classes as f64 * count as f64;
    let more_s = theirs_s - ours_s + their_imports_s - imports_s;
    Some(format!("{start}: {} more, {} in all", duration(more_s), duration(total_s + more_s)))
}

/// Seconds as a person says them.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7_200 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
    }
}
