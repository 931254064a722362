//! What is wrong with a file is told with its place.

use std::fs;
use std::path::Path;

use bench::machine::device::DeviceClass;
use bench::question::config;
use bench::question::plan::Quantization;
use bench::question::resolve::Overrides;

use crate::{entry, plan_of, plan_with, problems, write};

/// Each wrong entry, where its problem stands, and what the message has to say.
const WRONG_ENTRIES: [(&str, &str, &[&str]); 53] = [
    // Unknown words, with the nearest known one.
    ("lenght_configs: []", "4:5", &["`lenght_configs`", "nearest known one is `length_configs`"]),
    ("workload: chatbt", "4:15", &["`chatbt`", "nearest known one is `chatbot`"]),
    ("workload: CHATBOT", "4:15", &["nearest known one is `chatbot`"]),
    ("device: gpu", "4:13", &["`device`", "`gpu`", "cpu, cuda, tpu"]),
    ("quantization: int8", "4:19", &["`int8`", "fp8"]),
    ("drive: step", "4:12", &["nearest known one is `stepped`"]),
    ("load: open", "4:11", &["nearest known one is `closed`"]),
    ("load: {opened: {}}", "4:12", &["`opened`", "`closed`"]),
    ("load: {closed: {concurency: 2}}", "4:21", &["`concurency`", "`concurrency`"]),
    ("slo: {p99_tftt_s: 1}", "4:11", &["`p99_tftt_s`", "nearest known one is `p99_ttft_s`"]),
    ("limits: {max_seqs: 1}", "4:14", &["`max_seqs`", "`max_num_seqs`"]),
    ("matrix: {num_prompt: [1]}", "4:14", &["`num_prompt`", "`num_prompts`"]),
    ("length_configs: [{input_length: 1, output_len: 1}]", "4:23", &["`input_length`", "`input_len`"]),
    ("model: builtin:tiny-lama", "4:12", &["`builtin:tiny-lama`", "nearest known one is `builtin:tiny-llama`"]),
    ("<<: {repeats: 2}", "4:5", &["merge keys", "defaults"]),
    // Duplicates.
    ("repeats: 1\nrepeats: 2", "5:5", &["`repeats`", "twice"]),
    ("repeats: 1\nargs: --model m --seed 3 --seed 4", "5:11", &["`seed`", "twice"]),
    ("tensor_parallel_sizes: [8, 8]", "4:32", &["8", "twice"]),
    ("matrix: {num_prompts: [1, 2, 1]}", "4:34", &["twice", "`num_prompts`"]),
    // Wrong types and impossible values.
    ("repeats: five", "4:14", &["`repeats`", "whole number from 1 to 1000", "the text `five`"]),
    ("repeats: 0", "4:14", &["from 1 to", "the number 0"]),
    ("repeats: 2.5", "4:14", &["whole number", "2.5"]),
    ("telemetry_hz: 101", "4:19", &["`telemetry_hz`", "from 0 to 100", "101"]),
    ("num_prompts: -1", "4:18", &["`num_prompts`", "the number -1"]),
    ("num_prompts: 4294967297", "4:18", &["`num_prompts`", "4294967297"]),
    ("num_prompts: 99999999999999999999999999999999999999999999", "4:18", &["`num_prompts`", "whole number"]),
    ("seed: 18446744073709551616", "4:11", &["`seed`"]),
    ("input_len: 1e-6", "4:16", &["`input_len`", "whole number"]),
    ("input_len:", "4:15", &["`input_len`", "empty"]),
    ("model: 7", "4:12", &["`model`", "quotes"]),
    ("limits: 3", "4:13", &["`limits`", "table"]),
    ("slo: {p99_ttft_s: -1}", "4:23", &["`p99_ttft_s`", "above 0"]),
    ("slo: {p99_ttft_s: .nan}", "4:23", &["`p99_ttft_s`", "above 0"]),
    ("tensor_parallel_sizes: []", "4:5", &["`tensor_parallel_sizes`", "at least one", "empty list"]),
    ("length_configs: [{input_len: 5}]", "4:23", &["no `output_len`"]),
    ("matrix: {num_prompts: 4}", "4:27", &["`num_prompts`", "a list"]),
    ("args: [--model, m]", "4:12", &["`args`", "text"]),
    ("args: --model 'm", "4:11", &["quote", "not closed"]),
    ("args: '--model m # --seed 3'", "4:11", &["comment"]),
    ("args: --model m --input-len many", "4:11", &["`input_len`", "`many`"]),
    ("args: --model m --output-len", "4:11", &["`--output-len`", "no value"]),
    // The same thing said twice.
    ("args: --num-prompts 4\nnum_prompts: 5", "4:11", &["`--num-prompts`", "line 5", "keep one"]),
    ("args: --model m -tp 2\ntensor_parallel_sizes: [2]", "5:29", &["`--tensor-parallel-size`", "keep one"]),
    ("quantization: fp8\nargs: --model m -q mxfp8\nworkload: chatbot", "4:19", &["`-q`", "`quantization`", "keep one"]),
    ("workload: chatbot\nlength_configs: [{input_len: 1, output_len: 1}]", "5:5", &["`workload`", "keep one"]),
    ("args: --input-len 5\nlength_configs: [{input_len: 1, output_len: 1}]", "5:5", &["`input_len`", "keep one"]),
    ("num_prompts: 5\nmatrix: {num_prompts: [1]}", "5:14", &["`num_prompts`", "`matrix`", "line 4"]),
    // Lengths that fit neither each other nor the model.
    (
        "model: m\ninput_len: 8\noutput_len: 1\nprefix_len: 9",
        "5:16",
        &["prefix of 9", "prompt of 8", "prefix_mode: added"],
    ),
    (
        "args: --model m --max-model-len 1k\nlength_configs: [{input_len: 8, output_len: 993}]",
        "5:34",
        &["8", "993", "1001", "1000", "--max-model-len"],
    ),
    (
        "args: --model builtin:tiny-llama\ninput_len: 2000\noutput_len: 49",
        "5:16",
        &["2049", "2048", "max_position_embeddings"],
    ),
    (
        "args: --model m --max-num-seqs 64\nworkload: chatbot\nlimits: {max_num_seqs: 65}",
        "6:28",
        &["65", "64", "--max-num-seqs"],
    ),
    (
        "args: --model m --max_num_batched_tokens=2K\nworkload: chatbot\nmatrix: {max_num_batched_tokens: [8, 2049]}",
        "6:42",
        &["2049", "2048"],
    ),
    (
        "model: m\nnum_prompts: 1000000\ninput_len: 10000000\noutput_len: 1",
        "5:18",
        &["10000001000000 tokens", "at most"],
    ),
];

#[test]
fn what_is_wrong_in_an_entry_is_told_with_its_place() {
    for (lines, place, words) in WRONG_ENTRIES {
        let text = entry(lines);
        let problems = problems(&text);
        let told = problems.iter().find(|problem| problem.starts_with(&format!("{place} ")));
        let told = told.unwrap_or_else(|| panic!("nothing at {place} for\n{text}\n{problems:#?}"));
        for word in words {
            assert!(told.contains(word), "{told:?} does not say {word:?}");
        }
    }
}

#[test]
fn what_is_missing_is_told() {
    for (text, place, words) in [
        ("defaults: {}", "1:1", "no `standalone_runs`"),
        ("standalone_runs: []", "1:1", "at least one item"),
        ("standalone_run: []", "1:1", "nearest known one is `standalone_runs`"),
        ("[1]", "1:2", "a table"),
        ("- name: a\n  mode: vllm_throughput\n", "1:3", "put `standalone_runs:` on a line above it"),
        ("just text", "1:1", "a table"),
        ("", "1:1", "empty"),
        ("# nothing\n", "", "empty"),
        ("standalone_runs: [{mode: vllm_throughput, model: m, workload: chatbot}]", "1:20", "no `name`"),
        ("standalone_runs: [{name: a, model: m, workload: chatbot}]", "1:20", "mode: vllm_throughput"),
        ("standalone_runs: [{name: a, mode: vllm_latency, model: m}]", "1:35", "`vllm_throughput`"),
        ("standalone_runs: [{name: a, mode: vllm_throughput, workload: chatbot}]", "1:26", "names no model"),
        ("standalone_runs: [{name: a, mode: vllm_throughput, model: m}]", "1:26", "gives no lengths"),
        ("defaults: {name: a}\nstandalone_runs: [{name: a, mode: vllm_throughput}]", "1:12", "belongs into an entry"),
        ("defaults: {repeat: 1}\nstandalone_runs: [{name: a, mode: vllm_throughput}]", "1:12", "`repeats`"),
        ("defaults: {workload: chatbot, input_len: 1}\nstandalone_runs: [x]", "1:22", "keep one"),
    ] {
        let problems = problems(text);
        let told = problems.iter().any(|problem| problem.starts_with(place) && problem.contains(words));
        assert!(told, "{text}: {problems:#?}");
    }
}

#[test]
fn one_look_finds_every_problem() {
    let problems = problems(&entry("repeats: 0\nwarmup: x\nworkload: y"));
    let places: Vec<&str> = problems.iter().filter_map(|problem| problem.split(' ').next()).collect();
    assert_eq!(places, ["4:14", "5:13", "6:15"], "{problems:#?}");
}

#[test]
fn a_message_names_the_file() {
    let (_folder, path) = write(entry("repeats: 0"));
    let message = config::load(&path).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}:4:14: `repeats` has to be", path.display())), "{message}");
}

#[test]
fn fp4_on_a_cpu_is_refused_and_elsewhere_is_not() {
    let text = entry("args: --model m\nworkload: chatbot\nquantization: fp4");
    let problems = problems(&text);
    assert!(problems[0].starts_with("6:19 ") && problems[0].contains("no FP4 kernel"), "{problems:?}");
    let plan = plan_with(&text, Overrides { device: Some(DeviceClass::Cuda), ..Overrides::default() }).unwrap();
    assert_eq!(plan.epochs[0].key.quantization, Quantization::Fp4);
}

#[test]
fn a_model_folder_has_to_be_there_and_hold_a_config() {
    let folder = tempfile::tempdir().unwrap();
    let text = |model: &Path| entry(&format!("model: {}\ninput_len: 90\noutput_len: 11", model.display()));
    let missing = folder.path().join("missing");
    let told = problems(&text(&missing));
    assert!(told[0].starts_with("4:12 ") && told[0].contains("does not exist"), "{told:?}");

    let told = problems(&text(folder.path()));
    assert!(told[0].starts_with("4:12 ") && told[0].contains("`config.json`"), "{told:?}");

    fs::write(folder.path().join("config.json"), "{").unwrap();
    let told = problems(&text(folder.path()));
    assert!(told[0].contains("not JSON"), "{told:?}");

    fs::write(folder.path().join("config.json"), r#"{"max_position_embeddings": 100}"#).unwrap();
    let told = problems(&text(folder.path()));
    assert!(told[0].starts_with("5:16 ") && told[0].contains("101") && told[0].contains("100"), "{told:?}");

    fs::write(folder.path().join("config.json"), r#"{"max_position_embeddings": 101}"#).unwrap();
    let plan = plan_of(&text(&folder.path().join(".")));
    assert_eq!(plan.epochs[0].key.model, folder.path().canonicalize().unwrap().to_string_lossy());
    // With the positions overridden, config.json has no say.
    fs::write(folder.path().join("config.json"), r#"{"max_position_embeddings": 5}"#).unwrap();
    let overridden = entry(&format!(
        "args: >-\n  --model {} --hf-overrides '{{\"max_position_embeddings\": 999}}'\ninput_len: 90\noutput_len: 11",
        folder.path().display()
    ));
    plan_with(&overridden, Overrides::default()).unwrap();
}
