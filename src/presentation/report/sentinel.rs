//! The sentinels of an epoch: the same work again and again, and whether it took longer and longer.

use jiff::Timestamp;
use serde::Serialize;

use super::RunEntry;
use crate::analysis::metrics::{Metric, Series, Statistic};
use crate::analysis::verdict::Status;
use crate::question::plan::Role;
use crate::statistics::{Drift, FEW_RUNS, drift};

/// What is watched: all that a request waits for, so that nothing that drifts is left out.
const WATCHED: Metric = Metric::Of(Series::E2e, Statistic::Average);

/// The sentinels of one epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SentinelEntry {
    /// Index of the epoch.
    pub epoch: u32,
    /// Label of the sentinel.
    pub point: String,
    /// The metric that is watched, as in `runs[]`.
    pub metric: String,
    /// Its runs so far, in the order of execution.
    pub runs: Vec<SentinelRun>,
    /// Median over the later half of the valid runs, over that of the earlier half, less 1; the middle run of an odd number
    /// is in neither. Null with fewer than two.
    pub change: Option<f64>,
    /// The test over the valid runs; null with too few of them, or where they agree entirely.
    pub drift: Option<DriftEntry>,
    /// Why there is no test.
    pub note: Option<String>,
}

/// A run of a sentinel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SentinelRun {
    /// Which of the sentinel's runs, from 0.
    pub repeat: u32,
    /// Position in the order of execution of the whole command, from 0.
    pub order: u32,
    /// When it began, RFC 3339.
    pub began_at: Option<String>,
    /// Seconds from the begin of the sentinel's first run to that of this one, by the wall clock.
    pub after_s: Option<f64>,
    /// The verdict.
    pub status: Status,
    /// The watched metric; null unless the run is valid.
    pub value: Option<f64>,
}

/// Von Neumann's ratio over the order of the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DriftEntry {
    /// About 2 without drift.
    pub ratio: f64,
    /// The same as a normal score.
    pub z: f64,
    /// Whether neighbouring runs resemble each other more than chance explains, one-sided at 5 %.
    pub flagged: bool,
}

impl From<Drift> for DriftEntry {
    fn from(found: Drift) -> DriftEntry {
        DriftEntry { ratio: found.ratio, z: found.z, flagged: found.flagged }
    }
}

/// The sentinels among `runs`, which are in the order of execution.
pub(super) fn sentinels(runs: &[RunEntry]) -> Vec<SentinelEntry> {
    let mut by_label: Vec<Vec<&RunEntry>> = Vec::new();
    for run in runs.iter().filter(|run| run.asked.role == Role::Sentinel) {
        match by_label.iter_mut().find(|known| known[0].identity.point == run.identity.point) {
            Some(known) => known.push(run),
            None => by_label.push(vec![run]),
        }
    }
    by_label.into_iter().map(|runs| SentinelEntry::of(&runs)).collect()
}

impl SentinelEntry {
    /// Of runs in the order of execution, of which there is at least one.
    fn of(runs: &[&RunEntry]) -> SentinelEntry {
        let began = |run: &RunEntry| run.began_at.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
        let first = began(runs[0]);
        let entry = |run: &&RunEntry| SentinelRun {
            repeat: run.repeat,
            order: run.order,
            began_at: run.began_at.clone(),
            after_s: first.zip(began(run)).map(|(first, began)| began.duration_since(first).as_secs_f64()),
            status: run.status,
            value: run.values.get(WATCHED).filter(|_| run.status == Status::Valid),
        };
        let entries: Vec<SentinelRun> = runs.iter().map(entry).collect();
        let values: Vec<f64> = entries.iter().filter_map(|run| run.value).collect();
        let found = drift(&values);
        let note = match (&found, values.len()) {
            (Some(_), _) => None,
            (None, valid) if valid < FEW_RUNS => {
                Some(format!("too few valid runs for a test: {valid} of the {FEW_RUNS} that it takes"))
            }
            (None, _) => Some("all runs agree entirely".to_owned()),
        };
        SentinelEntry {
            epoch: runs[0].identity.epoch.unwrap_or(0),
            point: runs[0].identity.point.clone(),
            metric: WATCHED.name(),
            change: change(&values),
            runs: entries,
            drift: found.map(DriftEntry::from),
            note,
        }
    }

    /// What to say if it drifts.
    pub(super) fn warning(&self) -> Option<String> {
        let found = self.drift.filter(|found| found.flagged)?;
        let change = self.change.map_or_else(String::new, |change| {
            format!(", by {:+.1} % from the earlier half of its runs to the later", change * 100.0)
        });
        let time = self
            .runs
            .last()
            .and_then(|run| run.after_s)
            .map_or_else(String::new, |seconds| format!(" within {:.0} min", (seconds / 60.0).ceil()));
        Some(format!(
            "drift between sentinels: `{}` of {} changed over its {} runs{time}{change} (z = {:.2}): clocks, heat, \
             fragmentation or a cache; what ran early and what ran late in epoch {} are not alike",
            self.metric,
            self.point,
            self.runs.len(),
            found.z,
            self.epoch
        ))
    }

    /// Minutes since the first run, and change of the metric against it in per cent; nothing where there is only one value.
    pub(super) fn changes(&self) -> Vec<(f64, f64)> {
        let first = self.runs.iter().find_map(|run| run.value);
        let shown = |run: &SentinelRun| Some((run.after_s? / 60.0, (run.value? / first? - 1.0) * 100.0));
        let points: Vec<(f64, f64)> = self.runs.iter().filter_map(shown).collect();
        if points.len() > 1 { points } else { Vec::new() }
    }
}

/// The later half against the earlier one, by their medians.
fn change(values: &[f64]) -> Option<f64> {
    let half = values.len() / 2;
    let (earlier, later) = (median(&values[..half])?, median(&values[values.len() - half..])?);
    Some(later / earlier - 1.0)
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().saturating_sub(1) / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}
