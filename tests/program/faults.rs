//! What is kept, said and left behind when something goes wrong.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::running::{Running, Traces, send};
use crate::{ARGS, bench, config, one_engine, refused, run, summary};

/// The exit status, and all of `wanted` on the screen, without an error that ends the command, a panic or a traceback.
#[track_caller]
fn said(output: &Output, status: i32, wanted: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    for text in wanted {
        assert!(said.contains(text), "{text:?} is not in: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("Traceback") && !said.contains("error: "), "{said}");
}

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

/// The reasons of the runs with this status.
fn reasons(runs: &[Value], status: &str) -> Vec<String> {
    let of_status = runs.iter().filter(|run| run["status"] == status);
    of_status.map(|run| run["reasons"][0].as_str().unwrap().to_owned()).collect()
}

/// What every sweep must come to in which one run failed: that run and all that were planned, one of them in its place.
#[track_caller]
fn one_failed_and_was_measured_anew(runs: &[Value], planned: usize, cause: &str) {
    assert_eq!(counts(runs), Counts { valid: planned, failed: 1, skipped: 0, all: planned + 1 }, "{runs:?}");
    let failed = runs.iter().find(|run| run["status"] == "failed").unwrap();
    assert!(failed["reasons"][0].as_str().unwrap().starts_with(cause), "{failed}");
    let again: Vec<&Value> = runs.iter().filter(|run| !run["retry_of"].is_null()).collect();
    assert_eq!(again.len(), 1, "{again:?}");
    for key in ["name", "point", "round"] {
        assert_eq!(again[0][key], failed[key]);
    }
    assert_eq!((&again[0]["retry_of"], &again[0]["status"]), (&failed["repeat"], &Value::from("valid")));
    assert!(again[0]["engine_load_s"].as_f64().unwrap() > 0.0, "in a fresh engine");
}

#[test]
fn after_a_killed_engine_the_run_is_measured_anew_and_the_sweep_goes_on() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let lengths = "    num_prompts: 8\n    repeats: 4\n    length_configs: [{input_len: 64, output_len: 400}]\n";
    let args = ARGS.replace("2048", "1024");
    let second = format!("  - name: second\n    mode: vllm_throughput\n    args: {args}\n");
    let file = config(folder.path(), ARGS, &format!("{lengths}{second}{lengths}"));
    let running = Running::begin(&file, &folder.path().join("out"));
    // In the middle of a run: the recorder, which has a core to itself, may not keep the news from anybody.
    running.wait_until_stepping();
    send("-9", &running.engine.to_string());
    let out = running.out.clone();
    let output = running.ended();
    let cause = "the engine process was killed by SIGKILL";
    said(&output, 1, &["2 engine loads", &format!("failed: {cause}; "), "once more in a fresh engine"]);
    one_failed_and_was_measured_anew(&runs(&out), 8, cause);
}

#[test]
fn a_stopped_engine_is_noticed_by_its_own_step_times() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 6\n    length_configs: [{input_len: 64, output_len: 400}]\n";
    let running = Running::begin(&config(folder.path(), ARGS, rest), &folder.path().join("out"));
    running.wait_until_stepping();
    send("-STOP", &running.engine.to_string());
    let out = running.out.clone();
    said(&running.ended(), 1, &["the engine has given no sign for ", "once more in a fresh engine"]);
    let runs = runs(&out);
    one_failed_and_was_measured_anew(&runs, 6, "the engine has given no sign for ");
    let reason = &reasons(&runs, "failed")[0];
    let number = |before: &str| -> f64 {
        let rest = reason.split_once(before).unwrap_or_else(|| panic!("{before:?} in {reason}")).1;
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (silent_s, step_s) = (number("no sign for "), number("steps took "));
    assert!(step_s > 0.0 && silent_s <= 3.0 * step_s + 1.1, "{reason}");
}

#[test]
fn after_a_killed_worker_of_a_rank_the_run_is_measured_anew() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    tensor_parallel_sizes: [2]\n    num_prompts: 4\n    repeats: 6\n    length_configs: [{input_len: 32, \
                output_len: 200}]\n";
    let running = Running::begin(&config(folder.path(), ARGS, rest), &folder.path().join("out"));
    let log = fs::read_to_string(running.out.join("sidecar.log")).unwrap();
    let (_, worker) = log.rsplit_once("(Worker_TP1 pid=").expect("a line of the second rank's worker");
    let worker = worker.split(')').next().unwrap();
    // In the middle of a step the other rank waits for this one, for good.
    running.wait_until_stepping();
    send("-9", worker);
    let out = running.out.clone();
    said(&running.ended(), 1, &["once more in a fresh engine"]);
    let runs = runs(&out);
    one_failed_and_was_measured_anew(&runs, 6, "the engine failed during its run: EngineError: worker process ");
    assert!(reasons(&runs, "failed")[0].contains(&format!("(pid {worker}) ")), "{runs:?}");
}

#[test]
fn after_a_killed_sidecar_another_one_goes_on() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 6\n    length_configs: [{input_len: 64, output_len: 400}]\n";
    let running = Running::begin(&config(folder.path(), ARGS, rest), &folder.path().join("out"));
    running.wait_until_stepping();
    send("-9", &running.sidecar.to_string());
    let out = running.out.clone();
    let cause = "the sidecar was killed by SIGKILL";
    said(&running.ended(), 1, &[cause, "starting another sidecar", "once more in a fresh engine"]);
    one_failed_and_was_measured_anew(&runs(&out), 6, cause);
}

#[test]
fn a_harness_that_was_stopped_for_a_while_blames_nobody_and_counts_nothing_of_it() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 6\n    length_configs: [{input_len: 64, output_len: 400}]\n";
    let running = Running::begin(&config(folder.path(), ARGS, rest), &folder.path().join("out"));
    running.wait_until_stepping();
    send("-STOP", &running.pid().to_string());
    std::thread::sleep(Duration::from_secs(3));
    send("-CONT", &running.pid().to_string());
    let out = running.out.clone();
    let output = running.ended();
    let runs = runs(&out);
    assert_eq!(runs.len(), 6, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(counts(&runs).failed, 0, "{runs:?}");
    let invalid = reasons(&runs, "invalid");
    assert!(invalid.len() == 1 && invalid[0].starts_with("the harness stood still for "), "{runs:?}");
    said(&output, 1, &[]);
}

#[test]
fn a_results_folder_that_disappears_ends_the_sweep_and_is_not_made_anew() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 40\n    length_configs: [{input_len: 64, output_len: 60}]\n";
    let running = Running::begin(&config(folder.path(), ARGS, rest), &folder.path().join("out"));
    let out = running.out.clone();
    fs::rename(&out, folder.path().join("elsewhere")).unwrap();
    refused(&running.ended(), 1, &["error: the results cannot be kept: ", "No such file or directory"]);
    assert!(!out.exists());
    let moved = folder.path().join("elsewhere").display().to_string();
    let report = run(&["report", &moved]);
    assert_eq!(report.status.code(), Some(1), "the rest is missing");
    assert!(
        String::from_utf8_lossy(&report.stdout).contains("MISSING: 40 runs are planned"),
        "what was finished is in the folder that was moved"
    );
}

#[test]
fn an_engine_without_enough_memory_is_given_up_and_the_next_is_measured() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let lengths = "    num_prompts: 4\n    repeats: 2\n    length_configs: [{input_len: 64, output_len: 8}]\n";
    // Two to the 53rd: no machine has as much.
    let second = format!(
        "  - name: second\n    mode: vllm_throughput\n    args: {}\n",
        ARGS.replace("1073741824", "9007199254740992")
    );
    let third = format!("  - name: third\n    mode: vllm_throughput\n    args: {}\n", ARGS.replace("2048", "1024"));
    let file = config(folder.path(), ARGS, &format!("{lengths}{second}{lengths}{third}{lengths}"));
    let out = folder.path().join("out");
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &out.display().to_string()]);
    said(&output, 1, &["once more in a fresh engine"]);
    let runs = runs(&out);
    assert_eq!(counts(&runs), Counts { valid: 4, failed: 1, skipped: 1, all: 6 }, "{runs:?}");
    assert!(reasons(&runs, "failed")[0].contains("memory"), "{runs:?}");
    assert!(reasons(&runs, "skipped")[0].starts_with("not run: the engine failed during its load"), "{runs:?}");
    assert!(runs.iter().all(|run| (run["name"] == "second") != (run["status"] == "valid")), "{runs:?}");
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
        assert_eq!(run(&["report", &out.display().to_string()]).status.code(), Some(1), "runs are missing");
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
    assert_eq!(reasons(&runs, "failed"), ["interrupted"]);
    assert!(out.join("report.html").exists());
}

#[test]
fn a_kv_cache_that_is_too_small_is_refused_before_the_load_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let args = ARGS.replace("1073741824", "4194304");
    let file = config(folder.path(), &args, "    length_configs: [{input_len: 64, output_len: 8}]\n");
    let traces = Traces::new();
    let mut command = bench();
    command.args(["engine", "--config"]).arg(file).arg("--out").arg(folder.path().join("out"));
    let output = traces.leave_on(&mut command).output().unwrap();
    refused(
        &output,
        2,
        &["the KV cache has 3 blocks", "`--kv-cache-memory-bytes`", "of 2048 tokens", "give it more memory"],
    );
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
    assert_eq!(run(&["report", &kept.display().to_string()]).status.code(), Some(1), "the other runs are missing");
    let finished = runs(&kept);
    assert!(counts(&finished).valid == finished.len() && !finished.is_empty(), "{finished:?}");
    assert!(kept.join("report.html").exists());
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
