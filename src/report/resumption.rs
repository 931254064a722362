//! Going on with the results of a command that ended early.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::results::{read, write_summary};
use super::{ReportError, Results};
use crate::atomic_file;
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
    /// Opens the results of a command that ended early. Runs that did not come to their end, or are damaged, are moved into
    /// the folder `set-aside`; a failed one is kept if it was measured anew.
    ///
    /// # Errors
    /// [`ReportError`]; another command that still writes here is one.
    pub fn resume(folder: &Path) -> Result<Resumption, ReportError> {
        let lock = lock(folder)?;
        let mut session = store::read_session(folder)?;
        let (kept, set_aside) = sort_out(folder)?;
        session.resumed_at.push(jiff::Timestamp::now().to_string());
        store::write_session(folder, &session)?;
        let results = Results { folder: folder.to_owned(), report: read(folder)?, _lock: lock };
        write_summary(&results.folder, &results.report)?;
        Ok(Resumption { results, kept, set_aside })
    }
}

/// Only one command at a time writes into a results folder.
pub(super) fn lock(folder: &Path) -> Result<File, ReportError> {
    let io = |source| ReportError::Write { path: folder.to_owned(), source };
    let lock = File::open(folder).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ReportError::InUse { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Keeps what is finished, and moves the rest out of the way.
fn sort_out(folder: &Path) -> Result<(Vec<RunRecord>, Vec<String>), ReportError> {
    let mut stored = Vec::new();
    let mut set_aside = Vec::new();
    for run in store::run_folders(folder)? {
        match store::read_run(&run) {
            Ok(timeline) => stored.push((run, timeline.run)),
            Err(error) => set_aside.push((run, error.to_string())),
        }
    }
    let finished = |run: &RunRecord| {
        let planned = |run: &RunRecord| (run.point.point.clone(), run.planned_repeat());
        let same = |other: &RunRecord| planned(other) == planned(run);
        stored.iter().any(|(_, other)| other.outcome == Outcome::Completed && same(other))
    };
    let mut kept = Vec::new();
    for (path, run) in &stored {
        let failed = matches!(run.outcome, Outcome::Failed(_));
        if run.outcome == Outcome::Completed || (failed && finished(run)) {
            kept.push(run.clone());
        } else {
            set_aside.push((path.clone(), "it did not come to its end".to_owned()));
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
