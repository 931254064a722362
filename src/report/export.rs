//! The recorded events of a results folder as files for other programs.

use std::path::{Path, PathBuf};

use super::parquet_table::ParquetTable;
use super::results::{Failure, replace};
use super::trace::Trace;
use super::{DamagedRun, ReportError, event_tables};
use crate::exchange::csv;
use crate::results::read_session;
use crate::timeline::{Timeline, store};

const EVENTS_FILE: &str = "events.csv";
const TOKENS_FILE: &str = "tokens.parquet";
const STEPS_FILE: &str = "steps.parquet";
const TRACE_FILE: &str = "trace.json";

/// The stored runs of a results folder that cannot be read; the exports are without them.
///
/// # Errors
/// [`ReportError`]: the folder is not one of results.
pub fn damaged_runs(folder: &Path) -> Result<Vec<DamagedRun>, ReportError> {
    read_session(folder)?;
    let problem = |run: &PathBuf| Some(DamagedRun::of(folder, run, &store::read_run(run).err()?));
    Ok(store::stored_runs(folder)?.iter().filter_map(problem).collect())
}

/// The stored runs in these folders that can be read, one at a time.
fn readable(runs: &[PathBuf]) -> impl Iterator<Item = Timeline> + '_ {
    runs.iter().filter_map(|run| store::read_run(run).ok())
}

/// Writes `events.csv` with every event of every stored run that can be read, and gives its path.
///
/// # Errors
/// [`ReportError`].
pub fn export_csv(folder: &Path) -> Result<PathBuf, ReportError> {
    read_session(folder)?;
    let path = folder.join(EVENTS_FILE);
    let runs = store::stored_runs(folder)?;
    replace(&path, |out| {
        let mut out = ::csv::Writer::from_writer(out);
        csv::write_header(&mut out).map_err(std::io::Error::other)?;
        for run in readable(&runs) {
            csv::write_events(&mut out, &run).map_err(std::io::Error::other)?;
        }
        Ok(out.flush()?)
    })?;
    Ok(path)
}

/// Writes `tokens.parquet` and `steps.parquet`: every recorded event of a results folder. Gives their paths.
///
/// # Errors
/// As of [`export_csv`].
pub fn export_parquet(folder: &Path) -> Result<[PathBuf; 2], ReportError> {
    let paths = [TOKENS_FILE, STEPS_FILE].map(|name| folder.join(name));
    read_session(folder)?;
    let runs = store::stored_runs(folder)?;
    replace(&paths[0], |out| {
        let mut table = ParquetTable::begin(out)?;
        readable(&runs).try_for_each(|run| Ok::<_, Failure>(event_tables::add_tokens(&mut table, &run)?))?;
        Ok(table.finish()?)
    })?;
    replace(&paths[1], |out| {
        let mut table = ParquetTable::begin(out)?;
        readable(&runs).try_for_each(|run| Ok::<_, Failure>(event_tables::add_steps(&mut table, &run)?))?;
        Ok(table.finish()?)
    })?;
    Ok(paths)
}

/// Writes `trace.json`, which Perfetto opens. Gives its path.
///
/// # Errors
/// As of [`export_csv`].
pub fn export_trace(folder: &Path) -> Result<PathBuf, ReportError> {
    read_session(folder)?;
    let path = folder.join(TRACE_FILE);
    let mut runs = store::stored_runs(folder)?;
    runs.sort();
    replace(&path, |out| {
        let mut trace = Trace::begin(out)?;
        readable(&runs).try_for_each(|run| Ok::<_, Failure>(trace.add(&run)?))?;
        Ok(trace.finish()?)
    })?;
    Ok(path)
}
