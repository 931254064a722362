//! Settings of the loaded engine against what the arguments and the labels say.

use bench::analysis::metrics::RunMetrics;
use bench::analysis::verdict::Verdict;
use bench::measurement::timeline::{EngineFacts, EngineSetting, Timeline};
use bench::presentation::report::{Report, Results, TableFormat, rebuild, table};

use super::sketch::{session, typical_run};

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

/// The report of a point's runs, the last of which was measured with another engine.
fn report_of_two_engines(change: impl Fn(&mut EngineFacts)) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    for repeat in 0..3 {
        let mut run = typical_run("a", repeat, 8);
        if repeat == 2 {
            change(run.run.engine_facts.as_mut().unwrap());
        }
        results.add(&run).unwrap();
    }
    let report = results.finish().unwrap();
    assert_eq!(rebuild(folder.path()).unwrap(), report);
    report
}

#[test]
fn runs_of_one_point_with_different_engines_are_not_put_together() {
    let differing = report_of_two_engines(|facts| {
        facts.max_model_len = 8192;
        facts.other.insert("dtype".to_owned(), "bfloat16".into()); // not known of the others
        facts.weights.as_mut().unwrap().workers = 2;
    });
    let [point] = &differing.points[..] else { panic!("{:?}", differing.points) };
    assert_eq!((point.num_valid, point.num_prompts), (3, 0));
    assert!(point.values.0.iter().all(|(_, value)| value.is_none()), "{:?}", point.values);
    let said = "different engines, not pooled: repeats 0 and 2 differ in max_model_len (4096; 8192), weights";
    assert_eq!(point.warnings[0], said);
    assert_eq!(point.different_engines.as_deref(), Some(said));
    let text = table(&differing, TableFormat::Table, false);
    assert!(text.lines().any(|line| line == format!("ENGINES DIFFER a: {said}")), "{text}");
    assert!(!text.contains("warning: a: different engines") && !text.contains("valid 3/3"), "{text}");
    assert!(text.contains("MISSING 2/5, ENGINES DIFFER"), "{text}");
    // The plan asked for no more.
    let whole = |mut report: Report| {
        report.coverage = None;
        report.exit_status()
    };
    assert_eq!((whole(differing), whole(report_of_two_engines(|_| ()))), (1, 0));
}

#[test]
fn what_differs_from_load_to_load_is_no_other_engine() {
    let same = report_of_two_engines(|facts| {
        facts.num_kv_blocks = Some(99);
        facts.other.insert("process".to_owned(), "fresh".into());
    });
    assert!(same.points[0].values.0.iter().any(|(_, value)| value.is_some()));
    assert!(
        same.points[0].warnings.iter().all(|warning| !warning.contains("engines")),
        "{:?}",
        same.points[0].warnings
    );
}
