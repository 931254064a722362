//! The recorded events of a results folder as files for other programs.

use std::path::{Path, PathBuf};

use super::parquet_table::ParquetTable;
use super::results::{Failure, replace};
use super::trace::Trace;
use super::{ReportError, event_tables};
use crate::timeline::{csv, store};

const EVENTS_FILE: &str = "events.csv";
const TOKENS_FILE: &str = "tokens.parquet";
const STEPS_FILE: &str = "steps.parquet";
const TRACE_FILE: &str = "trace.json";

/// Writes `events.csv` with every event of every stored run, and gives its path.
///
/// # Errors
/// [`ReportError`].
pub fn export_csv(folder: &Path) -> Result<PathBuf, ReportError> {
    store::read_session(folder)?;
    let path = folder.join(EVENTS_FILE);
    let runs = store::stored_runs(folder)?;
    replace(&path, |out| {
        let mut out = ::csv::Writer::from_writer(out);
        csv::write_header(&mut out).map_err(std::io::Error::other)?;
        for run in &runs {
            csv::write_events(&mut out, &store::read_run(run)?).map_err(std::io::Error::other)?;
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
    store::read_session(folder)?;
    let runs = store::stored_runs(folder)?;
    replace(&paths[0], |out| {
        let mut table = ParquetTable::begin(out)?;
        runs.iter()
            .try_for_each(|run| Ok::<_, Failure>(event_tables::add_tokens(&mut table, &store::read_run(run)?)?))?;
        Ok(table.finish()?)
    })?;
    replace(&paths[1], |out| {
        let mut table = ParquetTable::begin(out)?;
        runs.iter()
            .try_for_each(|run| Ok::<_, Failure>(event_tables::add_steps(&mut table, &store::read_run(run)?)?))?;
        Ok(table.finish()?)
    })?;
    Ok(paths)
}

/// Writes `trace.json`, which Perfetto opens. Gives its path.
///
/// # Errors
/// As of [`export_csv`].
pub fn export_trace(folder: &Path) -> Result<PathBuf, ReportError> {
    store::read_session(folder)?;
    let path = folder.join(TRACE_FILE);
    let mut runs = store::stored_runs(folder)?;
    runs.sort();
    replace(&path, |out| {
        let mut trace = Trace::begin(out)?;
        runs.iter().try_for_each(|run| Ok::<_, Failure>(trace.add(&store::read_run(run)?)?))?;
        Ok(trace.finish()?)
    })?;
    Ok(path)
}
