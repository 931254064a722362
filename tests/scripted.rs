//! The whole program on the scripted engine: known answers, and what breaks on purpose.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.env_remove("BENCH_PYTHON").env("NO_COLOR", "1").stdin(Stdio::null()).args(args);
    command
}

/// The command that measures `script`, with its results in `folder`.
fn engine(folder: &Path, script: &str, more: &[&str]) -> Command {
    let file = folder.join("script.yaml");
    fs::write(&file, script).unwrap();
    let engine = format!("scripted:{}", file.display());
    let out = folder.join("out").display().to_string();
    bench(&[&["engine", "--engine", &engine, "--out", &out], more].concat())
}

fn measure(folder: &Path, script: &str, more: &[&str]) -> (Output, Value) {
    let output = engine(folder, script, more).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked") && !said.contains("Traceback"), "{said}");
    (output, summary(folder))
}

fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("out/summary_report.json")).unwrap()).unwrap()
}

/// Rows of a CSV file by column.
fn rows(path: &Path) -> Vec<HashMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(|row| row.unwrap()).collect()
}

fn number(row: &HashMap<String, String>, column: &str) -> u64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?}"))
}

/// (intended, emitted) of each token of the first run, by request.
fn truth(folder: &Path) -> HashMap<u64, Vec<(u64, u64)>> {
    let mut truth: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    for row in rows(&folder.join("out/truth.csv")) {
        let tokens = truth.entry(number(&row, "request")).or_default();
        assert_eq!(number(&row, "token"), tokens.len() as u64);
        tokens.push((number(&row, "intended_ns"), number(&row, "emitted_ns")));
    }
    truth
}

/// Every shape of a schedule: a steady one, bursts and pauses, gaps of 1 us and of nothing, several tokens an event, a
/// request of one token; 1 to 3 take turns over 40 requests that end together.
const SHAPES: &str = "
requests:
  - {first_ns: 5000000, gap_ns: 1000000, tokens: 20}
  - {first_ns: 2000000, gaps_ns: [0, 0, 1000, 1000, 300000000, 0, 1000]}
  - {first_ns: 1000, gap_ns: 1000, tokens: 500}
  - {first_ns: 1000000, counts: [1, 5, 5, 2], gaps_ns: [10000, 2000000, 10000]}
  - {first_ns: 3000000, gap_ns: 2000000, tokens: 9, counts: 3}
  - {first_ns: 0, gaps_ns: []}
";

#[test]
fn a_schedule_is_kept_and_every_token_of_it_is_received() {
    let folder = tempfile::tempdir().unwrap();
    let (output, report) = measure(folder.path(), SHAPES, &[]);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("engine: scripted"));
    let run = &report["runs"][0];
    assert_eq!((run["status"].as_str(), run["engine"].as_str()), (Some("valid"), Some("scripted")));
    assert_eq!(run["output_len"], Value::Null, "the requests differ");

    let truth = truth(folder.path());
    let gaps = |request| -> Vec<u64> { truth[&request].windows(2).map(|pair| pair[1].0 - pair[0].0).collect() };
    assert_eq!(gaps(0), [1_000_000; 19]);
    assert_eq!(gaps(1), [0, 0, 1_000, 1_000, 300_000_000, 0, 1_000]);
    assert_eq!(gaps(2), [1_000; 499]);
    assert_eq!(gaps(3), [10_000, 0, 0, 0, 0, 2_000_000, 0, 0, 0, 0, 10_000, 0]);
    assert_eq!(gaps(4), [0, 0, 2_000_000, 0, 0, 2_000_000, 0, 0]);
    assert_eq!(truth[&5].len(), 1);
    let first_ns = [5_000_000, 2_000_000, 1_000, 1_000_000, 3_000_000, 0];
    let admitted: Vec<u64> = (0..6).map(|request| truth[&request][0].0 - first_ns[request as usize]).collect();
    assert!(admitted.iter().all(|ns| *ns == admitted[0]), "submitted together, admitted together: {admitted:?}");
    assert!(truth.values().flatten().all(|(intended_ns, emitted_ns)| intended_ns <= emitted_ns));

    check_events(folder.path(), &truth);
}

/// Each token event was received after it was stamped, and stamped after it was emitted, and none is missing.
fn check_events(folder: &Path, truth: &HashMap<u64, Vec<(u64, u64)>>) {
    let out = folder.join("out").display().to_string();
    assert!(bench(&["export", &out, "--csv"]).output().unwrap().status.success());
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for event in rows(&folder.join("out/events.csv")).iter().filter(|row| row["kind"] == "token") {
        let tokens = seen.entry(number(event, "request")).or_default();
        let count = number(event, "count") as usize;
        let emitted = &truth[&number(event, "request")][*tokens..*tokens + count];
        assert!(emitted.iter().all(|(_, emitted_ns)| *emitted_ns == emitted[0].1), "one event is one instant");
        let (stamped_ns, received_ns) = (number(event, "emitted_ns"), number(event, "received_ns"));
        assert!(emitted[0].1 <= stamped_ns && stamped_ns <= received_ns, "{event:?}");
        *tokens += count;
    }
    assert!(seen.iter().all(|(request, tokens)| truth[request].len() == *tokens), "{seen:?}");
}

#[test]
fn a_configuration_gives_the_workload_and_the_script_the_times() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sweep.yaml");
    let entry = "standalone_runs:\n  - {name: t, mode: vllm_throughput, args: --model some/model, repeats: 2, \
                 num_prompts: 5, length_configs: [{input_len: 64, output_len: 6}]}\n";
    fs::write(&config, entry).unwrap();
    let script = "requests: [{first_ns: 100000, gap_ns: 200000}, {first_ns: 300000, gap_ns: 50000}]";
    let (output, report) = measure(folder.path(), script, &["--config", &config.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for run in runs {
        assert_eq!((run["model"].as_str(), run["output_len"].as_u64()), (Some("some/model"), Some(6)));
        assert_eq!((run["num_prompts"].as_u64(), run["steps"].as_u64().is_some()), (Some(5), true));
    }
}

#[test]
fn each_number_has_the_bound_of_its_error_and_the_report_the_budget_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let script = "requests: [{first_ns: 1000000, gap_ns: 1000000, tokens: 20}]";
    let (output, report) = measure(folder.path(), script, &[]);
    assert!(String::from_utf8_lossy(&output.stdout).contains('±'));
    let rows = report["instrument"]["error_budget"]["rows"].as_array().unwrap();
    let concurrencies: Vec<u64> = rows.iter().map(|row| row["concurrency"].as_u64().unwrap()).collect();
    assert_eq!(concurrencies, [1, 10, 100, 1_000]);
    for entry in [&report["runs"][0], &report["points"][0]] {
        let errors = &entry["instrument_error"];
        // The first token of one request was late by its own transport, no more than the largest of all.
        // Where the recorder watched for at least half of the calibration's answers, they are what counts.
        let count = |what: &str| rows[0][what]["count"].as_u64().unwrap_or(0);
        let is_watched = 2 * count("ttft_error_watched_ns") >= count("ttft_error_ns");
        let counts = if is_watched { "ttft_error_watched_ns" } else { "ttft_error_ns" };
        let calibrated = rows[0][counts]["p99"].as_f64().unwrap() / 1e9;
        let moved = errors["p50_ttft_s"].as_f64().map(|bound| bound - calibrated);
        let largest = entry["transport_ns"]["max"].as_f64().unwrap() / 1e9;
        assert_eq!(moved.is_some(), entry["p50_ttft_s"].is_number());
        let rounding = 1e-12;
        assert!(moved.is_none_or(|moved| (-rounding..=largest + rounding).contains(&moved)), "{entry:#}");
        assert!(errors["avg_itl_s"].as_f64().unwrap() > 0.0 && errors["output_tokens_per_s"].as_f64().unwrap() > 0.0);
        assert_eq!(errors["avg_step_s"], Value::Null, "the engine's own stamps");
    }
}

#[test]
fn a_calibration_says_what_its_contract_promises() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    let output = bench(&["calibrate", "--short", "--out", &out]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("Error budget"), "{said}");
    let found: Value = serde_json::from_slice(&fs::read(folder.path().join("calibration.json")).unwrap()).unwrap();
    for key in ["resolution_ns", "read_ns"] {
        assert!(found["clock"][key].as_f64().unwrap() > 0.0, "{key}");
    }
    for answer in found["known_answer"].as_array().unwrap() {
        for error in ["ttft_error_ns", "itl_error_ns"] {
            let [p50, p99, max] = ["p50", "p99", "max"].map(|rank| answer[error][rank].as_i64().unwrap());
            assert!(0 < p50 && p50 <= p99 && p99 <= max, "{answer}");
        }
    }
    assert!(found["per_step"].as_array().unwrap().iter().all(|step| step["tap_push_ns"]["p50"].as_i64().unwrap() > 0));
    let is_there = |key: &&str| found.get(*key).is_some_and(|value| !value.is_null());
    assert!(["wait_strategy", "cores", "host", "build"].iter().all(is_there));
    // On one core there is nothing to hand over to.
    let two = found["cores"]["engine"] != found["cores"]["recorder"];
    for times in [&found["floor_ns"], &found["ring"]["gap_3us_ns"], &found["ring"]["gap_1ms_ns"]] {
        assert_eq!(times["p50"].as_i64().is_some_and(|p50| p50 > 0), two, "{times}");
    }
    assert!(found.get("observer").is_none(), "nobody asked for it");
}

#[test]
fn a_wrong_length_and_a_wrong_share_of_the_cache_are_invalid() {
    for (script, reason) in [
        ("requests: [{first_ns: 1000, gap_ns: 1000, tokens: 9}]\nfaults: [{at_step: 3, kind: wrong_length}]", "output"),
        ("requests: [{first_ns: 1000, gap_ns: 1000, tokens: 9, cached: 40}]", "cache"),
        ("requests: [{first_ns: 1000, gap_ns: 1000, tokens: 9, finish: abort}]", "abort"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (output, report) = measure(folder.path(), script, &[]);
        assert_eq!(output.status.code(), Some(1), "{script}");
        let run = &report["runs"][0];
        assert_eq!(run["status"].as_str(), Some("invalid"), "{script}");
        assert!(run["reasons"].to_string().contains(reason), "{script}: {}", run["reasons"]);
    }
}

#[test]
fn an_engine_that_breaks_ends_its_run_in_bounded_time_with_the_cause() {
    let steady = "requests: [{first_ns: 1000000, gap_ns: 1000000, tokens: 50}]\nfaults: [{at_step: 20, kind: KIND}]";
    for (kind, cause) in [
        ("raise", "the script raises at step 20"),
        ("exit", "ended with status 70"),
        ("hang", "no sign"),
        ("silent", "no sign"),
        ("lose", "0 of 1 submitted requests are complete, 1 never finished"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let (output, report) = measure(folder.path(), &steady.replace("KIND", kind), &["--stall-limit", "2"]);
        assert!(began.elapsed() < Duration::from_secs(60), "{kind}");
        assert_eq!(output.status.code(), Some(1), "{kind}");
        let run = &report["runs"][0];
        assert_eq!(run["status"].as_str(), Some("failed"), "{kind}");
        assert!(run["reasons"].to_string().contains(cause), "{kind}: {}", run["reasons"]);
        // What was emitted until then is known, and nothing of it is lost.
        let truth = rows(&folder.path().join("out/truth.csv"));
        let tokens = truth.iter().filter(|row| row["run"].ends_with("|0")).count();
        assert_eq!(tokens, 20, "{kind}");
        let again = &report["runs"][1];
        assert_eq!((again["status"].as_str(), again["retry_of"].as_u64()), (Some("failed"), Some(0)), "{kind}");
    }
}

#[test]
fn a_lost_request_is_told_from_a_silent_engine_and_an_unreached_fault_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // Far apart, so that a busy machine does not make one step of two.
    let requests = "requests: [{first_ns: 1000000, gap_ns: 20000000, tokens: 10}, {first_ns: 300000000, gap_ns: 2000000, \
                    tokens: 2}, {first_ns: 300000000, gap_ns: 3000000, tokens: 2}]";
    let lost = format!("{requests}\nfaults: [{{at_step: 5, kind: lose}}]");
    let (output, report) = measure(folder.path(), &lost, &["--stall-limit", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let reasons = report["runs"][0]["reasons"].to_string();
    assert!(reasons.contains("2 of 3 submitted requests are complete, 1 never finished"), "{reasons}");
    let truth = rows(&folder.path().join("out/truth.csv"));
    assert_eq!(truth.iter().filter(|row| row["run"].ends_with("|0")).count(), 5 + 2 + 2, "all that was emitted");

    let folder = tempfile::tempdir().unwrap();
    let beyond = format!("{requests}\nfaults: [{{at_step: 3, kind: wrong_length}}, {{at_step: 500, kind: exit}}]");
    let (_, report) = measure(folder.path(), &beyond, &[]);
    let warnings = report["runs"][0]["warnings"].to_string();
    assert!(warnings.contains("the script's faults were not reached: exit at step 500; the run had "), "{warnings}");
}

#[test]
fn a_recorder_that_stands_still_lets_the_ring_fill_and_the_run_is_invalid() {
    let folder = tempfile::tempdir().unwrap();
    // 4 s at 250,000 tokens/s: the ring's 65,536 records fill in a part of a second.
    let script = "requests: [{first_ns: 1000000, gap_ns: 4000, tokens: 1000000}]";
    let mut child =
        engine(folder.path(), script, &["--quiet"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    // Again and again, since nothing outside says when the run begins: the calibration before it has an engine too.
    let pid = Pid::from_raw(child.id() as i32);
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        kill(pid, Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        kill(pid, Signal::SIGCONT).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    };
    assert_eq!(code, Some(1));
    let report = summary(folder.path());
    let run = &report["runs"][0];
    assert_eq!(run["status"].as_str(), Some("invalid"));
    assert!(run["counters"]["ring_dropped"].as_u64().unwrap() > 0, "{}", run["counters"]);
    assert!(run["reasons"].to_string().contains("ring"), "{}", run["reasons"]);
}

/// Two points of two requests, three times each, with a sentinel after every run.
const WATCHED: &str = "
defaults: {model: some/model, sentinel: {every: 1}, check_reset: true, num_prompts: 2, repeats: 3, input_len: 64}
standalone_runs:
  - {name: t, mode: vllm_throughput, matrix: {output_len: [5, 9]}}
";

#[test]
fn an_engine_that_gets_slower_from_run_to_run_shows_in_its_sentinels() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sweep.yaml");
    fs::write(&config, WATCHED).unwrap();
    // Long enough that a busy machine is no reason for the order of the runs: 300 ms, and 20 % more in each.
    let script = "requests: [{first_ns: 200000000, gap_ns: 25000000}]\ngrowth_per_run: 0.2";
    let (output, report) = measure(folder.path(), script, &["--config", &config.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("warning: drift between sentinels"), "{said}");
    let sentinel = &report["sentinels"][0];
    let values: Vec<f64> =
        sentinel["runs"].as_array().unwrap().iter().map(|run| run["value"].as_f64().unwrap()).collect();
    assert_eq!(values.len(), 7);
    for (nth, value) in values.iter().enumerate() {
        // Every other run of the engine is a sentinel.
        let meant = 0.3 * (1.0 + 0.4 * nth as f64);
        assert!(*value >= meant, "{nth}: {value}, and the script means {meant}");
    }
    assert_eq!(sentinel["drift"]["flagged"], true, "{sentinel}");
    assert_eq!(report["points"].as_array().unwrap().len(), 2);
    assert!(folder.path().join("out/sentinels.svg").is_file());
    // The script has no state but its growth: what it does is the same on a fresh engine.
    let check = &report["reset_checks"][0];
    assert_eq!(check["differences"].as_array().map(Vec::len), Some(0), "{check}");
    assert!(check["p50_step_ratio"].as_f64().unwrap() > 0.0, "{check}");
    assert_eq!(report["plan"]["varying"][0]["name"], "output_len");
    assert_eq!(report["plan"]["varying"][0]["class"], "run");
}

#[test]
fn noise_stretches_whole_runs_and_a_new_engine_begins_it_anew() {
    let script =
        "requests: [{first_ns: 10000000, gap_ns: 1000000, tokens: 3}]\nnoise: {run: 0.2, session: 0.2, seed: 3}";
    let intended = || {
        let folder = tempfile::tempdir().unwrap();
        let (output, _) = measure(folder.path(), script, &["--repeats", "4"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
        let times: Vec<u64> =
            rows(&folder.path().join("out/truth.csv")).iter().map(|row| number(row, "intended_ns")).collect();
        // The two gaps of each run's only request.
        times.chunks(3).map(|run| (run[1] - run[0], run[2] - run[1])).collect::<Vec<_>>()
    };
    let first = intended();
    assert!(
        first.len() >= 4 && first.iter().all(|(one, other)| one == other),
        "all times of a run by one factor: {first:?}"
    );
    let gaps: std::collections::BTreeSet<u64> = first.iter().map(|(gap, _)| *gap).collect();
    assert_eq!(gaps.len(), first.len(), "each run by another one: {first:?}");
    assert_eq!(first, intended());
}

#[test]
fn pairs_are_found_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sweep.yaml");
    let text = "defaults: {model: some/model, num_prompts: 2, repeats: 4, input_len: 64, output_len: 4}\nstandalone_runs:\n  \
                - {name: t, mode: vllm_throughput, matrix: {quantization: [none, fp8], compare: quantization}}\n";
    fs::write(&config, text).unwrap();
    let script = "requests: [{first_ns: 100000, gap_ns: 200000}]";
    let (output, report) = measure(folder.path(), script, &["--config", &config.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    let runs = report["runs"].as_array().unwrap();
    let mut sides: HashMap<u64, Vec<&str>> = HashMap::new();
    for run in runs {
        assert_eq!((run["pair"]["pair"].as_u64(), run["pair"]["axis"].as_str()), (Some(0), Some("quantization")));
        assert_eq!(run["repeat"], run["round"]);
        sides.entry(run["round"].as_u64().unwrap()).or_default().push(run["pair"]["arm"].as_str().unwrap());
    }
    assert_eq!(sides.len(), 4);
    assert!(sides.values().all(|both| both.len() == 2 && both[0] != both[1]), "{sides:?}");
    assert!(runs.chunks(2).all(|both| both[0]["round"] == both[1]["round"]), "one directly after the other");
    let loads = report["plan"]["epochs"].as_array().unwrap().len();
    let loaded = runs.iter().filter(|run| run["engine_load_s"].as_f64().unwrap() > 0.0).count();
    assert!((5..=8).contains(&loads) && loads == loaded, "{loads} planned, {loaded} loaded");
    assert_eq!(report["points"][0]["epoch"], Value::Null, "its runs are in several");
    assert_eq!(report["points"][0]["num_valid"], 4);
}
