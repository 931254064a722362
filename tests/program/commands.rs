//! What is answered without an engine.

use std::fs;

use crate::{ARGS, config, refused, run};

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
