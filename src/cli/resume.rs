//! `--resume DIR`: the results of a sweep that ended early, and what is left of it.

use std::path::Path;

use super::error::CliError;
use super::screen::Screen;
use crate::measurement::results::{SessionRecord, read_session};
use crate::measurement::session::Earlier;
use crate::presentation::report::{Results, ResultsFolder};
use crate::question::fingerprint::Fingerprint;

/// What was measured with in a results folder.
///
/// # Errors
/// A folder that is not one of results.
pub(super) fn session(folder: &Path) -> Result<SessionRecord, CliError> {
    read_session(folder)
        .map_err(|error| CliError::NotResumable { folder: folder.to_owned(), problem: error.to_string() })
}

/// Opens the results of a sweep that `own` stands for, too.
///
/// # Errors
/// A folder that is not one of results, or results of something else, with what differs.
pub(super) fn open(folder: &ResultsFolder, own: &Fingerprint, screen: &Screen) -> Result<(Results, Earlier), CliError> {
    let refuse = |problem: String| Err(CliError::NotResumable { folder: folder.path().to_owned(), problem });
    let session = session(folder.path())?;
    let Some(stored) = session.fingerprint else {
        return refuse("it was measured by a version that did not keep what this has to be compared with".to_owned());
    };
    let differences = stored.differences(own);
    if !differences.is_empty() {
        return refuse(format!(
            "since then there has changed: {}; runs from before and after do not belong in one result. Give what was \
             given then (`runs/session.json` has its plan and command), or measure into another folder",
            differences.join("; ")
        ));
    }
    let resumption = Results::go_on(folder.clone())?;
    let mut earlier = Earlier::default();
    resumption.kept.iter().for_each(|run| earlier.add(run));
    resumption.set_aside.iter().for_each(|sentence| screen.say(sentence));
    screen.say(&format!("{} of {} runs are there already", earlier.num_finished(), session.plan.num_runs()));
    Ok((resumption.results, earlier))
}
