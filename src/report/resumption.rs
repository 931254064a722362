//! Going on with the results of a command that ended early.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::results::read;
use super::{ReportError, Results, ResultsFolder};
use crate::atomic_file;
use crate::plan::{Epoch, Plan, Point};
use crate::results::{SESSION_SCHEMA_VERSION, read_session, write_session};
use crate::timeline::store;
use crate::timeline::{Outcome, RunRecord};

/// The results of a command that ended early, and what was found of them.
pub struct Resumption {
    /// They, opened.
    pub results: Results,
    /// The runs that stay, in no order.
    pub kept: Vec<RunRecord>,
    /// A sentence for each run that was moved aside.
    pub set_aside: Vec<String>,
}

impl Results {
    /// Opens the results of a command that ended early. Runs that did not come to their end, are damaged, or are not of the plan
    /// are moved into the folder `set-aside`; a failed run is kept if its retry is complete.
    ///
    /// # Errors
    /// [`ReportError`]; another command that still writes here is one.
    pub fn resume(folder: &Path) -> Result<Resumption, ReportError> {
        Results::go_on(ResultsFolder::open(folder)?)
    }

    /// The same in a folder that is open already.
    ///
    /// # Errors
    /// As of [`Results::resume`].
    pub fn go_on(folder: ResultsFolder) -> Result<Resumption, ReportError> {
        let mut session = read_session(folder.path())?;
        let (kept, set_aside) = partition_runs(folder.path(), &session.plan)?;
        session.resumed_at.push(jiff::Timestamp::now().to_string());
        session.schema_version = SESSION_SCHEMA_VERSION;
        write_session(folder.path(), &session)?;
        let report = read(folder.path())?;
        Ok(Resumption { results: Results::of(folder, report)?, kept, set_aside })
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

/// Keeps what is finished, and moves the rest out of the way.
fn partition_runs(folder: &Path, plan: &Plan) -> Result<(Vec<RunRecord>, Vec<String>), ReportError> {
    let planned = PlannedRuns::of(plan);
    let mut stored = Vec::new();
    let mut set_aside = Vec::new();
    for path in store::run_folders(folder)? {
        match store::read_run(&path) {
            Ok(timeline) if planned.have(&timeline.run) => stored.push((path, timeline.run)),
            Ok(_) => set_aside.push((path, "the plan does not ask for it".to_owned())),
            Err(error) => set_aside.push((path, error.to_string())),
        }
    }
    let key = |run: &RunRecord| (run.point.point.clone(), run.planned_repeat());
    let is_completed = |run: &RunRecord| run.outcome == Outcome::Completed;
    let finished: HashSet<_> = stored.iter().map(|(_, run)| run).filter(|run| is_completed(run)).map(key).collect();
    let (mut kept, mut counted) = (Vec::new(), HashSet::new());
    for (path, run) in stored {
        let failed = matches!(run.outcome, Outcome::Failed(_));
        if is_completed(&run) && !counted.insert(key(&run)) {
            set_aside.push((path, "another run counts as the same planned one".to_owned()));
        } else if is_completed(&run) || (failed && finished.contains(&key(&run))) {
            kept.push(run);
        } else {
            set_aside.push((path, "it did not come to its end".to_owned()));
        }
    }
    for (path, _) in &set_aside {
        store::set_aside(folder, path)?;
    }
    let kept_folders = kept.iter().map(|run: &RunRecord| store::run_folder(folder, &run.point.point, run.repeat));
    for place in [folder.to_owned(), store::runs_folder(folder)].into_iter().chain(kept_folders) {
        atomic_file::clear_leftovers(&place).map_err(|source| ReportError::Write { path: place, source })?;
    }
    let sentence = |(path, why): (PathBuf, String)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("set aside: run {name}: {why}")
    };
    Ok((kept, set_aside.into_iter().map(sentence).collect()))
}
