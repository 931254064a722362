//! Speculative decoding on the real engine: tokens as delivered, drafts apart, and the loaded engine's settings.

use std::fs;

use crate::{ARGS, config, one_engine, refused, run, summary};

const LENGTHS: &str = "    num_prompts: 4\n    repeats: 1\n    length_configs: [{input_len: 64, output_len: 61}]\n";

#[test]
fn speculating_engine_is_measured_by_the_tokens_that_it_delivers() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let speculation = "--speculative-config.method ngram --speculative-config.num_speculative_tokens 4 \
                       --speculative-config.prompt_lookup_max 2 --speculative-config.prompt_lookup_min 1";
    let file = config(folder.path(), &format!("{ARGS} {speculation} --block-size 32"), LENGTHS);
    let out = folder.path().join("out");
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &out.display().to_string()]);
    refused(&output, 0, &[]);
    let run = summary(&out)["runs"][0].clone();
    assert_eq!(run["status"], "valid", "{}", run["reasons"]);
    let drafted = |name: &str| run["speculation"][name].as_u64().unwrap();
    assert!(drafted("drafts") > 0 && drafted("draft_tokens") >= drafted("accepted_tokens"), "{}", run["speculation"]);
    let settings = run["engine_facts"]["settings"].as_array().unwrap();
    let setting = |name: &str| {
        let one = settings.iter().find(|one| one["name"] == name).unwrap();
        (one["asked"].as_str(), one["found"].as_str())
    };
    assert_eq!(setting("speculative_method"), (Some("ngram"), Some("ngram")));
    assert_eq!(setting("num_speculative_tokens"), (Some("4"), Some("4")));
    assert_eq!(setting("block_size"), (Some("32"), Some("32")));
    assert_eq!(setting("kv_cache_dtype"), (None, Some("float32")));
    assert_eq!(setting("attention_backend"), (None, Some("CPU_ATTN")));
    assert_eq!(setting("tensor_parallel_size"), (None, Some("1")));
}

#[test]
fn words_that_a_label_would_not_know_are_refused_before_a_load() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let file = config(folder.path(), &format!("{ARGS} --tensor-parallel 2"), LENGTHS);
    let out = folder.path().join("out").display().to_string();
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &out]);
    refused(&output, 2, &["--tensor-parallel is an abbreviation", "--tensor-parallel-size"]);
    let vllm_config = folder.path().join("vllm.yaml");
    fs::write(&vllm_config, "tensor-parallel-size: 2\n").unwrap();
    let file = config(folder.path(), &format!("{ARGS} --config {}", vllm_config.display()), LENGTHS);
    let out = folder.path().join("other").display().to_string();
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &out]);
    refused(&output, 2, &["`tensor_parallel_size` is 1 here, and vLLM reads 2"]);
}
