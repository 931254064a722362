//! The text of a plan, and its estimated time.

use std::fs;

use bench::machine::device::DeviceClass;
use bench::presentation::plan_text::{self, Detail};
use bench::question::config;
use bench::question::plan::{self, EngineKey, Estimate, History, LoadTimes, Plan, Point, RunTimes};
use bench::question::resolve::{self, Overrides};

use crate::{entry, load, plan_of, points};

fn two_engines() -> Plan {
    plan_of(
        "
defaults: {model: m, input_len: 100, output_len: 11, repeats: 2}
standalone_runs:
  - {name: a, mode: vllm_throughput, matrix: {num_prompts: [1, 8]}}
  - {name: b, mode: vllm_throughput, num_prompts: 1, args: --enforce-eager}
",
    )
}

fn loaded(load_s: f64) -> Option<LoadTimes> {
    Some(LoadTimes { load_s, warm_up_s: None })
}

#[test]
fn without_a_measurement_there_is_no_estimate() {
    let plan = two_engines();
    let estimate = plan::estimate(&plan, &History::default(), 2);
    assert_eq!(estimate, Estimate { epochs: vec![None, None], imports_s: None, pair_spreads: None });
    let text = plan_text::render(&plan, &estimate, Detail::Full);
    assert!(
        text.contains("Estimated time: not known yet: none of these 2 engines has ever been measured on this machine"),
        "{text}"
    );
    // (1 + 8 + 1) requests, twice each.
    assert!(text.contains("2 engine loads, 6 runs, 2,000 prompt tokens, 220 output tokens"), "{text}");

    let smoke = resolve::resolve(&config::builtin_smoke(DeviceClass::Cpu), Overrides::default()).unwrap();
    let text = plan_text::render(&smoke, &plan::estimate(&smoke, &History::default(), 2), Detail::Full);
    assert!(text.contains("not known yet: this engine has never been measured on this machine"), "{text}");
    for point in points(&smoke) {
        assert!(text.contains(&point.point), "{text}");
    }
}

#[test]
fn an_estimate_is_what_was_measured() {
    let plan = two_engines();
    let (first, second) = (&plan.epochs[0], &plan.epochs[1]);
    let run = |point, run_s| RunTimes {
        point,
        run_s,
        prefill_s: 1.0,
        prefill_tokens: 100,
        decode_s: 2.0,
        decode_steps: 10,
        values: &[],
    };
    let mut history = History::default();
    // 2 s a run on average: nothing, 1 s of prompt tokens, 2 s in ten steps.
    history.record(&first.key, 2, loaded(20.0), &[run(&first.points[0], 3.0), run(&first.points[0], 4.0)]);
    let known = plan::estimate(&plan, &history, 2);
    let epoch = known.epochs[0].unwrap();
    assert_eq!((epoch.load_s, epoch.measured_runs, epoch.derived_runs), (20.0, 2, 2));
    // The point with 8 prompts: 0.5 s overhead, 800 tokens at 0.01 s, 10 steps at 0.2 s.
    let derived = 0.5 + 8.0 + 2.0;
    assert!((epoch.runs_s - (2.0 * 3.5 + 2.0 * derived)).abs() < 1e-9, "{epoch:?}");
    assert_eq!(known.total_s(), None, "the second engine is not known");
    let text = plan_text::render(&plan, &known, Detail::Full);
    assert!(text.contains("not known yet: 1 of these 2 engines never measured on this machine"), "{text}");
    assert!(text.contains("estimated: load 20 s, runs 28 s"), "{text}");
    assert_eq!(plan::estimate(&plan, &history, 3).epochs[0], None, "another machine");

    history.record(&second.key, 2, loaded(1.0), &[run(&second.points[0], 4.0)]);
    // A later epoch on an engine that was kept warm has no load to remember.
    history.record(&first.key, 2, None, &[run(&first.points[1], 5.0)]);
    let known = plan::estimate(&plan, &history, 2);
    assert_eq!(known.total_s(), Some(20.0 + 2.0 * 3.5 + 2.0 * 5.0 + 1.0 + 2.0 * 4.0));
    let text = plan_text::render(&plan, &known, Detail::Short);
    let basis =
        "every point has been measured on this machine before; without the import of vLLM, which was never timed here";
    assert!(text.contains(&format!("Estimated time: 46 s ({basis})")), "{text}");
    let alone = "A process per point would take 3 engine loads and as many imports of vLLM: 20 s more of loading";
    assert!(text.contains(alone), "{text}");

    history.record_import(DeviceClass::Cpu, 8.0);
    let warm = LoadTimes { load_s: 20.0, warm_up_s: Some(2.0) };
    history.record(&first.key, 2, Some(warm), &[run(&first.points[1], 5.0)]);
    let known = plan::estimate(&plan, &history, 2);
    assert_eq!(known.total_s(), Some(8.0 + 2.0 + 46.0));
    let text = plan_text::render(&plan, &known, Detail::Short);
    assert!(text.contains("Estimated time: 56 s (every point has been measured on this machine before)"), "{text}");
    assert!(text.contains("estimated: load 20 s, warm-up 2.0 s, runs 17 s"), "{text}");
    // Three processes: two imports of 8 s and a load of 20 s more than this plan's one import and two loads.
    assert!(text.contains("3 engine loads and as many imports of vLLM: 36 s more, 92 s in all"), "{text}");
}

#[test]
fn a_point_that_runs_in_waves_is_estimated_in_waves() {
    let plan = plan_of(&entry(
        "model: m\ninput_len: 100\noutput_len: 11\nprefix_len: 60\nrepeats: 1\nmatrix: {num_prompts: [2, 8], concurrency: [2]}",
    ));
    let epoch = &plan.epochs[0];
    let point = &epoch.points[0];
    let mut history = History::default();
    let times = RunTimes {
        point,
        run_s: 3.0,
        prefill_s: 1.0,
        prefill_tokens: 100,
        decode_s: 2.0,
        decode_steps: 10,
        values: &[],
    };
    history.record(&epoch.key, 1, loaded(0.0), &[times]);
    // Of the second point: 60 shared tokens once and 8 x 40 others at 0.01 s, four waves of ten steps at 0.2 s.
    let expected = 3.0 + 3.8 + 8.0;
    let total_s = plan::estimate(&plan, &history, 1).total_s().unwrap();
    assert!((total_s - expected).abs() < 1e-9, "{total_s}");
}

#[test]
fn a_history_survives_its_file_and_a_broken_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deeper/history.json");
    assert_eq!(History::load(&path).unwrap(), History::default());
    let plan = two_engines();
    let point = &plan.epochs[0].points[0];
    let times = RunTimes {
        point,
        run_s: 3.0,
        prefill_s: 1.0,
        prefill_tokens: 100,
        decode_s: 2.0,
        decode_steps: 10,
        values: &[],
    };
    let mut history = History::default();
    history.record(&plan.epochs[0].key, 2, loaded(20.0), &[times]);
    history.save(&path).unwrap();
    history.save(&path).unwrap();
    assert_eq!(History::load(&path).unwrap(), history);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing but the file is left");

    for broken in ["{", "{}", r#"{"schema_version": 99, "records": 0, "engines": {}}"#] {
        fs::write(&path, broken).unwrap();
        let message = History::load(&path).unwrap_err().to_string();
        assert!(message.contains("history.json") && message.contains("delete it"), "{message}");
    }
    // Neither waits nor reads for ever.
    let (pipe, endless) = (folder.path().join("pipe"), folder.path().join("endless"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
    for path in [pipe, endless] {
        let message = History::load(&path).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
    }
}

#[test]
fn a_long_plan_is_cut_on_the_first_screen_only() {
    let numbers: Vec<String> = (1..=30).map(|number| number.to_string()).collect();
    let plan =
        plan_of(&entry(&format!("model: m\nworkload: chatbot\nmatrix: {{num_prompts: [{}]}}", numbers.join(", "))));
    let estimate = plan::estimate(&plan, &History::default(), 2);
    let short = plan_text::render(&plan, &estimate, Detail::Short);
    assert!(short.contains("and 10 points more;"), "{short}");
    let full = plan_text::render(&plan, &estimate, Detail::Full);
    assert!(points(&plan).iter().all(|point| full.contains(&point.point)) && !full.contains("points more;"), "{full}");
}

/// Runs of a point with these means of the E2E, all else as it is.
fn measured(history: &mut History, key: &EngineKey, point: &Point, e2e_s: &[f64]) {
    let values: Vec<Vec<(String, f64)>> = e2e_s.iter().map(|e2e_s| vec![("avg_e2e_s".to_owned(), *e2e_s)]).collect();
    let runs: Vec<RunTimes<'_>> = values
        .iter()
        .map(|values| RunTimes {
            point,
            run_s: 3.0,
            prefill_s: 1.0,
            prefill_tokens: 100,
            decode_s: 2.0,
            decode_steps: 10,
            values,
        })
        .collect();
    history.record(key, 2, None, &runs);
}

/// What the plan says that pairs will find.
fn said_of_pairs(plan: &Plan, history: &History) -> String {
    let text = plan_text::render(plan, &plan::estimate(plan, history, 2), Detail::Short);
    text.lines()
        .find(|line| line.contains(" pairs find ") || line.starts_with("With "))
        .unwrap_or_else(|| panic!("{text}"))
        .to_owned()
}

#[test]
fn a_plan_of_pairs_says_which_change_it_will_find() {
    let entry = |repeats: u32, axis: &str| {
        format!(
            "defaults: {{model: some/model, num_prompts: 2, repeats: {repeats}, input_len: 64, output_len: 4, sentinel: none}}\n\
             standalone_runs:\n  - {{name: t, mode: vllm_throughput, matrix: {{{axis}}}}}\n"
        )
    };
    let lowered = "max_num_seqs: [64, 32], compare: max_num_seqs";
    let plan = plan_of(&entry(10, lowered));
    let unknown = said_of_pairs(&plan, &History::default());
    assert!(unknown.contains("10 pairs find a change of 1.24 times the spread"), "{unknown}");
    assert!(unknown.contains("1 % where that spread is at most 0.80 %"), "{unknown}");
    let few = said_of_pairs(&plan_of(&entry(4, lowered)), &History::default());
    assert!(few.contains("With 4 pairs nothing is decided"), "{few}");

    // Neighbours differ by 1 %, to and fro, on one side, and by nothing on the other.
    let epoch = &plan.epochs[0];
    let [a, b] = [&epoch.points[0], &epoch.points[1]];
    let mut history = History::default();
    let steps: Vec<f64> = (0..20).map(|run| if run % 2 == 0 { 1.0 } else { 0.01f64.exp() }).collect();
    measured(&mut history, &epoch.key, a, &steps);
    assert_eq!(said_of_pairs(&plan, &history), unknown, "one side alone says nothing of a pair");
    measured(&mut history, &epoch.key, b, &[1.0; 20]);
    let estimate = plan::estimate(&plan, &history, 2);
    let spread = estimate.pair_spreads.as_ref().unwrap()["avg_e2e_s"][0];
    assert!((spread.sd - 0.01 / 2f64.sqrt()).abs() < 1e-12, "{spread:?}");
    let known = said_of_pairs(&plan, &history);
    let found = spread.found_from(10).unwrap() * 100.0;
    assert!(known.contains(&format!("avg_e2e_s {found:.2} %")) && known.contains("--repeats"), "{known}");
    // The fewest pairs that find 1 %: one less does not.
    let needed = spread.pairs_for(0.01).unwrap();
    assert!(spread.found_from(needed).unwrap() <= 0.01 && spread.found_from(needed - 1).unwrap() > 0.01, "{needed}");
    assert!(known.contains(&format!("takes --repeats {needed}")), "{known}");

    // A command with fewer runs says less, and does not take the place of what is known.
    measured(&mut history, &epoch.key, a, &[1.0, 2.0, 1.0]);
    assert_eq!(said_of_pairs(&plan, &history), known);

    // How loads differ from each other was not measured.
    let reloading = plan_of(&entry(10, "quantization: [none, fp8], compare: quantization"));
    let mut history = History::default();
    for epoch in &reloading.epochs {
        measured(&mut history, &epoch.key, &epoch.points[0], &steps);
    }
    assert_eq!(said_of_pairs(&reloading, &history), unknown);
}

#[test]
fn a_comparison_of_many_points_has_as_many_pairs_as_hold_against_their_tests() {
    let lengths = |most: u32| (1..=most).map(|length| length.to_string()).collect::<Vec<_>>().join(", ");
    let compared = |most: u32, more: &str, overrides: Overrides| {
        let lines = format!("model: some/model\noutput_len: 4\n{more}\nmatrix: {{input_len: [{}]}}", lengths(most));
        let config = load(entry(&lines)).unwrap().compared("max_num_seqs=64,32").unwrap();
        resolve::resolve(&config, overrides).unwrap()
    };
    let pairs = |most, more| points(&compared(most, more, Overrides::default()))[0].repeats;
    // A test that all pairs agree in has p = 2^(1 - pairs); each point has eight tests, and Holm asks for 0.05 / tests.
    assert_eq!([1, 7, 100].map(|most| pairs(most, "")), [10, 13, 16]);
    assert_eq!(pairs(7, "repeats: 8"), 8, "the configuration's own number");

    let said = |plan: &Plan| plan_text::render(plan, &plan::estimate(plan, &History::default(), 2), Detail::Short);
    let few = said(&compared(7, "", Overrides { repeats: Some(10), ..Overrides::default() }));
    let cannot = "10 pairs of each of 7 points cannot show that anything got worse, however much: Holm's correction over up to 56 \
                  tests takes --repeats 12";
    assert!(few.contains(cannot), "{few}");
    assert!(!said(&compared(7, "", Overrides::default())).contains("cannot show"));
}
