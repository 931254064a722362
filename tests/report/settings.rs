//! Settings of the loaded engine against what the arguments and the labels say.

use bench::metrics::RunMetrics;
use bench::timeline::{EngineSetting, Timeline};
use bench::verdict::Verdict;

use super::sketch::typical_run;

fn setting(name: &str, asked: Option<&str>, found: Option<&str>, differs: bool) -> EngineSetting {
    EngineSetting { name: name.to_owned(), asked: asked.map(str::to_owned), found: found.map(str::to_owned), differs }
}

/// The reasons against a run of vLLM whose engine has these settings.
fn reasons(settings: Vec<EngineSetting>, change: impl FnOnce(&mut Timeline)) -> Vec<String> {
    let mut timeline = typical_run("a", 0, 8);
    timeline.run.engine = "vllm".to_owned();
    timeline.run.engine_facts.as_mut().unwrap().settings = Some(settings);
    change(&mut timeline);
    Verdict::of(&timeline, &RunMetrics::of_timeline(&timeline)).reasons
}

#[test]
fn setting_that_the_loaded_engine_does_not_have_makes_the_run_invalid() {
    let found = vec![
        setting("kv_cache_dtype", Some("fp8"), Some("bfloat16"), true),
        setting("attention_backend", None, Some("CPU_ATTN"), false),
        setting("block_size", Some("16"), None, false),
        setting("tensor_parallel_size", None, Some("1"), false),
    ];
    assert_eq!(reasons(found, |_| ()), ["args ask for kv_cache_dtype fp8, and the loaded engine has bfloat16"]);
}

#[test]
fn label_that_the_loaded_engine_does_not_bear_out_makes_the_run_invalid() {
    let found = vec![setting("tensor_parallel_size", None, Some("2"), false)];
    assert_eq!(reasons(found.clone(), |_| ()), ["labelled tensor_parallel_size 1, and the loaded engine has 2"]);
    assert_eq!(reasons(found.clone(), |run| run.run.engine_key.tensor_parallel_size = 2), Vec::<String>::new());
    assert_eq!(reasons(found, |run| run.run.engine = "scripted".to_owned()), Vec::<String>::new());
}
