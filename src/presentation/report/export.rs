//! The recorded events of a results folder as files for other programs.

use std::path::{Path, PathBuf};

use super::parquet_table::ParquetTable;
use super::results::replace;
use super::run_reader::RunReader;
use super::trace::Trace;
use super::{DamagedRun, ReportError, event_tables};
use crate::measurement::results::{SessionRecord, read_session};
use crate::measurement::timeline::{Timeline, store};
use crate::presentation::exchange::csv;

const EVENTS_FILE: &str = "events.csv";
const TOKENS_FILE: &str = "tokens.parquet";
const STEPS_FILE: &str = "steps.parquet";
const TRACE_FILE: &str = "trace.json";

/// The stored runs of a results folder that cannot be read, or are not in its plan; the exports are without them.
///
/// # Errors
/// [`ReportError`]: the folder is not one of results.
pub fn damaged_runs(folder: &Path) -> Result<Vec<DamagedRun>, ReportError> {
    let session = read_session(folder)?;
    let mut reader = RunReader::of(&session);
    let mut damaged = Vec::new();
    for run in store::stored_runs(folder)? {
        damaged.extend(reader.read(&run).err().map(|error| DamagedRun::of(folder, &run, &error)));
    }
    Ok(damaged)
}

/// The runs in these folders that can be read and belong to the session, one at a time.
fn readable<'r>(session: &'r SessionRecord, runs: &'r [PathBuf]) -> impl Iterator<Item = Timeline> + 'r {
    let mut reader = RunReader::of(session);
    runs.iter().filter_map(move |run| reader.read(run).ok())
}

/// Writes `events.csv` with every event of every stored run that can be read, and gives its path.
///
/// # Errors
/// [`ReportError`].
pub fn export_csv(folder: &Path) -> Result<PathBuf, ReportError> {
    let session = read_session(folder)?;
    let path = folder.join(EVENTS_FILE);
    let runs = store::stored_runs(folder)?;
    replace(&path, |out| {
        let mut out = ::csv::Writer::from_writer(out);
        csv::write_header(&mut out).map_err(std::io::Error::other)?;
        for run in readable(&session, &runs) {
            csv::write_events(&mut out, &run).map_err(std::io::Error::other)?;
        }
        out.flush()
    })?;
    Ok(path)
}

/// Writes `tokens.parquet` and `steps.parquet`: every recorded event of a results folder. Gives their paths.
///
/// # Errors
/// As of [`export_csv`].
pub fn export_parquet(folder: &Path) -> Result<[PathBuf; 2], ReportError> {
    let paths = [TOKENS_FILE, STEPS_FILE].map(|name| folder.join(name));
    let session = read_session(folder)?;
    let runs = store::stored_runs(folder)?;
    replace(&paths[0], |out| {
        let mut table = ParquetTable::begin(out)?;
        readable(&session, &runs).try_for_each(|run| event_tables::add_tokens(&mut table, &run))?;
        table.finish()
    })?;
    replace(&paths[1], |out| {
        let mut table = ParquetTable::begin(out)?;
        readable(&session, &runs).try_for_each(|run| event_tables::add_steps(&mut table, &run))?;
        table.finish()
    })?;
    Ok(paths)
}

/// Writes `trace.json`, which Perfetto opens. Gives its path.
///
/// # Errors
/// As of [`export_csv`].
pub fn export_trace(folder: &Path) -> Result<PathBuf, ReportError> {
    let session = read_session(folder)?;
    let path = folder.join(TRACE_FILE);
    let mut runs = store::stored_runs(folder)?;
    runs.sort();
    replace(&path, |out| {
        let mut trace = Trace::begin(out)?;
        readable(&session, &runs).try_for_each(|run| trace.add(&run))?;
        trace.finish()
    })?;
    Ok(path)
}
