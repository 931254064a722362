//! Quantization on the real engine: what it is asked for, what it holds, and what becomes of a label that it does not bear out.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{ARGS, config, one_engine, refused, run, summary};

/// Engine arguments that vLLM can quantize with at load.
fn args() -> String {
    ARGS.replace("float32", "bfloat16")
}

const LENGTHS: &str = "    num_prompts: 4\n    repeats: 1\n    length_configs: [{input_len: 32, output_len: 8}]\n";

fn measure(file: &Path, out: &Path) -> (std::process::Output, Vec<Value>) {
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &out.display().to_string()]);
    let runs = summary(out)["runs"].as_array().unwrap().clone();
    (output, runs)
}

/// Dtypes, methods and kernels of the layers of a run's engine, each once.
fn layers(run: &Value) -> Vec<[Option<&str>; 3]> {
    let layers = run["engine_facts"]["weights"]["layers"].as_array().unwrap();
    assert_eq!(layers.iter().map(|layer| layer["count"].as_u64().unwrap()).sum::<u64>(), 16, "{layers:?}");
    let mut found: Vec<_> =
        layers.iter().map(|layer| ["dtype", "method", "kernel"].map(|key| layer[key].as_str())).collect();
    found.dedup();
    found
}

#[test]
fn fp8_is_measured_verified_and_compared_with_none_in_one_report() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let file = config(folder.path(), &args(), &format!("{LENGTHS}    matrix: {{quantization: [none, fp8]}}\n"));
    let out = folder.path().join("out");
    let (output, runs) = measure(&file, &out);
    refused(&output, 0, &["2 engine loads", "--quantization fp8_per_channel"]);
    let [none, fp8] = &runs[..] else { panic!("{runs:?}") };
    for (run, label) in [(none, "none"), (fp8, "fp8")] {
        assert_eq!((run["quantization"].as_str(), run["status"].as_str()), (Some(label), Some("valid")), "{run}");
    }
    assert_eq!(layers(none), [[Some("bfloat16"), Some("UnquantizedLinearMethod"), None]]);
    let kernel = layers(fp8)[0][2].unwrap();
    assert_eq!(layers(fp8), [[Some("float8_e4m3fn"), Some("Fp8PtpcOnlineLinearMethod"), Some(kernel)]]);
    let log = fs::read_to_string(out.join("sidecar.log")).unwrap();
    assert!(log.contains(&format!("Selected {kernel} for")), "what vLLM says itself");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("float8_e4m3fn") && shown.contains(kernel) && shown.contains("-fp8"), "{shown}");
    let points = summary(&out)["points"].as_array().unwrap().clone();
    assert_eq!(points[1]["weights"], fp8["engine_facts"]["weights"]);
}

#[test]
fn fp4_on_cpu_is_refused_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = config(folder.path(), &args(), &format!("{LENGTHS}    quantization: fp4\n"));
    let output = run(&["engine", "--config", &file.display().to_string()]);
    refused(&output, 2, &["sweep.yaml:9:19", "no FP4 kernel", "`fp8`"]);
}

#[test]
fn layers_that_vllm_leaves_unquantized_without_a_word_make_the_run_invalid() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let ignore_all = r#"--quantization fp8_per_channel --quantization-config '{"ignore": ["*"]}'"#;
    let file = config(folder.path(), &format!("{} {ignore_all}", args()), LENGTHS);
    let (output, runs) = measure(&file, &folder.path().join("out"));
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((runs[0]["quantization"].as_str(), runs[0]["status"].as_str()), (Some("fp8"), Some("invalid")));
    let reason = "labelled fp8, and 0.0 % of the weights of 16 layers are FP8: bfloat16 in 16";
    assert_eq!(runs[0]["reasons"], serde_json::json!([reason]));
}
