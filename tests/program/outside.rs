//! What comes from outside, in names, files, arguments and paths, does no harm on its way to a reader.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::{bench, refused, run};

const HEADER: &str = "run,request,phase,kind,count,scheduled_ns,submitted_ns,received_ns\n";
/// Clears the screen, in both ways to write its begin, and turns the direction of writing.
const ACTIVE: [char; 3] = ['\u{1b}', '\u{9b}', '\u{202e}'];

/// A file of events of one run with this name, in CSV.
fn events(folder: &Path, name: &str) -> String {
    let rows = ["submit,4,1000,1000,", "token,1,,,6000", "finish,1,,,6000"];
    let rows: String = rows.iter().map(|row| format!("\"{name}\",1,measure,{row}\n")).collect();
    let path = folder.join("events.csv");
    fs::write(&path, HEADER.to_owned() + &rows).unwrap();
    path.display().to_string()
}

#[test]
fn names_of_a_timeline_reach_no_terminal_and_no_spreadsheet_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["=\u{1b}[2J\u{9b}2J\u{202e}`|<b>", "@SUM(1)|-1|0"] {
        let path = events(folder.path(), name);
        for format in ["table", "md", "csv", "json"] {
            let output = run(&["report", "--events", &path, "--format", format]);
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(!text.contains(ACTIVE), "{format}: {text:?}");
            match format {
                "csv" => assert!(text.lines().skip(1).all(|row| row.starts_with(['\'', '"'])), "{text}"),
                "md" => assert!(!text.contains("<b>") && !text.contains(" `"), "{text}"),
                "json" => {
                    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
                    let shown = report["runs"][0]["name"].as_str().unwrap();
                    assert_eq!(shown, name.split("|-1").next().unwrap());
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_file_of_events_that_cannot_be_read_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe\u{1b}[2J.csv");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let text = path.display().to_string();
    refused(&run(&["report", "--events", &text]), 2, &[r"pipe\u{1b}[2J.csv", "not a regular file"]);
    refused(&run(&["report", "--events", "/dev/zero"]), 2, &["not a regular file"]);
    refused(&run(&["report", "--events", "/no/such/file"]), 2, &["No such file"]);
    let path = events(folder.path(), "a").replace("events.csv", "bad.csv");
    fs::write(&path, "run,request\n").unwrap();
    refused(&run(&["report", "--events", &path]), 2, &["bad.csv:1: no column `phase`"]);
}

#[test]
fn names_of_a_configuration_reach_no_terminal_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a\u{202e}.yaml");
    let entry =
        "standalone_runs: [{name: \"a\u{202e}b\", mode: vllm_throughput, model: \"m\\e[2J\", workload: chatbot}]";
    fs::write(&path, entry).unwrap();
    let output = run(&["engine", "--dry-run", "--config", &path.display().to_string()]);
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(said.contains(r"m\u{1b}[2J") && !said.contains(ACTIVE), "{said:?}");
}

#[test]
fn an_empty_bench_python_counts_as_none() {
    let output = bench().args(["engine", "--dry-run"]).env("BENCH_PYTHON", "").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let output = bench().args(["engine", "--dry-run"]).env("BENCH_PYTHON", "/no/such/python").output().unwrap();
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.contains("/no/such/python"), "{plan}");
}

#[test]
fn more_repeats_than_a_plan_has_runs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.yaml");
    fs::write(&path, SCRIPT).unwrap();
    let engine = format!("scripted:{}", path.display());
    refused(&run(&["engine", "--dry-run", "--engine", &engine, "--repeats", "4000000000"]), 2, &["100000"]);
}

/// A path that is not UTF-8, below a folder.
fn strange(folder: &Path, ending: &str) -> PathBuf {
    folder.join(OsStr::from_bytes(&[b"\xff\xfe", ending.as_bytes()].concat()))
}

/// A script of one token, for a run that takes no time.
const SCRIPT: &str = "requests: [{first_ns: 1000000, gap_ns: 1000000, tokens: 2}]\n";

#[test]
fn arguments_and_folders_that_are_not_utf8_are_taken_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let here = strange(folder.path(), "");
    fs::create_dir(&here).unwrap();
    fs::write(here.join("script.yaml"), SCRIPT).unwrap();
    let script =
        [OsStr::new("scripted:"), here.join("script.yaml").as_os_str()].map(OsStr::to_owned).join(OsStr::new(""));
    let output = bench().args(["engine", "--out"]).arg(here.join("out")).arg("--engine").arg(&script).output().unwrap();
    refused(&output, 2, &[]);
    let output = bench()
        .current_dir(&here)
        .args(["engine", "--engine", "scripted:script.yaml", "--out"])
        .arg(strange(Path::new(""), "out"))
        .output()
        .unwrap();
    refused(&output, 2, &["not UTF-8"]);
    let missing = strange(folder.path(), ".yaml");
    let output = bench().args(["engine", "--config"]).arg(&missing).output().unwrap();
    refused(&output, 2, &["No such file"]);
    let output = bench().args(["report", "--events"]).arg(&missing).output().unwrap();
    refused(&output, 2, &["No such file"]);
    let output = bench().args(["report"]).arg(&missing).output().unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2 | 4)), "{output:?}");
}
