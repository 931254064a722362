//! What an engine could never take: ranks that it cannot have, prompts that no step is long enough for, a cache that is too small.

use bench::device::DeviceClass;
use bench::plan::EngineKey;
use bench::resolve::Overrides;

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
    let text = entry("args: --model m -pp 2 --enforce-eager\nworkload: chatbot");
    let found = problems(&text);
    assert!(found.len() == 1 && found[0].contains("with `--enforce-eager` in `args` is refused on cpu"), "{found:?}");
    plan_with(&text, Overrides { device: Some(DeviceClass::Cuda), ..Overrides::default() }).unwrap();
    key("-pp 2");
    key("-pp 2 --enforce-eager --no-enforce-eager");
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
    let space = |gib| Overrides { kv_cache_gib: Some(gib), ..Overrides::default() };
    plan_with(&bytes("2M"), space(1)).unwrap();
    let error = plan_with(&bytes("4M"), space(0)).unwrap_err().to_string();
    assert!(error.contains(":5:16: the KV cache has 0 blocks for requests, by VLLM_CPU_KVCACHE_SPACE"), "{error}");
    let cuda = Overrides { device: Some(DeviceClass::Cuda), ..space(0) };
    plan_with(&bytes("4M"), cuda).unwrap();
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
