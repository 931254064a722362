//! `--until-ci`: which numbers of a point have to be known how well before no more of its runs are measured.

use super::RunEntry;
use crate::analysis::metrics::{Metric, Series, Statistic, Total};
use crate::analysis::verdict::Status;
use crate::question::plan::Point;
use crate::statistics::Convergence;

/// All of these, as far as all runs of a point have them.
pub(super) const WATCHED: [Metric; 3] = [
    Metric::Of(Series::Ttft, Statistic::Average),
    Metric::Of(Series::Itl, Statistic::Average),
    Metric::Total(Total::OutputTokens),
];

/// Whether a metric is one of those that have to be known well.
pub(super) fn is_watched(metric: Metric) -> bool {
    WATCHED.contains(&metric)
}

/// How well the valid runs of a point know what is watched, the worst of it, once that is as well as the point asks. `None`: not
/// yet, or nothing is asked.
pub fn converged<'r>(point: &Point, runs: impl IntoIterator<Item = &'r RunEntry>) -> Option<Convergence> {
    let target = point.until_ci?;
    let of_point = runs.into_iter().filter(|run| run.identity.point == point.point && run.status == Status::Valid);
    let valid: Vec<&RunEntry> = of_point.collect();
    let values = |metric| valid.iter().filter_map(|run| run.values.get(metric)).collect::<Vec<f64>>();
    let mut worst: Option<Convergence> = None;
    for values in WATCHED.map(values).into_iter().filter(|values| values.len() == valid.len()) {
        let found = Convergence::of(&values, 0.0).filter(|found| found.is_reached(target))?;
        if worst.is_none_or(|worst| found.half_width > worst.half_width) {
            worst = Some(found);
        }
    }
    worst
}
