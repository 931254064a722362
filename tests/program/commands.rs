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
    let missing = ["--device tpu", "vendor 0x1ae0 in /sys/bus/pci/devices", "to get it"];
    let lazy = given(&ARGS.replace("--enforce-eager", "").replace("--kv-cache-memory-bytes 1073741824", ""), lengths);
    refused(&run(&["engine", "--config", &lazy, "--device", "tpu"]), 3, &missing);
    let missing = ["device class cuda is not on this machine", "libnvidia-ml.so.1", "to get it"];
    refused(&run(&["engine", "--config", &lazy, "--device", "cuda"]), 3, &missing);
    refused(&run(&["calibrate", "--short", "--observer", "--device", "cuda"]), 3, &missing);
    refused(&run(&["calibrate", "--short", "--device", "cuda"]), 2, &["--observer"]);
    let eager = given(ARGS, lengths);
    refused(
        &run(&["engine", "--config", &eager, "--device", "tpu"]),
        2,
        &["sweep.yaml:4", "`--enforce-eager` is refused"],
    );
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
    for text in [
        "1 point",
        "1 engine load",
        "7900",
        "tensor parallel 8",
        "Estimated time: not known yet",
        "--model meta-llama/Llama-3.1-70B-Instruct --tensor-parallel-size 8 --async-scheduling\n",
        "vllm-tpu==0.32.0",
        "3.12 needed",
        "variable JAX_PLATFORMS=tpu\n",
        "variable VLLM_XLA_CHECK_RECOMPILATION=1\n",
        "/vllm/tpu-0.32.0/xla_cache\n",
    ] {
        assert!(plan.contains(text), "{text:?} is not in: {plan}");
    }
}

#[test]
fn a_dry_run_for_gpus_shows_what_they_are_given_and_leaves_out_what_is_of_the_cpu() {
    let output = run(&["engine", "--device", "cuda", "--dry-run"]);
    assert_eq!(output.status.code(), Some(0));
    let plan = String::from_utf8(output.stdout).unwrap();
    for text in ["vllm==0.32.0", "3.11 to 3.13 needed", "variable CUDA_DEVICE_ORDER=PCI_BUS_ID\n", "--async-scheduling"]
    {
        assert!(plan.contains(text), "{text:?} is not in: {plan}");
    }
    assert!(!plan.contains("VLLM_CPU_") && !plan.contains("OMP_NUM_THREADS"), "{plan}");
}

#[test]
fn a_variable_that_a_class_is_refused_with_is_named_with_what_to_do() {
    let mut command = crate::bench();
    command.args(["engine", "--device", "tpu", "--dry-run"]).env("SKIP_JAX_PRECOMPILE", "1");
    refused(&command.output().unwrap(), 2, &["SKIP_JAX_PRECOMPILE is set", "refused on tpu", "unset it"]);
    command.env("SKIP_JAX_PRECOMPILE", "0");
    assert_eq!(command.output().unwrap().status.code(), Some(0));

    let mut command = crate::bench();
    command.args(["engine", "--device", "cpu", "--dry-run"]).env("VLLM_DP_SIZE", "2");
    refused(&command.output().unwrap(), 2, &["VLLM_DP_SIZE is set", "several engines", "measure one replica"]);
    command.env("VLLM_DP_SIZE", "1");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

#[test]
fn the_doctor_says_by_its_exit_status_whether_a_class_can_be_measured_here() {
    let output = run(&["doctor", "--device", "tpu", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["classes"][0]["is_present"], false);
    let output = run(&["doctor"]);
    assert_eq!(output.status.code(), Some(0), "all classes are shown, none is asked for");
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["cpu can be measured here", "cuda is not on this machine", "tpu is not on this machine"] {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
}

#[test]
fn a_plan_of_two_classes_needs_both_devices_and_a_python_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let other = "  - {name: u, mode: vllm_throughput, args: --model m, workload: chatbot, device: tpu}\n";
    let file = config(folder.path(), "--model m", &format!("    workload: chatbot\n{other}"));
    let file = file.display().to_string();
    let output = run(&["engine", "--config", &file, "--dry-run"]);
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.contains("Environment of cpu") && plan.contains("Environment of tpu"), "{plan}");
    refused(&run(&["engine", "--config", &file]), 3, &["device class tpu is not on this machine"]);
    let one = run(&["engine", "--config", &file, "--python", "python3"]);
    refused(&one, 2, &["--python gives one interpreter", "2 device classes (cpu, tpu)", "--device"]);
}
