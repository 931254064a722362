//! Stored runs: what comes back, and what is refused.

use std::fs;
use std::path::PathBuf;

use bench::timeline::Timeline;
use bench::timeline::store::{StoreError, read_run, read_session, run_folder, stored_runs, write_run, write_session};
use tempfile::TempDir;

use super::sketch::{session, typical_run};

/// Offsets into `timeline.bin`.
const VERSION: usize = 12;
const TOKEN_BYTES: usize = 20;
const TOKENS: usize = 40;
const HEADER_BYTES: usize = 64;

/// What is done to the bytes of a file.
type Change = fn(&mut Vec<u8>);

fn stored() -> (TempDir, PathBuf, Timeline) {
    let results = tempfile::tempdir().unwrap();
    let timeline = typical_run("a", 0, 4);
    write_run(results.path(), &timeline).unwrap();
    let folder = run_folder(results.path(), "a", 0);
    (results, folder, timeline)
}

/// The message when `timeline.bin` has been changed.
fn refused(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (_results, folder, _) = stored();
    let path = folder.join("timeline.bin");
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    match read_run(&folder) {
        Err(StoreError::Damaged { path: named, problem }) => {
            assert_eq!(named, path);
            problem
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_run_comes_back_as_it_was() {
    let (results, folder, timeline) = stored();
    let read = read_run(&folder).unwrap();
    assert_eq!(read.run, timeline.run);
    assert_eq!(read.requests, timeline.requests);
    assert_eq!(read.tokens, timeline.tokens);
    assert_eq!(read.steps, timeline.steps);
    assert_eq!(stored_runs(results.path()).unwrap(), std::slice::from_ref(&folder));
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["timeline.bin", "timeline.json"]);
}

#[test]
fn a_run_without_its_record_was_never_stored() {
    let (results, folder, _) = stored();
    fs::remove_file(folder.join("timeline.json")).unwrap();
    assert_eq!(stored_runs(results.path()).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn damage_is_named() {
    let cases: [(&str, Change); 8] = [
        ("checksum", |bytes| bytes[HEADER_BYTES + 3] ^= 1),
        ("checksum", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("cut off", |bytes| bytes.truncate(bytes.len() - 1)),
        ("too few", |bytes| bytes.truncate(20)),
        ("cut off", |bytes| bytes.push(0)),
        ("not a timeline", |bytes| bytes[0] = b'X'),
        ("byte order", |bytes| bytes[8..12].reverse()),
        ("version 7", |bytes| bytes[VERSION] = 7),
    ];
    for (expected, change) in cases {
        let problem = refused(change);
        assert!(problem.contains(expected), "{problem}");
    }
    assert!(refused(|bytes| bytes[TOKEN_BYTES] = 40).contains("its records take"));
}

#[test]
fn a_count_beyond_the_file_is_refused_before_it_is_allocated() {
    for count in [u64::MAX, u64::MAX / 32, 1 << 40] {
        let problem = refused(|bytes| bytes[TOKENS..TOKENS + 8].copy_from_slice(&count.to_ne_bytes()));
        assert!(problem.contains(&format!("{count} token events")), "{problem}");
    }
}

#[test]
fn a_token_of_no_request_is_refused_though_the_checksum_is_right() {
    let (results, folder, mut timeline) = stored();
    timeline.tokens[3].request = 99;
    write_run(results.path(), &timeline).unwrap();
    let error = read_run(&folder).unwrap_err().to_string();
    assert!(error.contains("token event 3 belongs to request 99"), "{error}");
}

#[test]
fn records_of_another_version_or_none_are_refused() {
    let (_results, folder, mut timeline) = stored();
    timeline.run.schema_version = 9;
    fs::write(folder.join("timeline.json"), serde_json::to_vec(&timeline.run).unwrap()).unwrap();
    assert!(read_run(&folder).unwrap_err().to_string().contains("version 9"));
    fs::write(folder.join("timeline.json"), "{\"schema_version\": 1").unwrap();
    assert!(read_run(&folder).unwrap_err().to_string().contains("timeline.json: not what `bench` wrote"));
}

#[test]
fn a_session_comes_back_and_a_strange_folder_says_what_to_give() {
    let results = tempfile::tempdir().unwrap();
    assert!(read_session(results.path()).unwrap_err().to_string().contains("a folder that `bench engine` made"));
    let session = session(&["a", "b"]);
    write_session(results.path(), &session).unwrap();
    assert_eq!(read_session(results.path()).unwrap(), session);
}
