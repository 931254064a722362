//! A sweep from its configuration to its reports.

use std::fs;

use serde_json::Value;

use crate::{ARGS, config, one_engine, refused, run, summary};

#[test]
fn a_sweep_is_measured_stored_rebuilt_and_judged() {
    let _one = one_engine();
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
    let environment = &report["environment"];
    let openmp = &environment["sidecars"]["cpu"]["openmp"]["OMP_NUM_THREADS"];
    assert!(openmp.is_string(), "peers/vllm gives the others the same: {environment}");
    assert_eq!(runs.iter().filter(|run| run["engine_load_s"].as_f64().unwrap() > 0.0).count(), 1);
    for run in runs {
        assert_eq!(run["status"], "valid", "{run}");
        let warm_up = &run["engine_warm_up"];
        assert_eq!(warm_up.is_object(), run["engine_load_s"].as_f64().unwrap() > 0.0, "{run}");
        assert!(warm_up.is_null() || (2..=8).contains(&warm_up["runs"].as_u64().unwrap()), "{warm_up}");
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
fn a_reset_leaves_the_engine_as_a_fresh_one() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 4\n    repeats: 2\n    length_configs:\n      - {input_len: 300, output_len: 8, prefix_len: 256}\n\
                defaults: {check_reset: true}\n";
    let file = config(folder.path(), ARGS, rest);
    let out = folder.path().join("out");
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &out.display().to_string()]);
    refused(&output, 0, &["Plan sweep: 1 point, 2 runs and 2 to check the reset, 2 engine loads"]);
    let report = summary(&out);
    let check = &report["reset_checks"][0];
    assert_eq!(check["differences"].as_array().map(Vec::len), Some(0), "{check}");
    // Priming, a prefill, and the rest of eight tokens.
    assert!(check["steps"].as_u64().unwrap() >= 9, "{check}");
    assert!(check["p50_step_ratio"].as_f64().unwrap() > 0.0, "{check}");
    let after = report["runs"].as_array().unwrap().iter().find(|run| run["role"] == "after_reset").unwrap();
    assert_eq!((after["engine_load_s"].as_f64(), after["drive"].as_str()), (Some(0.0), Some("stepped")));
    assert_eq!(after["prefix_hit_rate_measured"], after["prefix_hit_rate_expected"]);
}

#[test]
fn a_flag_that_vllm_does_not_know_is_refused_before_any_engine_is_loaded() {
    let _one = one_engine();
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
fn the_observer_effect_is_measured_on_the_real_engine() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    let output = run(&["calibrate", "--short", "--observer", "--seconds", "12", "--out", &out]);
    refused(&output, 0, &[]);
    let found: Value = serde_json::from_slice(&fs::read(folder.path().join("calibration.json")).unwrap()).unwrap();
    let effects = found["observer"].as_array().unwrap();
    assert!(effects[0]["rounds"].as_u64() > Some(50), "as many rounds as the time has room for: {effects:?}");
    assert_eq!(effects.iter().map(|effect| effect["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 8, 64]);
    for effect in effects {
        assert!(effect["rounds"].as_u64() >= Some(50), "{effect}");
        for change in [effect, &effect["against_engine_core"], &effect["against_llm_engine"]] {
            let [low, at, high] = ["ci_low_pct", "change_pct", "ci_high_pct"].map(|key| change[key].as_f64().unwrap());
            assert!(low < at && at < high, "{effect}");
        }
    }
}
