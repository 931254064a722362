//! The stored runs that belong to a results folder.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::measurement::results::{SessionRecord, UNSEALED_SESSION_SCHEMA_VERSION};
use crate::measurement::timeline::store::{RECORD_FILE, StoreError, UNSEALED_RUN_SCHEMA_VERSION, damaged, read_run};
use crate::measurement::timeline::{Outcome, RunRecord, Timeline};
use crate::question::plan::{Epoch, Plan, Point};

/// Reads the stored runs of a results folder, and refuses those that its session knows nothing of: a folder that was copied from
/// other results would count as one more run.
pub(super) struct RunReader<'s> {
    planned: PlannedRuns<'s>,
    /// Whether runs without a checksum can be of this session.
    takes_unsealed: bool,
    /// The planned runs that a completed one counts as.
    completed: HashSet<(String, u32)>,
}

impl<'s> RunReader<'s> {
    pub(super) fn of(session: &'s SessionRecord) -> RunReader<'s> {
        let is_unsealed = session.schema_version == UNSEALED_SESSION_SCHEMA_VERSION;
        RunReader {
            planned: PlannedRuns::of(&session.plan),
            // The version before began a sweep, and this one has resumed it.
            takes_unsealed: is_unsealed || !session.resumed_at.is_empty(),
            completed: HashSet::new(),
        }
    }

    /// The run in a folder. Each folder is read once.
    ///
    /// # Errors
    /// [`StoreError`]: the run cannot be read, or is not of these results.
    pub(super) fn read(&mut self, folder: &Path) -> Result<Timeline, StoreError> {
        let timeline = read_run(folder)?;
        match self.refusal(&timeline.run) {
            None => Ok(timeline),
            Some(problem) => Err(damaged(&folder.join(RECORD_FILE))(problem.to_owned())),
        }
    }

    fn refusal(&mut self, run: &RunRecord) -> Option<&'static str> {
        if run.schema_version == UNSEALED_RUN_SCHEMA_VERSION && !self.takes_unsealed {
            return Some("it has no checksum, which every run of this results folder has");
        }
        if !self.planned.have(run) {
            return Some("it is not in the plan of this results folder");
        }
        let is_another = run.outcome == Outcome::Completed
            && !self.completed.insert((run.point.point.clone(), run.planned_repeat()));
        is_another.then_some("another run counts as the same planned one")
    }
}

/// The points and runs that a plan asks for.
struct PlannedRuns<'p> {
    plan: &'p Plan,
    points: HashMap<&'p str, &'p Point>,
    runs: HashSet<(&'p str, u32)>,
}

impl<'p> PlannedRuns<'p> {
    fn of(plan: &'p Plan) -> PlannedRuns<'p> {
        let points = plan.epochs.iter().flat_map(|epoch| &epoch.points);
        let runs = plan.epochs.iter().flat_map(Epoch::runs);
        PlannedRuns {
            plan,
            points: points.map(|point| (point.point.as_str(), point)).collect(),
            runs: runs.map(|run| (run.point.point.as_str(), run.repeat)).collect(),
        }
    }

    /// Whether a run is one that the plan asks for, on the engine and with the settings that it asks for.
    fn have(&self, run: &RunRecord) -> bool {
        let label = run.point.point.as_str();
        let epoch = self.plan.epochs.get(run.epoch as usize);
        self.runs.contains(&(label, run.planned_repeat()))
            && self.points.get(label) == Some(&&run.point)
            && epoch.is_some_and(|epoch| epoch.key == run.engine_key)
    }
}
