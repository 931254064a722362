//! A sweep that ended early is gone on with.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::running::{Running, send};
use crate::{ARGS, config, one_engine, refused, run, summary};

fn resume(file: &Path, out: &Path) -> Output {
    run(&["engine", "--config", &file.display().to_string(), "--resume", &out.display().to_string()])
}

fn runs(out: &Path) -> Vec<Value> {
    summary(out)["runs"].as_array().unwrap().clone()
}

/// What a run is apart from its times.
fn identity(run: &Value) -> String {
    ["name", "point", "repeat", "round", "status", "input_len", "output_len", "num_prompts", "steps"]
        .map(|key| run[key].to_string())
        .join(" ")
}

#[test]
fn a_killed_sweep_is_resumed_and_comes_to_what_an_uninterrupted_one_does() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let rest = "    num_prompts: 8\n    repeats: 3\n    length_configs: [{input_len: 64, output_len: 200}, {input_len: 32, \
                output_len: 100}]\n";
    let file = config(folder.path(), ARGS, rest);
    let whole = folder.path().join("whole");
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &whole.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let running = Running::begin(&file, &folder.path().join("out"));
    running.wait_until_stepping();
    send("-9", &running.pid().to_string());
    let out = running.out.clone();
    running.ended();
    // The summary is some runs behind the disk.
    assert_eq!(run(&["report", &out.display().to_string()]).status.code(), Some(1), "runs are missing");
    let before = runs(&out);
    assert!(!before.is_empty() && before.len() < 6, "{before:?}");
    // A run of which the power went away before all of it was on the disk.
    let torn = out.join("runs/i64-o200-p0-n8-9");
    fs::create_dir(&torn).unwrap();
    fs::write(torn.join("timeline.bin"), "half").unwrap();

    let output = resume(&file, &out);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("{} of 6 runs are there already", before.len())), "{said}");
    assert!(said.contains("set aside: run i64-o200-p0-n8-9: "), "{said}");
    let after = runs(&out);
    for run in &before {
        assert!(after.contains(run), "what was finished stays as it was: {run}");
    }
    let mut identities = [&after, &runs(&whole)].map(|runs| runs.iter().map(identity).collect::<Vec<_>>());
    identities.iter_mut().for_each(|runs| runs.sort());
    assert_eq!(identities[0], identities[1]);
    let orders: Vec<u64> = after.iter().map(|run| run["order"].as_u64().unwrap()).collect();
    assert_eq!(orders, [0, 1, 2, 3, 4, 5]);

    let output = resume(&file, &out);
    assert_eq!(output.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("importing vLLM"), "there is nothing left to do");
    assert_eq!(runs(&out), after);
}

#[test]
fn a_changed_configuration_and_a_folder_of_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script.yaml");
    let measure = |more: &[&str]| {
        let engine = format!("scripted:{}", script.display());
        run(&[&["engine", "--engine", &engine], more].concat())
    };
    fs::write(&script, "requests: [{first_ns: 100000, gap_ns: 100000, tokens: 9}]").unwrap();
    let out = folder.path().join("out").display().to_string();
    refused(&measure(&["--resume", &out]), 2, &["error: ", "cannot be resumed", "no such file"]);
    assert_eq!(measure(&["--out", &out]).status.code(), Some(0));
    let output = measure(&["--resume", &out, "--repeats", "9"]);
    refused(&output, 2, &["cannot be resumed: since then there has changed: the configuration"]);
    fs::write(&script, "requests: [{first_ns: 100000, gap_ns: 100001, tokens: 9}]").unwrap();
    let output = measure(&["--resume", &out]);
    refused(&output, 2, &["cannot be resumed: since then there has changed: the configuration"]);
    fs::write(&script, "requests: [{first_ns: 100000, gap_ns: 100000, tokens: 9}]").unwrap();
    assert_eq!(measure(&["--resume", &out]).status.code(), Some(0));
}
