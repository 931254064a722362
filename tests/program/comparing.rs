//! Pairs and intervals that a command measures until they decide, on scripted engines.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{bench, one_engine, refused, summary};

/// A command on a scripted engine, with a sweep of one point.
fn command(folder: &Path, more: &[&str]) -> Command {
    let of = |name: &str| folder.join(name).display().to_string();
    fs::write(folder.join("script.yaml"), "requests: [{first_ns: 2000000, gap_ns: 1000000}]").unwrap();
    let config = "standalone_runs:\n  - {name: t, mode: vllm_throughput, args: --model some/model, output_len: 16, input_len: 16, \
                  num_prompts: 4}\n";
    fs::write(folder.join("sweep.yaml"), config).unwrap();
    let mut command = bench();
    command.args(["engine", "--engine", &format!("scripted:{}", of("script.yaml")), "--config", &of("sweep.yaml")]);
    command.args(["--out", &of("out"), "--own-sidecar"]).args(more).stdout(Stdio::piped());
    command
}

/// The status of a comparison whose runs are valid; 1 where the machine took a core from one of them.
fn if_valid(out: &Path, status: i32) -> i32 {
    let is_valid = summary(out)["runs"].as_array().unwrap().iter().all(|run| run["status"] == "valid");
    if is_valid { status } else { 1 }
}

#[test]
fn two_values_of_a_setting_are_compared_and_a_slower_one_fails() {
    let _one = one_engine(); // beside a real engine it has no core to itself
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), &["--ab", "output_len=16,24"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("B is WORSE: slower in ") && said.contains("output_len 24"), "{said}");
    let out = folder.path().join("out");
    assert_eq!(summary(&out)["runs"].as_array().unwrap().len(), 20, "ten pairs");
    let comparison: Value = serde_json::from_slice(&fs::read(out.join("comparison.json")).unwrap()).unwrap();
    let metrics = comparison["points"][0]["metrics"].as_array().unwrap();
    let e2e = metrics.iter().find(|metric| metric["metric"] == "avg_e2e_s").unwrap();
    assert_eq!(e2e["decision"], "slower");
    // 2 ms to the first token, and a millisecond for each of 23 more instead of 15.
    assert!((e2e["ratio"].as_f64().unwrap() / (25.0 / 17.0) - 1.0).abs() < 0.1, "{e2e}");
    assert!(fs::read_to_string(out.join("comparison.html")).unwrap().contains("B is WORSE"));

    let dir = out.display().to_string();
    let again = bench().args(["compare", &dir, "--format", "json"]).output().unwrap();
    let recomputed: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        (again.status.code(), &recomputed["points"]),
        (Some(1), &comparison["points"]),
        "from the recorded runs"
    );
    let only_itl = bench()
        .args(["compare", &dir, "--metric", "p50_itl_s", "--slo", "avg_e2e_s=9", "--threshold", "100%"])
        .output()
        .unwrap();
    assert_eq!(only_itl.status.code(), Some(if_valid(&out, 0)), "{}", String::from_utf8_lossy(&only_itl.stdout));
    refused(
        &bench().args(["compare", &dir, "--metric", "p98_itl_s"]).output().unwrap_or_else(|e| panic!("{e}")),
        2,
        &["there is no metric p98_itl_s"],
    );
}

#[test]
fn comparison_in_which_numbers_are_absent_is_no_success() {
    let _one = one_engine();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let measure = |folder: &Path, tokens: &str| {
        let mut command = command(folder, &["--repeats", "2"]);
        let script = format!("requests: [{{first_ns: 2000000, gap_ns: 1000000{tokens}}}]");
        fs::write(folder.join("script.yaml"), script).unwrap();
        command.output().unwrap();
        folder.join("out").display().to_string()
    };
    // Three tokens of the sixteen that are asked: every run is INVALID.
    let (a, b) = (measure(folders[0].path(), ""), measure(folders[1].path(), ", tokens: 3"));
    let (a, b) = (a.as_str(), b.as_str());
    let compare = |args: &[&str]| bench().arg("compare").args(args).output().unwrap();
    let with_itself = compare(&[a, a]);
    assert_eq!(with_itself.status.code(), Some(if_valid(&folders[0].path().join("out"), 0)), "{with_itself:?}");
    let without_numbers = compare(&[a, b]);
    refused(&without_numbers, 2, &["nothing could be decided: no metric has a number on both sides"]);
    let said = String::from_utf8_lossy(&without_numbers.stdout);
    assert!(
        said.contains("B is not whole: of 2 planned runs 2 measured, 0 valid") && said.contains("B: INVALID i16"),
        "{said}"
    );
    let objective = "nothing could be decided: no number for the objective p99_e2e_s of i16-o16-p0-n4 in A";
    refused(&compare(&[a, a, "--slo", "p99_e2e_s=1"]), 2, &[objective]);
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    for (ab, words) in [
        ("output_len", "give KEY=A,B"),
        ("output_length=1,2", "unknown axis `output_length`"),
        ("output_len=1,x", "output_len"),
        ("repeats=1,2", "repeats"),
    ] {
        refused(&command(folder.path(), &["--ab", ab]).output().unwrap(), 2, &["--ab ", words]);
    }
    assert!(!folder.path().join("out").exists());
    let dir = folder.path().display().to_string();
    let output = bench().args(["compare", &dir]).output().unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
}

#[test]
fn a_point_is_measured_until_it_is_known_well_enough() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), &["--until-ci", "50%"]).output().unwrap();
    refused(&output, 0, &["40 rounds", "i16-o16-p0-n4: known to ±"]);
    let runs = summary(&folder.path().join("out"))["runs"].as_array().unwrap().len();
    assert!((5..40).contains(&runs), "{runs} runs");
}
