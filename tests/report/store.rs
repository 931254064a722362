//! Stored runs: what comes back, and what is refused.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bench::measurement::results::{read_session, write_session};
use bench::measurement::telemetry::{DeviceKind, Sample, SampledDevice, TelemetryRecord};
use bench::measurement::timeline::store::{
    RUN_SCHEMA_VERSION, StoreError, UNSEALED_RUN_SCHEMA_VERSION, read_run, run_folder, stored_runs, write_run,
};
use bench::measurement::timeline::{Hiccup, Outcome, Timeline};
use bench::presentation::report::{Report, Results, damaged_runs, read};
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::sketch::{session, session_with, typical_run};

/// Offsets into `timeline.bin`.
const VERSION: usize = 12;
const TOKEN_BYTES: usize = 20;
const TOKENS: usize = 40;
const HEADER_BYTES: usize = 64;
const BYTES_OF_A_TOKEN: u64 = 32;

/// What is done to the bytes of a file.
type Change = fn(&mut Vec<u8>);

fn stored() -> (TempDir, PathBuf, Timeline) {
    let results = tempfile::tempdir().unwrap();
    let mut timeline = typical_run("a", 0, 4);
    timeline.hiccups = vec![Hiccup { began_ns: 1, ended_ns: 9_001 }];
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
    assert_eq!(read.hiccups, timeline.hiccups);
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
        ("cut off", |bytes| bytes.truncate(20)),
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
    let (_results, folder, _) = stored();
    as_unsealed(&folder, |record| drop(record.insert("schema_version".to_owned(), 9.into())));
    assert!(read_run(&folder).unwrap_err().to_string().contains("version 9"));
    as_unsealed(&folder, |record| drop(record.insert("schema_version".to_owned(), RUN_SCHEMA_VERSION.into())));
    assert!(read_run(&folder).unwrap_err().to_string().contains("it has no checksum"), "its last lines were cut off");
    fs::write(folder.join("timeline.json"), "{\"schema_version\": 1").unwrap();
    assert!(read_run(&folder).unwrap_err().to_string().contains("timeline.json: not what `bench` wrote"));
}

#[test]
fn an_unknown_key_in_a_record_without_a_checksum_is_refused() {
    let (_results, folder, _) = stored();
    as_unsealed(&folder, |record| {
        let point = record["point"].as_object_mut().unwrap();
        let hz = point.remove("telemetry_hz").unwrap();
        point.insert("telemetry_hy".to_owned(), hz);
    });
    let error = read_run(&folder).unwrap_err().to_string();
    assert!(error.contains("unknown key `point.telemetry_hy`"), "{error}");
}

#[test]
fn record_of_more_than_4_mib_is_refused_unread() {
    let (_results, folder, _) = stored();
    let record = folder.join("timeline.json");
    assert!(fs::metadata(&record).unwrap().len() < 1 << 14, "a record has some kilobytes");
    let file = fs::File::options().write(true).open(&record).unwrap();
    for (length, is_read) in [(4 << 20, true), ((4 << 20) + 1, false)] {
        file.set_len(length).unwrap();
        let problem = read_run(&folder).unwrap_err().to_string();
        assert_eq!(
            !problem.contains("its 4194305 bytes are more than the 4194304 that are read"),
            is_read,
            "{problem}"
        );
    }
}

#[test]
fn a_sparse_file_of_terabytes_is_refused_before_anything_is_allocated_for_it() {
    let (_results, folder, _) = stored();
    let file = fs::File::options().read(true).write(true).open(folder.join("timeline.bin")).unwrap();
    let (length, mut tokens) = (file.metadata().unwrap().len(), [0; 8]);
    file.read_exact_at(&mut tokens, TOKENS as u64).unwrap();
    let more = (1 << 42) / BYTES_OF_A_TOKEN;
    file.write_all_at(&(u64::from_ne_bytes(tokens) + more).to_ne_bytes(), TOKENS as u64).unwrap();
    // Not all file systems take one so long.
    if file.set_len(length + (1 << 42)).is_err() {
        return;
    }
    let error = read_run(&folder).unwrap_err().to_string();
    assert!(error.contains("that were written"), "{error}");
    // Where the kernel promises more memory than there is, nobody can tell.
    if fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap().trim() != "1" {
        as_unsealed(&folder, |_| ());
        let error = read_run(&folder).unwrap_err().to_string();
        assert!(error.contains("there is no memory for its"), "{error}");
    }
}

#[test]
fn pipes_in_place_of_files_are_refused_without_waiting() {
    for name in ["timeline.json", "timeline.bin", "telemetry.bin"] {
        let results = small_results();
        let folder = run_folder(results.path(), "a", 0);
        fs::remove_file(folder.join(name)).unwrap();
        nix::unistd::mkfifo(&folder.join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read_run(&folder).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("a pipe, not a regular file"), "{error}");
    }
}

#[test]
fn a_label_that_is_no_name_of_a_folder_is_not_stored() {
    let results = tempfile::tempdir().unwrap();
    for label in ["../a", "", "a/b", ".a", "/tmp/a"] {
        let error = write_run(results.path(), &typical_run(label, 0, 1)).unwrap_err().to_string();
        assert!(error.contains("is no label of a point"), "{error}");
    }
    assert!(!results.path().join("runs").exists());
}

/// Two runs of a point with telemetry, as small as they can be.
fn small_results() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let session = session_with(&["a"], |point| point.num_prompts = 2);
    let mut results = Results::create(folder.path(), &session).unwrap();
    for repeat in 0..2 {
        results.add(&sampled(repeat)).unwrap();
    }
    folder
}

fn sampled(repeat: u32) -> Timeline {
    let mut timeline = typical_run("a", repeat, 2);
    timeline.run.telemetry = Some(TelemetryRecord {
        rate_hz: 10,
        devices: vec![SampledDevice { kind: DeviceKind::Host, name: "host".to_owned() }],
        sources: vec!["/proc".to_owned()],
        missing: Vec::new(),
        cpu_ns: 1,
        wall_ns: 2,
        not_pinned: None,
    });
    timeline.telemetry = vec![Sample::unknown(0, 10_000_000 + u64::from(repeat))];
    timeline
}

/// The record of a run as the version before stored it, with a change.
pub fn as_unsealed(folder: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = folder.join("timeline.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let fields = record.as_object_mut().unwrap();
    for key in ["stored_files", "sha256"] {
        fields.remove(key);
    }
    fields.insert("schema_version".to_owned(), UNSEALED_RUN_SCHEMA_VERSION.into());
    change(fields);
    fs::write(path, record.to_string()).unwrap();
    let events = fs::File::options().read(true).write(true).open(folder.join("timeline.bin")).unwrap();
    let length = events.metadata().unwrap().len();
    if length > 1 << 30 {
        return events.write_all_at(&UNSEALED_RUN_SCHEMA_VERSION.to_ne_bytes(), VERSION as u64).unwrap();
    }
    let mut bytes = fs::read(folder.join("timeline.bin")).unwrap();
    bytes[VERSION..VERSION + 4].copy_from_slice(&UNSEALED_RUN_SCHEMA_VERSION.to_ne_bytes());
    let content = bytes.len() - 4;
    let crc32 = crc32fast::hash(&bytes[..content]);
    bytes[content..].copy_from_slice(&crc32.to_ne_bytes());
    fs::write(folder.join("timeline.bin"), bytes).unwrap();
}

/// What a report says with a file changed: the damaged runs, and the report without their names.
fn without_damage(mut report: Report) -> (Vec<String>, Report) {
    let damaged = std::mem::take(&mut report.damaged);
    (damaged.into_iter().map(|run| run.run).collect(), report)
}

#[test]
fn no_flipped_bit_of_a_stored_run_changes_the_report_unnoticed() {
    let results = small_results();
    let sound = read(results.path()).unwrap();
    assert!(sound.damaged.is_empty() && sound.unsealed_records == 0);
    let folder = run_folder(results.path(), "a", 1);
    let mut refused = 0;
    for (name, step) in [("timeline.json", 1), ("timeline.bin", 7), ("telemetry.bin", 5)] {
        let path = folder.join(name);
        let bytes = fs::read(&path).unwrap();
        for bit in (0..8 * bytes.len()).step_by(step) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, changed).unwrap();
            match read_run(&folder) {
                Err(error) => assert!(error.path() == path, "{error}"),
                Ok(_) => panic!("bit {bit} of {name}"),
            }
            refused += 1;
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(refused > 10_000, "{refused}");
    assert_eq!(read(results.path()).unwrap(), sound);
}

#[test]
fn no_flipped_bit_of_the_session_changes_the_report_unnoticed() {
    let results = small_results();
    let path = results.path().join("runs/session.json");
    let bytes = fs::read(&path).unwrap();
    for bit in 0..8 * bytes.len() {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, changed).unwrap();
        assert!(matches!(read_session(results.path()), Err(StoreError::Damaged { .. })), "bit {bit}");
    }
}

#[test]
fn files_of_another_run_a_copied_and_a_renamed_folder_are_named_and_the_rest_is_reported() {
    let swapped: fn(&Path, &Path, &str) = |a, b, name| {
        let [one, other] = [a, b].map(|folder| fs::read(folder.join(name)).unwrap());
        fs::write(a.join(name), other).unwrap();
        fs::write(b.join(name), one).unwrap();
    };
    for (names, damaged) in [
        (&["timeline.bin"][..], &["a-0", "a-1"][..]),
        (&["telemetry.bin"], &["a-0", "a-1"]),
        (&["timeline.json"], &["a-0", "a-1"]),
        (&["timeline.json", "timeline.bin", "telemetry.bin"], &["a-0", "a-1"]),
    ] {
        let results = small_results();
        let [one, other] = [0, 1].map(|repeat| run_folder(results.path(), "a", repeat));
        names.iter().for_each(|name| swapped(&one, &other, name));
        assert_eq!(without_damage(read(results.path()).unwrap()).0, damaged, "{names:?}");
    }
    let results = small_results();
    let sound = read(results.path()).unwrap();
    let copy = run_folder(results.path(), "a", 2);
    fs::create_dir(&copy).unwrap();
    for name in ["timeline.json", "timeline.bin", "telemetry.bin"] {
        fs::copy(run_folder(results.path(), "a", 1).join(name), copy.join(name)).unwrap();
    }
    let (damaged, report) = without_damage(read(results.path()).unwrap());
    assert_eq!(damaged, ["a-2"]);
    assert_eq!(report.runs, sound.runs, "each run counts once");
}

/// Copies the folder of a run from other results.
fn copy_run(from: &Path, to: &Path, name: &str) {
    let [from, to] = [from, to].map(|results| results.join("runs").join(name));
    fs::create_dir(&to).unwrap();
    for file in ["timeline.json", "timeline.bin"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

/// What a report says of a run that is not of its results.
fn refusal(results: &Path) -> (String, String, usize) {
    let report = read(results).unwrap();
    let [damaged] = &report.damaged[..] else { panic!("{:?}", report.damaged) };
    assert_eq!(damaged_runs(results).unwrap(), report.damaged, "the exports are without it");
    (damaged.run.clone(), damaged.problem.clone(), report.runs.len())
}

#[test]
fn run_that_was_copied_from_other_results_of_the_same_plan_counts_nowhere() {
    let [own, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let measure = |folder: &Path, failed: Option<u32>, repeats: &[(u32, Option<u32>)]| {
        let mut results = Results::create(folder, &session(&["a"])).unwrap();
        for (repeat, retry_of) in repeats {
            let mut run = typical_run("a", *repeat, 8);
            run.run.retry_of = *retry_of;
            if failed == Some(*repeat) {
                run.run.outcome = Outcome::Failed("the engine exited".to_owned());
            }
            results.add(&run).unwrap();
        }
    };
    measure(own.path(), None, &[0, 1, 2, 3, 4].map(|repeat| (repeat, None)));
    measure(other.path(), Some(2), &[(2, None), (5, Some(2)), (9, None)]);
    let whole = read(other.path()).unwrap();
    let [(run, problem, runs)] = [refusal(other.path())];
    assert_eq!((run.as_str(), runs, whole.points[0].num_valid), ("a-9", 2, 1), "the retry is asked for");
    assert_eq!(problem, "it is not in the plan of this results folder");

    copy_run(other.path(), own.path(), "a-5");
    let (run, problem, runs) = refusal(own.path());
    assert_eq!((run.as_str(), runs), ("a-5", 5));
    assert_eq!(problem, "another run counts as the same planned one");
    fs::remove_dir_all(own.path().join("runs/a-5")).unwrap();
    copy_run(other.path(), own.path(), "a-9");
    assert_eq!(refusal(own.path()).0, "a-9");
    let report = read(own.path()).unwrap();
    assert_eq!((report.points[0].num_valid, report.num_missing()), (5, 0));
}

#[test]
fn run_without_a_checksum_is_refused_among_results_that_have_them_all() {
    let results = tempfile::tempdir().unwrap();
    let mut session = session(&["a"]);
    let mut sweep = Results::create(results.path(), &session).unwrap();
    for repeat in 0..2 {
        sweep.add(&typical_run("a", repeat, 8)).unwrap();
    }
    drop(sweep);
    as_unsealed(&run_folder(results.path(), "a", 1), |_| ());
    let (run, problem, runs) = refusal(results.path());
    assert_eq!((run.as_str(), runs), ("a-1", 1));
    assert!(problem.starts_with("it has no checksum, which every run of this results folder has"), "{problem}");
    session.resumed_at.push("2026-01-02T00:00:00Z".to_owned());
    write_session(results.path(), &session).unwrap();
    let report = read(results.path()).unwrap();
    assert_eq!((report.runs.len(), report.unsealed_records), (2, 1), "of the version that began the sweep");
}

#[test]
fn run_that_cannot_be_read_any_more_at_the_end_costs_no_file_of_the_report() {
    let results = tempfile::tempdir().unwrap();
    let mut sweep = Results::create(results.path(), &session(&["a"])).unwrap();
    for repeat in 0..5 {
        sweep.add(&typical_run("a", repeat, 8)).unwrap();
    }
    fs::write(run_folder(results.path(), "a", 3).join("timeline.bin"), "torn").unwrap();
    let (report, written) = sweep.close();
    written.unwrap();
    assert_eq!((report.runs.len(), report.damaged.len(), report.damaged[0].run.as_str()), (5, 1, "a-3"));
    let summary: Value =
        serde_json::from_slice(&fs::read(results.path().join("summary_report.json")).unwrap()).unwrap();
    assert_eq!(summary["damaged"][0]["run"], "a-3");
    for name in ["requests.parquet", "report.html", "itl_cdf.svg"] {
        assert!(results.path().join(name).exists(), "{name}");
    }
}

#[test]
fn results_of_the_version_before_give_the_same_numbers_and_a_note() {
    let report = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report/stored-2")).unwrap();
    assert!(report.damaged.is_empty(), "{:?}", report.damaged);
    assert_eq!((report.unsealed_records, report.exit_status()), (3, 0));
    let value = |run: usize, name: &str| {
        report.runs[run].values.get(bench::analysis::metrics::Metric::named(name).unwrap()).unwrap()
    };
    let expected = [
        ("elapsed_s", [0.007722016, 0.011825763]),
        ("avg_ttft_s", [0.001713122, 0.0017100573333333332]),
        ("p50_ttft_s", [0.002046139, 0.002043174]),
        ("avg_itl_s", [0.0014278656666666667, 0.002340502888888889]),
        ("p99_itl_s", [0.004675898, 0.008782605]),
        ("avg_e2e_s", [0.005996719, 0.008731566]),
        ("output_tokens_per_s", [1553.9983341137859, 1014.7336793406058]),
    ];
    for (name, values) in expected {
        assert_eq!([value(0, name), value(1, name)], values, "{name}");
    }
    let text = bench::presentation::report::table(&report, bench::presentation::report::TableFormat::Table, false);
    assert!(text.contains("3 stored records are of a version without a checksum"), "{text}");
}

#[test]
fn a_session_comes_back_and_a_strange_folder_says_what_to_give() {
    let results = tempfile::tempdir().unwrap();
    assert!(read_session(results.path()).unwrap_err().to_string().contains("a folder that `bench engine` made"));
    let session = session(&["a", "b"]);
    write_session(results.path(), &session).unwrap();
    assert_eq!(read_session(results.path()).unwrap(), session);
}
