//! What a plan asked for, against the runs that there are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::{Report, RunEntry, converged};
use crate::base::printable::printable;
use crate::measurement::timeline::store::StoreError;
use crate::question::plan::{Epoch, Plan, Point};

/// The planned runs, by what became of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// Runs that the plan asks for.
    pub planned: u64,
    /// Those of them that have a run, or one that was measured in its place, whatever became of it.
    pub measured: u64,
    /// Those that are not needed, because their point is known as well as `until_ci` asks.
    pub not_needed: u64,
    /// Those that there is nothing of, by point, in the order of the configuration.
    pub missing: Vec<MissingRuns>,
}

/// Planned runs of a point that there is nothing of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MissingRuns {
    /// Label of the point.
    pub point: String,
    /// Which of its repeats, ascending.
    pub repeats: Vec<u32>,
}

/// A stored run that cannot be read, or is not of the results that it lies in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DamagedRun {
    /// Name of its folder: label of the point and repeat.
    pub run: String,
    /// The file that is damaged, from the results folder on.
    pub path: String,
    /// What is wrong, and what to do next.
    pub problem: String,
}

impl DamagedRun {
    /// The run in a folder of a results folder that could not be read for this cause.
    pub(super) fn of(results: &Path, run: &Path, error: &StoreError) -> DamagedRun {
        let words = |path: &Path| printable(&path.to_string_lossy()).into_owned();
        let path = error.path();
        DamagedRun {
            run: words(Path::new(run.file_name().unwrap_or_default())),
            path: words(path.strip_prefix(results).unwrap_or(path)),
            problem: error.problem(),
        }
    }

    /// Label of the point, by the folder's name.
    fn point(&self) -> &str {
        self.run.rsplit_once('-').map_or(self.run.as_str(), |(label, _)| label)
    }
}

impl Coverage {
    /// Of a plan and the runs that there are of it; `damaged` are neither measured nor missing.
    fn of(plan: &Plan, runs: &[RunEntry], damaged: &[DamagedRun]) -> Coverage {
        let planned_repeat = |run: &RunEntry| run.retry_of.unwrap_or(run.repeat);
        let there: HashSet<(&str, u32)> =
            runs.iter().map(|run| (run.identity.point.as_str(), planned_repeat(run))).collect();
        let mut of_point: HashMap<&str, Vec<&RunEntry>> = HashMap::new();
        runs.iter().for_each(|run| of_point.entry(&run.identity.point).or_default().push(run));
        let is_converged = |point: &Point| {
            let runs = of_point.get(point.point.as_str()).into_iter().flatten().copied();
            converged(point, runs).is_some()
        };
        let damaged: HashSet<&str> = damaged.iter().map(|damaged| damaged.run.as_str()).collect();
        let mut is_known: HashMap<&str, bool> = HashMap::new();
        let mut coverage = Coverage { planned: 0, measured: 0, not_needed: 0, missing: Vec::new() };
        let mut places: HashMap<&str, usize> = HashMap::new();
        for run in plan.epochs.iter().flat_map(Epoch::runs) {
            let label = run.point.point.as_str();
            coverage.planned += 1;
            if there.contains(&(label, run.repeat)) {
                coverage.measured += 1;
            } else if damaged.contains(format!("{label}-{}", run.repeat).as_str()) {
                // Named for itself.
            } else if *is_known.entry(label).or_insert_with(|| is_converged(run.point)) {
                coverage.not_needed += 1;
            } else {
                let place = *places.entry(label).or_insert_with(|| {
                    coverage.missing.push(MissingRuns { point: label.to_owned(), repeats: Vec::new() });
                    coverage.missing.len() - 1
                });
                coverage.missing[place].repeats.push(run.repeat);
            }
        }
        coverage.missing.iter_mut().for_each(|missing| missing.repeats.sort_unstable());
        let mut order: HashMap<&str, usize> = HashMap::new();
        for (place, point) in plan.epochs.iter().flat_map(|epoch| &epoch.points).enumerate() {
            order.entry(&point.point).or_insert(place);
        }
        coverage.missing.sort_by_key(|missing| order.get(missing.point.as_str()));
        coverage
    }

    /// How many planned runs there is nothing of.
    pub fn num_missing(&self) -> u64 {
        self.missing.iter().map(|missing| missing.repeats.len() as u64).sum()
    }
}

impl Report {
    /// Adds runs that cannot be read, and counts what the plan asked for against the runs that there are.
    pub(super) fn add_damaged(&mut self, damaged: Vec<DamagedRun>) {
        self.damaged.extend(damaged);
        self.damaged.sort_by(|one, other| one.run.cmp(&other.run));
        self.damaged.dedup();
        self.take_stock();
    }

    /// Counts what the plan asked for against the runs that there are.
    fn take_stock(&mut self) {
        let Some(plan) = &self.plan else { return };
        let coverage = Coverage::of(plan, &self.runs, &self.damaged);
        let mut damaged: BTreeMap<&str, u64> = BTreeMap::new();
        // A run that was measured by this command and cannot be read any more stays among the runs.
        let runs = self.runs.iter().map(|run| format!("{}-{}", run.identity.point, run.repeat));
        let there: HashSet<String> = if self.damaged.is_empty() { HashSet::new() } else { runs.collect() };
        for run in self.damaged.iter().filter(|run| !there.contains(&run.run)) {
            *damaged.entry(run.point()).or_default() += 1;
        }
        let missing: HashMap<&str, u64> =
            coverage.missing.iter().map(|of| (of.point.as_str(), of.repeats.len() as u64)).collect();
        for point in &mut self.points {
            let label = point.identity.point.as_str();
            point.num_missing = missing.get(label).copied().unwrap_or(0);
            point.num_damaged = damaged.get(label).copied().unwrap_or(0);
        }
        self.coverage = Some(coverage);
    }

    /// Planned runs that there is nothing of.
    pub fn num_missing(&self) -> u64 {
        self.coverage.as_ref().map_or(0, Coverage::num_missing)
    }

    /// A line for all planned runs if some are missing, and one for each point and each damaged run.
    pub(super) fn gaps(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(coverage) = self.coverage.as_ref().filter(|coverage| !coverage.missing.is_empty()) {
            let Coverage { planned, measured, missing, .. } = coverage;
            lines.push(format!(
                "MISSING: {planned} runs are planned, {measured} are measured, {} are missing; `bench engine --resume DIR` \
                 measures the rest",
                coverage.num_missing()
            ));
            lines.extend(missing.iter().map(|of| format!("MISSING {} {}", of.point, in_words(&of.repeats))));
        }
        lines.extend(self.damaged.iter().map(|run| format!("DAMAGED {}: {}: {}", run.run, run.path, run.problem)));
        lines
    }

    /// That some records have no checksum.
    pub(super) fn unsealed(&self) -> Option<String> {
        (self.unsealed_records > 0).then(|| {
            format!(
                "{} stored records are of a version without a checksum over them: a change of them would not be noticed",
                self.unsealed_records
            )
        })
    }
}

/// Repeats in words, neighbours as ranges: `repeats 0 to 3, 7`.
fn in_words(repeats: &[u32]) -> String {
    let ranges = repeats.chunk_by(|one, next| one + 1 == *next).map(|range| match range {
        [first, .., last] => format!("{first} to {last}"),
        range => range.iter().map(u32::to_string).collect(),
    });
    let words = if repeats.len() == 1 { "repeat" } else { "repeats" };
    format!("{words} {}", ranges.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn repeats_that_follow_each_other_are_a_range() {
        assert_eq!(in_words(&[3]), "repeat 3");
        assert_eq!(in_words(&[0, 1, 2, 5, 7, 8]), "repeats 0 to 2, 5, 7 to 8");
    }
}
