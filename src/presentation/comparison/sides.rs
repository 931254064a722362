//! Whether a side of a comparison is whole: what was planned of it, what was measured, and what is valid.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::runs_by_point;
use crate::analysis::verdict::Status;
use crate::base::printable::printable;
use crate::presentation::report::{Report, RunEntry, converged};
use crate::question::plan::{Arm, Epoch, PairMember};

/// Runs that are named, of each side; more are counted.
const NAMED: usize = 20;

/// The runs of one side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Runs that the plan asks for; null for an imported timeline, which has no plan.
    pub planned: Option<u64>,
    /// Runs that were measured, whatever became of them.
    pub measured: u64,
    /// Those of them that are valid.
    pub valid: u64,
    /// Planned runs that were never measured; none of a point whose intervals were narrow enough without them.
    pub missing: u64,
    /// A line for each measured run that is not valid.
    #[serde(skip)]
    not_valid: Vec<String>,
}

impl Side {
    /// Of a result, or of one arm of its pairs.
    pub(super) fn of(report: &Report, arm: Option<Arm>) -> Side {
        let is_side = |pair: &Option<PairMember>| arm.is_none_or(|arm| pair.as_ref().is_some_and(|it| it.arm == arm));
        let runs: Vec<&RunEntry> = report.runs.iter().filter(|run| is_side(&run.identity.pair)).collect();
        let epochs = || report.plan.iter().flat_map(|plan| &plan.epochs);
        let planned = || epochs().flat_map(Epoch::runs).filter(|run| is_side(&run.point.pair));
        let measured: HashSet<(&str, u32)> =
            runs.iter().map(|run| (run.identity.point.as_str(), run.retry_of.unwrap_or(run.repeat))).collect();
        let of_point = runs_by_point(&report.runs);
        let mut is_converged: HashMap<&str, bool> = HashMap::new();
        let missing = planned().filter(|run| {
            let label = run.point.point.as_str();
            let runs = || of_point.get(label).into_iter().flatten().copied();
            !measured.contains(&(label, run.repeat))
                && !*is_converged.entry(label).or_insert_with(|| converged(run.point, runs()).is_some())
        });
        let missing = missing.count() as u64;
        let valid = runs.iter().filter(|run| run.status == Status::Valid).count() as u64;
        Side {
            planned: report.plan.as_ref().map(|_| planned().count() as u64),
            measured: runs.len() as u64,
            valid,
            missing,
            not_valid: runs.into_iter().filter(|run| run.status != Status::Valid).map(line).collect(),
        }
    }

    /// `of 5 planned runs 3 measured, 3 valid, 2 missing`.
    pub(super) fn counts(&self) -> String {
        let Side { planned, measured, valid, missing, .. } = self;
        let planned = planned.map_or_else(|| "a number not known".to_owned(), |planned| planned.to_string());
        format!("of {planned} planned runs {measured} measured, {valid} valid, {missing} missing")
    }

    /// Whether every planned run was measured, and every measured run is valid.
    pub fn is_whole(&self) -> bool {
        self.missing == 0 && self.not_valid.is_empty()
    }

    /// What is missing of the side that is called `name`, and the name of each run that is not valid; nothing of a whole one.
    pub(super) fn remarks(&self, name: &str) -> Vec<String> {
        if self.is_whole() {
            return Vec::new();
        }
        let not_valid = &self.not_valid;
        let mut lines = vec![format!("{name} is not whole: {}", self.counts())];
        lines.extend(not_valid.iter().take(NAMED).map(|run| format!("{name}: {run}")));
        if let Some(more) = not_valid.len().checked_sub(NAMED).filter(|more| *more > 0) {
            lines.push(format!("{name}: and {more} more runs that are not valid"));
        }
        lines
    }
}

/// `INVALID a repeat 3: 1 event records were malformed`.
fn line(run: &RunEntry) -> String {
    let (status, point) = (run.status.as_str().to_uppercase(), &run.identity.point);
    let line = format!("{status} {point} repeat {}: {}", run.repeat, run.reasons.join("; "));
    printable(&line).into_owned()
}
