//! Several device classes in one command, each with a sidecar of its own. Scripted engines stand in for devices that are not
//! here.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::running::{Traces, children, send};
use crate::{bench, refused, summary, wait_for};

/// A sweep of two points on each of two classes, in `folder`.
fn sweep(folder: &Path, defaults: &str, repeats: u32, tokens: u32) {
    let script = "requests: [{first_ns: 2000000, gap_ns: 1000000}]";
    fs::write(folder.join("script.yaml"), script).unwrap();
    let config = format!(
        "defaults: {{{defaults}}}\nstandalone_runs:\n  - {{name: t, mode: vllm_throughput, args: --model some/model, repeats: \
         {repeats}, output_len: {tokens}, input_len: 16, matrix: {{device: [cpu, cuda], num_prompts: [2, 3]}}}}\n"
    );
    fs::write(folder.join("sweep.yaml"), config).unwrap();
}

fn command(folder: &Path, more: &[&str]) -> Command {
    let of = |name: &str| folder.join(name).display().to_string();
    let engine = format!("scripted:{}", of("script.yaml"));
    let mut command = bench();
    command.args(["engine", "--engine", &engine, "--config", &of("sweep.yaml"), "--own-sidecar"]).args(more);
    command.stdout(Stdio::null());
    command
}

fn measure(folder: &Path, more: &[&str]) -> Output {
    command(folder, more).output().unwrap()
}

/// The device class of each run, in the order of execution, and how many engine loads there were.
fn turns(report: &Value) -> (Vec<String>, usize) {
    let mut runs: Vec<&Value> = report["runs"].as_array().unwrap().iter().collect();
    runs.sort_by_key(|run| run["order"].as_u64());
    assert!(runs.iter().all(|run| run["status"] == "valid"), "{runs:?}");
    let loads = runs.iter().filter(|run| run["engine_load_s"].as_f64().unwrap() > 0.0).count();
    (runs.iter().map(|run| run["device"].as_str().unwrap().to_owned()).collect(), loads)
}

#[test]
fn one_class_is_measured_after_the_other_on_sidecars_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    sweep(folder.path(), "sentinel: none", 3, 4);
    let out = folder.path().join("out");
    let output = measure(folder.path(), &["--out", &out.display().to_string()]);
    refused(&output, 0, &["4 points, 12 runs, 2 engine loads", "Engine 2 of 2 (device cpu -> cuda)"]);
    let report = summary(&out);
    let (turns, loads) = turns(&report);
    assert_eq!(
        (turns, loads),
        ([vec!["cpu"; 6], vec!["cuda"; 6]].concat().iter().map(ToString::to_string).collect(), 2)
    );
    let sidecars = &report["environment"]["sidecars"];
    let pid = |class: &str| sidecars[class]["hello"]["pid"].as_u64().unwrap();
    assert_ne!(pid("cpu"), pid("cuda"));
    assert!(out.join("sidecar-cpu.log").exists() && out.join("sidecar-cuda.log").exists());
}

#[test]
fn classes_take_turns_on_engines_that_stay_loaded_and_never_measure_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    sweep(folder.path(), "interleave_devices: true", 4, 4);
    let out = folder.path().join("out");
    let dir = out.display().to_string();
    refused(&measure(folder.path(), &["--out", &dir]), 0, &["2 engine loads", "all of them stay loaded"]);
    let (turns, loads) = turns(&summary(&out));
    let changes = turns.windows(2).filter(|both| both[0] != both[1]).count();
    assert!(loads == 2 && turns.len() == 16 && changes > 3, "{turns:?}, {loads} loads");

    assert!(bench().args(["export", &dir, "--csv"]).output().unwrap().status.success());
    let mut rows = csv::Reader::from_path(out.join("events.csv")).unwrap();
    let header = rows.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|column| column == name).unwrap();
    let (run, received) = (column("run"), column("received_ns"));
    let mut events: Vec<(u64, String)> = rows
        .records()
        .map(Result::unwrap)
        .filter_map(|row| Some((row[received].parse().ok()?, row[run].to_owned())))
        .collect();
    events.sort();
    let order: Vec<&String> = events.chunk_by(|one, next| one.1 == next.1).map(|events| &events[0].1).collect();
    assert_eq!(order.len(), order.iter().collect::<BTreeSet<_>>().len(), "runs overlap: {order:?}");
    assert_eq!(order.len(), 16);
}

#[test]
fn of_two_loaded_engines_one_that_is_killed_is_loaded_anew() {
    let folder = tempfile::tempdir().unwrap();
    sweep(folder.path(), "interleave_devices: true", 8, 100);
    let out = folder.path().join("out");
    let (traces, said) = (Traces::new(), folder.path().join("said"));
    let mut command = command(folder.path(), &["--out", &out.display().to_string()]);
    let mut child = traces.leave_on(command.stderr(File::create(&said).unwrap())).spawn().unwrap();
    let said = || fs::read_to_string(&said).unwrap();
    wait_for("four finished runs", || {
        assert!(child.try_wait().unwrap().is_none(), "{}", said());
        said().matches(" valid, ").count() >= 4
    });
    let sidecars = children(child.id());
    assert_eq!(sidecars.len(), 2, "{}", said());
    let engine = children(sidecars[0])[0];
    send("-9", &engine.to_string());
    assert_eq!(child.wait().unwrap().code(), Some(1), "{}", said());
    traces.wait_until_gone();
    let report = summary(&out);
    let runs = report["runs"].as_array().unwrap();
    let count = |status: &str| runs.iter().filter(|run| run["status"] == status).count();
    assert_eq!((count("valid"), count("failed")), (32, 1), "{}", said());
    let loads = runs.iter().filter(|run| run["engine_load_s"].as_f64().unwrap() > 0.0).count();
    assert_eq!(loads, 3, "{}", said());
}
