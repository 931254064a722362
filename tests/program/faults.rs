//! What is kept, said and left behind when something goes wrong.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::running::{Running, Traces, send};
use crate::{ARGS, bench, config, one_engine, refused, run, summary};

/// Of each status, how many runs have it.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    valid: usize,
    failed: usize,
    skipped: usize,
    all: usize,
}

fn counts(runs: &[Value]) -> Counts {
    let count = |status: &str| runs.iter().filter(|run| run["status"] == status).count();
    Counts { valid: count("valid"), failed: count("failed"), skipped: count("skipped"), all: runs.len() }
}

fn runs(out: &Path) -> Vec<Value> {
    summary(out)["runs"].as_array().unwrap().clone()
}

/// The reason of the runs with this status, which must be one and the same.
#[track_caller]
fn reason(runs: &[Value], status: &str) -> String {
    let mut reasons: Vec<&Value> =
        runs.iter().filter(|run| run["status"] == status).map(|run| &run["reasons"]).collect();
    reasons.dedup();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons[0][0].as_str().unwrap().to_owned()
}

/// The cause stands in two lines, however many runs did not begin because of it.
#[track_caller]
fn said_of_the_run_and_of_the_command(output: &Output, cause: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches(cause).count(), 2, "{said}");
}

#[test]
fn a_killed_engine_ends_the_sweep_with_each_run_that_did_not_begin_listed_once() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let lengths = "    num_prompts: 8\n    repeats: 6\n    length_configs: [{input_len: 64, output_len: 400}]\n";
    let args = ARGS.replace("2048", "1024");
    let second = format!("  - name: second\n    mode: vllm_throughput\n    args: {args}\n");
    let file = config(folder.path(), ARGS, &format!("{lengths}{second}{lengths}"));
    let running = Running::begin(&file, &folder.path().join("out"));
    // Between two runs, or at the begin of one: neither may hide the cause.
    send("-9", &running.engine.to_string());
    let out = running.out.clone();
    let output = running.ended();
    refused(&output, 1, &["2 engine loads", "error: the engine process was killed by SIGKILL"]);
    said_of_the_run_and_of_the_command(&output, "was killed by SIGKILL");

    let runs = runs(&out);
    let counts = counts(&runs);
    let skipped = 12 - 1 - counts.valid;
    assert!(counts.valid >= 1, "{runs:?}");
    assert_eq!(counts, Counts { failed: 1, skipped, all: 12, ..counts });
    assert!(reason(&runs, "failed").starts_with("the engine process was killed by SIGKILL"), "{runs:?}");
    assert!(reason(&runs, "skipped").starts_with("not run: the engine process was killed by SIGKILL"), "{runs:?}");
    let mut of_second: Vec<u64> = runs.iter().filter(|run| run["name"] == "second").map(repeat).collect();
    of_second.sort_unstable();
    assert_eq!(of_second, [0, 1, 2, 3, 4, 5]);
}

fn repeat(run: &Value) -> u64 {
    run["repeat"].as_u64().unwrap()
}

#[test]
fn a_killed_sidecar_takes_its_engine_along_and_is_named() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 6\n    length_configs: [{input_len: 64, output_len: 400}]\n";
    let running = Running::begin(&config(folder.path(), ARGS, rest), &folder.path().join("out"));
    running.wait_until_stepping();
    send("-9", &running.sidecar.to_string());
    let out = running.out.clone();
    let output = running.ended();
    refused(&output, 1, &["error: the sidecar was killed by SIGKILL"]);
    said_of_the_run_and_of_the_command(&output, "was killed by SIGKILL");
    let runs = runs(&out);
    let counts = counts(&runs);
    assert!(counts.valid >= 1, "{runs:?}");
    assert_eq!(counts, Counts { failed: 1, skipped: 6 - 1 - counts.valid, all: 6, ..counts });
    assert!(reason(&runs, "failed").starts_with("the sidecar was killed by SIGKILL"), "{runs:?}");
}

#[test]
fn one_interrupt_finishes_the_run_and_a_killed_harness_leaves_nothing_running() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 40\n    length_configs: [{input_len: 64, output_len: 200}]\n";
    let file = config(folder.path(), ARGS, rest);
    for (signal, status) in [("-INT", Some(130)), ("-KILL", None)] {
        let running = Running::begin(&file, &folder.path().join(signal));
        send(signal, &running.pid().to_string());
        let out = running.out.clone();
        let output = running.ended();
        assert_eq!(output.status.code(), status, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(run(&["report", &out.display().to_string()]).status.code(), Some(0));
        let runs = runs(&out);
        assert!(counts(&runs).valid == runs.len() && !runs.is_empty(), "{runs:?}");
    }
}

#[test]
fn two_interrupts_leave_at_once_and_keep_what_was_finished() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 40\n    length_configs: [{input_len: 64, output_len: 800}]\n";
    let running = Running::begin(&config(folder.path(), ARGS, rest), &folder.path().join("out"));
    running.wait_until_stepping();
    running.interrupt();
    running.wait_until_said("once more to leave now");
    running.interrupt();
    let out = running.out.clone();
    refused(&running.ended(), 130, &["error: interrupted: what was finished is kept"]);
    let runs = runs(&out);
    let counts = counts(&runs);
    assert_eq!(counts, Counts { failed: 1, skipped: 0, all: counts.valid + 1, ..counts });
    assert!(counts.valid >= 1, "{runs:?}");
    assert_eq!(reason(&runs, "failed"), "interrupted");
    assert!(out.join("report.html").exists());
}

#[test]
fn a_kv_cache_that_is_too_small_is_refused_with_what_to_do() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let args = ARGS.replace("1073741824", "4194304");
    let file = config(folder.path(), &args, "    length_configs: [{input_len: 64, output_len: 8}]\n");
    let traces = Traces::new();
    let mut command = bench();
    command.args(["engine", "--config"]).arg(file).arg("--out").arg(folder.path().join("out"));
    let output = traces.leave_on(&mut command).output().unwrap();
    let hint = "what to do: give the KV cache more room (--kv-cache-memory-bytes) or lower --max-model-len";
    refused(&output, 3, &["error: the engine failed during its load", "(2048)", hint]);
    assert!(output.stdout.is_empty(), "there is no result to print");
    traces.wait_until_gone();
}

#[test]
fn a_full_disk_ends_the_sweep_and_keeps_what_was_finished() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 40\n    length_configs: [{input_len: 64, output_len: 60}]\n";
    let traces = Traces::new();
    let Some(output) = on_small_disk(&config(folder.path(), ARGS, rest), folder.path(), &traces) else { return };
    traces.wait_until_gone();
    let cause = "error: the results cannot be kept: ";
    refused(&output, 1, &[cause, "No space left on device", "`bench report DIR`"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("i64-o60-p0-n8"), "what was measured is printed");
    let kept = folder.path().join("kept");
    let finished = runs(&kept);
    assert!(counts(&finished).valid == finished.len() && !finished.is_empty(), "{finished:?}");
    assert_eq!(run(&["report", &kept.display().to_string()]).status.code(), Some(0));
    assert!(runs(&kept).len() >= finished.len() && kept.join("report.html").exists());
}

/// Measures with the results on a disk of 200 kB, which takes four runs, and copies them to `kept`. None where this
/// user may not mount one.
fn on_small_disk(file: &Path, folder: &Path, traces: &Traces) -> Option<Output> {
    let in_namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount"]);
        command
    };
    if !in_namespace().arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("not tested: no disk can be mounted here");
        return None;
    }
    let script = r#"mount -t tmpfs -o size=200k none "$1" && "$0" engine --config "$2" --out "$1/out"
                    status=$?; cp -r "$1/out" "$3"; exit $status"#;
    let disk = folder.join("disk");
    fs::create_dir(&disk).unwrap();
    let mut command = in_namespace();
    command.args(["sh", "-c", script, env!("CARGO_BIN_EXE_bench")]).args([&disk, file, &folder.join("kept")]);
    command.env_remove("BENCH_PYTHON").env("NO_COLOR", "1");
    Some(traces.leave_on(&mut command).output().unwrap())
}
