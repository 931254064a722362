//! Going on with the results of a command that ended early.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::results::read;
use super::run_reader::RunReader;
use super::{ReportError, Results, ResultsFolder};
use crate::base::atomic_file;
use crate::measurement::results::{SESSION_SCHEMA_VERSION, SessionRecord, read_session, write_session};
use crate::measurement::timeline::store;
use crate::measurement::timeline::{Outcome, RunRecord};

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
        let (kept, set_aside) = partition_runs(folder.path(), &session)?;
        session.resumed_at.push(jiff::Timestamp::now().to_string());
        session.schema_version = SESSION_SCHEMA_VERSION;
        write_session(folder.path(), &session)?;
        let report = read(folder.path())?;
        Ok(Resumption { results: Results::of(folder, report)?, kept, set_aside })
    }
}

/// Keeps what is finished, and moves the rest out of the way.
fn partition_runs(folder: &Path, session: &SessionRecord) -> Result<(Vec<RunRecord>, Vec<String>), ReportError> {
    let mut reader = RunReader::of(session);
    let mut stored = Vec::new();
    let mut set_aside = Vec::new();
    for path in store::run_folders(folder)? {
        match reader.read(&path) {
            Ok(timeline) => stored.push((path, timeline.run)),
            Err(error) => set_aside.push((path, error.to_string())),
        }
    }
    let key = |run: &RunRecord| (run.point.point.clone(), run.planned_repeat());
    let is_completed = |run: &RunRecord| run.outcome == Outcome::Completed;
    let finished: HashSet<_> = stored.iter().map(|(_, run)| run).filter(|run| is_completed(run)).map(key).collect();
    let mut kept = Vec::new();
    for (path, run) in stored {
        let failed = matches!(run.outcome, Outcome::Failed(_));
        if is_completed(&run) || (failed && finished.contains(&key(&run))) {
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
