//! The record of a command on disk: `runs/session.json`, beside the folders of its runs.

use std::path::Path;

use super::{SESSION_SCHEMA_VERSION, SessionRecord};
use crate::measurement::timeline::seal::{Files, Opened};
use crate::measurement::timeline::store::{
    StoreError, check_version, damaged, make_folder, read_record, runs_folder, write_record,
};

/// The version before [`SESSION_SCHEMA_VERSION`], which is read as well: its record has no checksum.
pub const UNSEALED_SESSION_SCHEMA_VERSION: u32 = SESSION_SCHEMA_VERSION - 1;

const SESSION_FILE: &str = "session.json";
/// Longest record that is read. The plan of 100,000 points takes about half of it.
const MAX_SESSION_BYTES: u64 = 1 << 28;

/// Stores the session of a results folder, which is made if it is missing.
///
/// # Errors
/// [`StoreError::Io`].
pub fn write_session(results: &Path, session: &SessionRecord) -> Result<(), StoreError> {
    let folder = runs_folder(results);
    make_folder(&folder)?;
    write_record(&folder.join(SESSION_FILE), session, Files::default())
}

/// Reads the session of a results folder.
///
/// # Errors
/// [`StoreError`]; a missing file reads as a folder that is not one of results.
pub fn read_session(results: &Path) -> Result<SessionRecord, StoreError> {
    let path = runs_folder(results).join(SESSION_FILE);
    if !path.exists() {
        return Err(StoreError::NotResults { path });
    }
    let Opened { record, files } = read_record::<SessionRecord>(&path, MAX_SESSION_BYTES)?;
    let versions = [SESSION_SCHEMA_VERSION, UNSEALED_SESSION_SCHEMA_VERSION];
    check_version(record.schema_version, versions, files.is_some()).map_err(damaged(&path))?;
    Ok(record)
}
