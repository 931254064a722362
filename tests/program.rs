//! The program as its users run it, with the real vLLM where an engine is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Two cores carry one engine at a time.
static ONE_ENGINE: Mutex<()> = Mutex::new(());

const ARGS: &str = "--model builtin:tiny-llama --load-format dummy --skip-tokenizer-init --enforce-eager \
                    --dtype float32 --max-model-len 2048 --max-num-seqs 64 --kv-cache-memory-bytes 1073741824";

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.env_remove("BENCH_PYTHON").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    bench().args(args).output().unwrap()
}

fn config(folder: &Path, args: &str, rest: &str) -> PathBuf {
    let path = folder.join("sweep.yaml");
    let text = format!("standalone_runs:\n  - name: t\n    mode: vllm_throughput\n    args: >-\n      {args}\n{rest}");
    fs::write(&path, text).unwrap();
    path
}

/// The exit status, and one message that says all of `wanted`, without a panic or a traceback.
#[track_caller]
fn refused(output: &Output, status: i32, wanted: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    for text in wanted {
        assert!(said.contains(text), "{text:?} is not in: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("Traceback"), "{said}");
}

fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("summary_report.json")).unwrap()).unwrap()
}

#[test]
fn what_needs_no_engine_is_refused_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = "    length_configs: [{input_len: 64, output_len: 8}]\n";
    let given = |args: &str, rest: &str| config(folder.path(), args, rest).display().to_string();

    let file = given(ARGS, "    length_config: [{input_len: 64, output_len: 8}]\n");
    refused(&run(&["engine", "--config", &file]), 2, &["sweep.yaml:6:5", "length_config", "length_configs"]);
    let file = given(&ARGS.replace("builtin:tiny-llama", "/no/such/model"), lengths);
    refused(&run(&["engine", "--config", &file]), 2, &["/no/such/model"]);
    let file = given(ARGS, "    length_configs: [{input_len: 2000, output_len: 100}]\n");
    refused(&run(&["engine", "--config", &file]), 2, &["sweep.yaml:6", "2000", "100", "2048"]);

    let file = given(ARGS, lengths);
    for device in ["cuda", "tpu"] {
        refused(&run(&["engine", "--config", &file, "--device", device]), 3, &[device]);
    }
    refused(&run(&["engine", "--config", &file, "--python", "/no/such/python", "--out", "x"]), 3, &["/no/such/python"]);
    let below_a_file = format!("{file}/out");
    refused(&run(&["engine", "--config", &file, "--out", &below_a_file]), 2, &["sweep.yaml/out"]);
    fs::create_dir_all(folder.path().join("runs/a-0")).unwrap();
    let taken = folder.path().display().to_string();
    refused(&run(&["engine", "--config", &file, "--out", &taken]), 2, &["already holds results"]);
    refused(&run(&["engine", "--no-such-flag"]), 2, &["--no-such-flag"]);
    fs::remove_dir("x").unwrap(); // made before the interpreter was looked for
}

#[test]
fn a_dry_run_prints_the_plan_and_measures_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let args = "--model meta-llama/Llama-3.1-70B-Instruct --prefix-len 7900";
    let rest = "    tensor_parallel_sizes: [8]\n    length_configs: [{input_len: 8192, output_len: 2048}]\n";
    let file = config(folder.path(), args, rest);
    let output = run(&["engine", "--device", "tpu", "--dry-run", "--config", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(0));
    let plan = String::from_utf8(output.stdout).unwrap();
    for text in ["1 point", "1 engine load", "7900", "tensor parallel 8", "Estimated time: not known yet"] {
        assert!(plan.contains(text), "{text:?} is not in: {plan}");
    }
}

#[test]
fn a_sweep_is_measured_stored_rebuilt_and_judged() {
    let _one = ONE_ENGINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 2\n    length_configs:\n      - {input_len: 64, output_len: 16}\n      \
                - {input_len: 300, output_len: 8, prefix_len: 256}\n";
    let file = config(folder.path(), ARGS, rest);
    let out = folder.path().join("out");
    let dir = out.display().to_string();
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &dir]);
    refused(&output, 0, &["Plan sweep: 2 points, 4 runs, 1 engine load"]);

    let report = summary(&out);
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 4);
    assert_eq!(runs.iter().filter(|run| run["engine_load_s"].as_f64().unwrap() > 0.0).count(), 1);
    for run in runs {
        assert_eq!(run["status"], "valid", "{run}");
        assert_eq!(run["prefix_hit_rate_measured"], run["prefix_hit_rate_expected"]);
        assert!(run["transport_ns"]["p50"].as_i64().unwrap() > 0);
        assert!(run["tap_push_ns"]["p50"].as_i64().unwrap() > 0);
    }

    fs::remove_file(out.join("summary_report.json")).unwrap();
    assert_eq!(run(&["report", &dir]).status.code(), Some(0));
    assert_eq!(summary(&out), report, "rebuilt from the recorded events alone");

    assert_eq!(run(&["export", &dir, "--csv"]).status.code(), Some(0));
    let events = fs::read_to_string(out.join("events.csv")).unwrap();
    let given = folder.path().join("given.csv");
    let judge = |text: &str| {
        fs::write(&given, text).unwrap();
        run(&["report", "--events", &given.display().to_string(), "--format", "json"])
    };
    assert_eq!(judge(&events).status.code(), Some(0));
    let lines: Vec<&str> = events.lines().collect();
    let dropped = lines.iter().position(|line| line.contains(",measure,token,")).unwrap();
    let kept: Vec<&str> = lines.iter().enumerate().filter(|(n, _)| *n != dropped).map(|(_, line)| *line).collect();
    let output = judge(&(kept.join("\n") + "\n"));
    assert_eq!(output.status.code(), Some(1), "an event is missing");
    let judged: Value = serde_json::from_slice(&output.stdout).unwrap();
    let invalid = judged["runs"].as_array().unwrap().iter().filter(|run| run["status"] == "invalid");
    assert_eq!(invalid.count(), 1);
}

#[test]
fn a_flag_that_vllm_does_not_know_is_refused_before_any_engine_is_loaded() {
    let _one = ONE_ENGINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = tempfile::tempdir().unwrap();
    let args = format!("{ARGS} --max-num-seqz 4");
    let file = config(folder.path(), &args, "    length_configs: [{input_len: 64, output_len: 8}]\n");
    let out = folder.path().join("out").display().to_string();
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &out]);
    refused(&output, 2, &["sweep.yaml:", "--max-num-seqz"]);
    assert!(output.stdout.is_empty(), "there is no result to print");
    // Nothing was measured, so the corrected command may use the folder.
    let file = config(folder.path(), ARGS, "    length_configs: [{input_len: 64, output_len: 8}]\n");
    let again = ["engine", "--config", &file.display().to_string(), "--out", &out, "--python", "/no/such/python"];
    refused(&run(&again), 3, &["/no/such/python"]);
}

#[test]
fn a_killed_engine_ends_the_sweep_and_keeps_what_was_finished() {
    let _one = ONE_ENGINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 6\n    length_configs: [{input_len: 64, output_len: 400}]\n";
    let file = config(folder.path(), ARGS, rest);
    let out = folder.path().join("out");
    let child = started(&file, &out);
    wait_for("a finished run", || has_run(&out));
    let sidecar = *children(child.id()).first().expect("the sidecar runs");
    let engine = *children(sidecar).first().expect("an engine runs");
    let killed = Command::new("kill").args(["-9", &engine.to_string()]).status().unwrap();
    assert!(killed.success());
    let output = ended_within(child, Duration::from_secs(30));
    refused(&output, 1, &["engine process was killed by SIGKILL"]);
    let runs = summary(&out)["runs"].as_array().unwrap().clone();
    let count = |status: &str| runs.iter().filter(|run| run["status"] == status).count();
    assert_eq!(runs.len(), 6);
    assert!(count("valid") >= 1 && count("failed") == 1 && count("skipped") == 6 - 1 - count("valid"), "{runs:?}");
    wait_for("an end of all processes", || !Path::new(&format!("/proc/{sidecar}")).exists());
    assert!(!Path::new(&format!("/proc/{engine}")).exists());
}

#[test]
fn one_interrupt_finishes_the_run_and_a_killed_harness_leaves_nothing_running() {
    let _one = ONE_ENGINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 40\n    length_configs: [{input_len: 64, output_len: 200}]\n";
    let file = config(folder.path(), ARGS, rest);
    for (signal, status) in [("-INT", Some(130)), ("-KILL", None)] {
        let out = folder.path().join(signal);
        let child = started(&file, &out);
        wait_for("a finished run", || has_run(&out));
        let sidecar = *children(child.id()).first().expect("the sidecar runs");
        let engine = *children(sidecar).first().expect("an engine runs");
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = ended_within(child, Duration::from_secs(30));
        assert_eq!(output.status.code(), status, "{}", String::from_utf8_lossy(&output.stderr));
        wait_for("an end of all processes", || {
            [sidecar, engine].iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        });
        assert_eq!(run(&["report", &out.display().to_string()]).status.code(), Some(0));
        let runs = summary(&out)["runs"].as_array().unwrap().clone();
        assert!(!runs.is_empty() && runs.iter().all(|run| run["status"] == "valid"), "{runs:?}");
    }
}

fn started(file: &Path, out: &Path) -> Child {
    let mut command = bench();
    command.args(["engine", "--config"]).arg(file).arg("--out").arg(out).stderr(Stdio::piped()).stdout(Stdio::null());
    command.spawn().unwrap()
}

fn has_run(out: &Path) -> bool {
    let stored = fs::read_dir(out.join("runs"));
    stored.is_ok_and(|runs| runs.flatten().any(|run| run.path().join("timeline.json").exists()))
}

#[track_caller]
fn wait_for(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while !seen() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ended_within(mut child: Child, limit: Duration) -> Output {
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the command did not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// Process ids of the children of all threads of `pid`.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}
