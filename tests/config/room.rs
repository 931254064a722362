//! What an engine could never take: ranks that it cannot have, prompts that no step is long enough for, a cache that is too small.

use bench::machine::device::DeviceClass;
use bench::question::plan::EngineKey;
use bench::question::resolve::{CpuKvSpace, Overrides};

use crate::{entry, plan_of, plan_with, problems};

fn key(args: &str) -> EngineKey {
    let text = entry(&format!("args: --model m {args}\nworkload: chatbot"));
    plan_of(&text).epochs[0].key.clone()
}

#[test]
fn ranks_are_all_processes_that_compute_by_long_and_short_names() {
    for (args, ranks, words) in [
        ("", 1, "tensor parallel 1"),
        ("-tp 2", 2, "tensor parallel 2"),
        ("--pipeline-parallel-size 2", 2, "2 ranks (tensor parallel 1 x pipeline parallel 2)"),
        ("-tp=2 -pp=3", 6, "6 ranks (tensor parallel 2 x pipeline parallel 3)"),
        ("-tp 2 --prefill_context_parallel_size=2", 4, "4 ranks (tensor parallel 2 x prefill context parallel 2)"),
        ("-pcp 2", 2, "2 ranks (tensor parallel 1 x prefill context parallel 2)"),
        ("-tp 2 -dcp 2", 2, "tensor parallel 2"),
    ] {
        let key = key(args);
        assert_eq!((key.ranks(), key.ranks_in_words().as_str()), (ranks, words), "{args}");
    }
}

#[test]
fn ranks_of_other_hosts_are_told_from_those_of_this_one() {
    for (args, is_spread) in [
        ("", false),
        ("--distributed-executor-backend mp", false),
        ("--distributed-executor-backend=ray", true),
        ("--distributed-executor-backend mp --nnodes 2", true),
        ("-n 2", true),
    ] {
        assert_eq!(key(args).is_spread_over_hosts(), is_spread, "{args}");
    }
}

#[test]
fn data_parallelism_is_refused_by_name() {
    for (args, flag) in [
        ("--data-parallel-size 2", "--data-parallel-size"),
        ("--data_parallel_size=4", "--data-parallel-size"),
        ("-dp 2", "--data-parallel-size"),
        ("--data-parallel-rank 0", "--data-parallel-rank"),
        ("-dpe", "--data-parallel-external-lb"),
    ] {
        let found = problems(&entry(&format!("args: --model m {args}\nworkload: chatbot")));
        let wanted = format!("4:11 `{flag}` in `args` is refused: data parallelism runs several engines");
        assert!(found.len() == 1 && found[0].starts_with(&wanted), "{args}: {found:?}");
    }
    assert_eq!(key("--data-parallel-size 1").ranks(), 1);
}

#[test]
fn pipeline_stages_without_a_warm_up_are_refused_on_cpu() {
    for (args, named) in [
        ("--enforce-eager", "--enforce-eager"),
        ("--enable-lora", "--enable-lora"),
        ("-O0", "--optimization-level"),
        ("-O 0", "--optimization-level"),
        ("-O=0", "--optimization-level"),
        ("--optimization_level=0", "--optimization-level"),
        (r#"--compilation-config '{"mode": 0}'"#, "--compilation-config"),
        (r#"-cc '{"mode": "NONE"}' -O3"#, "--compilation-config"),
        ("-cc.mode=none", "--compilation-config"),
    ] {
        let text = entry(&format!("args: >-\n  --model m -pp 2 {args}\nworkload: chatbot"));
        let found = problems(&text);
        assert!(
            found.len() == 1 && found[0].contains(&format!("with `{named}` in `args` is refused on cpu")),
            "{args}: {found:?}"
        );
        plan_with(&text, Overrides { device: Some(DeviceClass::Cuda), ..Overrides::default() }).unwrap();
    }
    key("-pp 2");
    key("-pp 2 --enforce-eager --no-enforce-eager");
    key("-pp 2 -O1");
    key("-pp 2 -O0 -cc.mode=3");
}

/// The tiny model: a block of 128 tokens takes 512 KiB in 16 bits.
fn tiny(args: &str, lines: &str) -> String {
    entry(&format!("args: --model builtin:tiny-llama {args}\n{lines}"))
}

#[test]
fn a_prompt_that_no_step_is_long_enough_for_is_refused_at_the_limit() {
    let whole = "--no-enable-chunked-prefill";
    let lines = "input_len: 500\noutput_len: 8\nnum_prompts: 4\nlimits: {max_num_batched_tokens: 128}";
    let found = problems(&tiny(whole, lines));
    assert!(found.len() == 1 && found[0].starts_with("8:38 a prompt with 500 tokens to compute is never"), "{found:?}");
    assert!(found[0].contains("the limit `max_num_batched_tokens` allows 128 tokens in a step"), "{found:?}");
    plan_of(&tiny("", lines));
    plan_of(&tiny(&format!("{whole} --enable-chunked-prefill"), lines));
    plan_of(&tiny(whole, &lines.replace("128}", "500}")));

    let cut = format!("{whole} --long-prefill-token-threshold 128");
    plan_of(&tiny(&cut, &format!("{lines}\nwarmup: 2")));
    for alone in ["warmup: 1", "warmup: 0\nconcurrency: 1"] {
        assert_eq!(problems(&tiny(&cut, &format!("{lines}\n{alone}"))).len(), 1, "{alone}");
    }
    let found = problems(&tiny(&cut.replace("128", "200"), &format!("{lines}\nwarmup: 2")));
    assert!(found[0].contains("a prompt with 200 tokens to compute"), "{found:?}");

    let prefixed = |lines: &str| format!("{lines}\nprefix_len: 384");
    plan_of(&tiny(whole, &prefixed(&lines.replace("128}", "384}"))));
    let found = problems(&tiny(whole, &prefixed(&lines.replace("128}", "383}"))));
    assert!(found[0].contains("a prompt with 384 tokens to compute"), "the prefix is primed first: {found:?}");
    let found =
        problems(&tiny(&format!("{whole} --no-enable-prefix-caching"), &prefixed(&lines.replace("128}", "384}"))));
    assert!(found[0].contains("a prompt with 500 tokens to compute"), "{found:?}");

    let built = format!("{whole} --max-num-batched-tokens 256 --max-model-len 1024");
    let found = problems(&tiny(&built, "input_len: 500\noutput_len: 8"));
    assert!(
        found[0].starts_with("4:11 ") && found[0].contains("`--max-num-batched-tokens` in `args` allows 256"),
        "{found:?}"
    );
    let scripted = Overrides { scripted: true, ..Overrides::default() };
    plan_with(&tiny(whole, lines), scripted).unwrap();
}

#[test]
fn a_cache_that_is_too_small_for_a_request_is_refused_before_the_load() {
    let lines = "input_len: 500\noutput_len: 12\nnum_prompts: 4";
    let of = |blocks: u64| tiny(&format!("--max-model-len 512 --num-gpu-blocks-override {blocks}"), lines);
    plan_of(&of(5));
    let found = problems(&of(4));
    let wanted = "4:11 the KV cache has 3 blocks for requests, by `--num-gpu-blocks-override` in `args`, and the longest sequence";
    assert!(found.len() == 1 && found[0].starts_with(wanted), "{found:?}");
    let bytes = |bytes: &str| tiny(&format!("--max-model-len auto --kv-cache-memory-bytes {bytes}"), lines);
    plan_of(&bytes("4M"));
    let found = problems(&bytes("2M"));
    assert!(found[0].contains("by `--kv-cache-memory-bytes` in `args`, and one request"), "{found:?}");

    // On cpu the variable counts more than the flag.
    let space = |gib| Overrides { kv_space: CpuKvSpace::Gib(gib), ..Overrides::default() };
    plan_with(&bytes("2M"), space(1)).unwrap();
    let error = plan_with(&bytes("4M"), space(0)).unwrap_err().to_string();
    assert!(error.contains(":5:16: the KV cache has 0 blocks for requests, by VLLM_CPU_KVCACHE_SPACE"), "{error}");
    let cuda = Overrides { device: Some(DeviceClass::Cuda), ..space(0) };
    plan_with(&bytes("4M"), cuda).unwrap();
}

/// A model folder with this `config.json`, and an entry on cpu that uses it.
fn on_model(sizes: &str, args: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(r#"{{"model_type": "llama", "max_position_embeddings": 131072, {sizes}}}"#);
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let text = entry(&format!(
        "args: --model {} {args}\ninput_len: 500\noutput_len: 12\nnum_prompts: 4",
        folder.path().display()
    ));
    (folder, text)
}

#[test]
fn model_of_absurd_size_is_left_to_the_load() {
    for layers in [1u64 << 59, u64::MAX, 0] {
        let sizes = format!(
            r#""num_hidden_layers": {layers}, "hidden_size": 4096, "num_attention_heads": 32, "head_dim": 128"#
        );
        plan_of(&on_model(&sizes, "--kv-cache-memory-bytes 1M").1);
    }
    let huge_block = "--kv-cache-memory-bytes 1M --block-size 4294967295";
    let sizes = format!(r#""num_hidden_layers": {}, "num_attention_heads": 1, "head_dim": 8"#, 1u64 << 56);
    plan_of(&on_model(&sizes, huge_block).1);
}

#[test]
fn cache_of_the_cpu_profile_that_is_too_small_is_refused() {
    // 16 GiB for 131072 tokens in 16 bits; the profile gives 4 GiB.
    let sizes = r#""num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8"#;
    let (_folder, text) = on_model(sizes, "");
    let found = problems(&text);
    let wanted =
        "5:16 the KV cache has 255 blocks for requests, by VLLM_CPU_KVCACHE_SPACE, which bench sets where you do not";
    assert!(found.len() == 1 && found[0].starts_with(wanted), "{found:?}");
    for space in [CpuKvSpace::Gib(17), CpuKvSpace::NoNumber] {
        plan_with(&text, Overrides { kv_space: space, ..Overrides::default() }).unwrap();
    }
    let with = |args: &str| on_model(sizes, args);
    plan_of(&with("--max-model-len 32000").1);
    plan_of(&with("--kv-cache-memory-bytes 17G").1);
    plan_of(&with("--config x.yaml").1);
    // Any engine with a size of its own keeps bench from setting the variable.
    let axis = "\n    matrix: {args: [--block-size 64, --kv-cache-memory-bytes 17G]}";
    plan_of(&format!("{}{axis}", text.trim_end()));
}

#[test]
fn lengths_that_a_file_of_args_may_set_are_left_to_the_load() {
    let sizes = r#""num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8"#;
    let long = |args: &str| {
        let (folder, text) = on_model(sizes, args);
        (folder, text.replace("input_len: 500", "input_len: 200000"))
    };
    assert!(problems(&long("").1)[0].contains("`max_position_embeddings` in the model's config.json allows"));
    for args in ["--config x.yaml", "--config=x.yaml", "--config-format mistral", "--hf_overrides.rope_theta 1"] {
        plan_of(&long(args).1);
    }
}

#[test]
fn prefixes_that_cannot_stay_in_the_cache_are_refused() {
    let lines = |prefixes: u32| {
        format!("input_len: 500\noutput_len: 12\nnum_prompts: 6\nprefix_len: 384\nnum_prefixes: {prefixes}")
    };
    let of = |blocks: u64, prefixes| {
        tiny(&format!("--max-model-len 512 --num-gpu-blocks-override {blocks}"), &lines(prefixes))
    };
    plan_of(&of(11, 3));
    let found = problems(&of(10, 3));
    let wanted =
        "3 prefixes of 3 blocks of 128 tokens, and the 1 more of a prompt, take 10 blocks: prefixes would be dropped";
    assert!(found.len() == 1 && found[0].contains(wanted), "{found:?}");
    plan_of(&of(10, 2));
}
