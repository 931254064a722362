//! A against B, from recorded runs whose times are known.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bench::analysis::metrics::Metric;
use bench::measurement::timeline::{Outcome, Timeline};
use bench::presentation::comparison::{COMPARISON_SCHEMA, Comparison, Decision, Design, Question};
use bench::presentation::report::{Report, Results, TableFormat};
use bench::question::plan::{Arm, PairMember, Role};

use super::schema;
use super::sketch::{run_in_role, session};

/// What the runs of a pair take, in microseconds: A, then B.
type Pair = (u64, u64);

fn side(arm: Arm, repeat: u32, e2e_us: u64) -> Timeline {
    let name = if arm == Arm::A { "a" } else { "b" };
    let mut run = run_in_role(name, Role::Measured, repeat, e2e_us * 1_000);
    run.run.point.pair = Some(PairMember { pair: 0, arm, axis: "quantization".into(), value: name.into() });
    run.run.round = repeat;
    run
}

fn measured(folder: &Path, runs: impl IntoIterator<Item = Timeline>) -> Report {
    let mut results = Results::create(folder, &session(&["a", "b"])).unwrap();
    for (order, mut run) in runs.into_iter().enumerate() {
        run.run.order = order as u32;
        results.add(&run).unwrap();
    }
    results.finish().unwrap()
}

fn in_pairs(folder: &Path, pairs: &[Pair]) -> Report {
    let runs = pairs.iter().zip(0..).flat_map(|((a, b), repeat)| {
        let both = [side(Arm::A, repeat, *a), side(Arm::B, repeat, *b)];
        if repeat % 2 == 0 { both.to_vec() } else { both.into_iter().rev().collect() }
    });
    measured(folder, runs.collect::<Vec<_>>())
}

fn question(threshold: f64) -> Question {
    let metrics = ["avg_e2e_s", "output_tokens_per_s"].map(|name| Metric::named(name).unwrap());
    Question { metrics: metrics.to_vec(), threshold, slo: BTreeMap::new() }
}

fn compare(pairs: &[Pair], threshold: f64) -> (tempfile::TempDir, Comparison) {
    let folder = tempfile::tempdir().unwrap();
    let report = in_pairs(folder.path(), pairs);
    let comparison = Comparison::of_pairs(&report, folder.path(), &question(threshold)).unwrap();
    (folder, comparison)
}

fn decisions(comparison: &Comparison) -> Vec<Decision> {
    comparison.points[0].metrics.iter().map(|metric| metric.decision).collect()
}

/// Ten pairs that drift far more than B differs: what only pairs can see.
fn drifting(percent: f64) -> Vec<Pair> {
    (0..10u64)
        .map(|pair| 5_000 + 300 * pair)
        .map(|a| (a, (a as f64 * (1.0 + percent / 100.0)) as u64 + a % 7))
        .collect()
}

#[test]
fn every_field_of_a_comparison_is_in_its_schema_and_none_besides() {
    let [folder, few] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let report = in_pairs(folder.path(), &drifting(5.0));
    let question = Question { slo: BTreeMap::from([("avg_e2e_s".to_owned(), 0.006)]), ..question(0.01) };
    for comparison in [
        Comparison::of_pairs(&report, folder.path(), &question).unwrap(),
        Comparison::of_saved((&report, folder.path()), (&report, folder.path()), &question).unwrap(),
        Comparison::of_pairs(&in_pairs(few.path(), &drifting(5.0)[..2]), few.path(), &question).unwrap(),
    ] {
        let json: serde_json::Value = serde_json::from_str(&comparison.render(TableFormat::Json)).unwrap();
        schema::check(COMPARISON_SCHEMA, &json);
    }
}

#[test]
fn a_slower_side_is_found_and_is_a_reason_to_fail() {
    let (folder, comparison) = compare(&drifting(5.0), 0.01);
    assert_eq!(decisions(&comparison), [Decision::Slower, Decision::Slower], "longer times, and lower rates");
    assert!(comparison.got_worse && comparison.is_decided());
    let [point] = &comparison.points[..] else { panic!("{comparison:?}") };
    assert_eq!((point.pairs, point.pairs_left_out, point.runs), (10, 0, [10, 10]));
    let e2e = &point.metrics[0];
    assert!((e2e.ratio.unwrap() - 1.05).abs() < 0.002, "{e2e:?}");
    assert!(e2e.low.unwrap() > 1.04 && e2e.high.unwrap() < 1.06, "{e2e:?}");
    assert_eq!(e2e.p, Some(2.0 / 1024.0), "all ten on one side");
    assert_eq!(e2e.p_holm, Some(4.0 / 1024.0), "the smaller of two");

    let text = comparison.render(TableFormat::Table);
    for words in ["quantization a", "quantization b", "slower", "B is WORSE: slower in 2 of the metrics"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let out = folder.path().join("compared");
    comparison.write(&out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(out.join("comparison.json")).unwrap()).unwrap();
    assert_eq!((&json["design"], &json["got_worse"]), (&"random_pairs".into(), &true.into()));
    assert_eq!(json["points"][0]["metrics"][0]["method"], "signed-rank");
    let page = fs::read_to_string(out.join("comparison.html")).unwrap();
    assert!(page.contains("B is WORSE") && page.contains("avg_e2e_s") && !page.contains("<script"), "{page}");
    for format in [TableFormat::Md, TableFormat::Csv] {
        let text = comparison.render(format);
        assert!(text.lines().filter(|line| line.contains("avg_e2e_s")).count() == 1, "{text}");
    }
}

#[test]
fn a_faster_side_is_found_and_fails_nothing() {
    let (_folder, comparison) = compare(&drifting(-5.0), 0.01);
    assert_eq!(decisions(&comparison), [Decision::Faster, Decision::Faster]);
    assert!(!comparison.got_worse);
}

#[test]
fn a_difference_below_the_threshold_is_told_and_fails_nothing() {
    let (_folder, comparison) = compare(&drifting(0.5), 0.01);
    let e2e = &comparison.points[0].metrics[0];
    assert_eq!((e2e.decision, e2e.is_equivalent), (Decision::Slower, true), "{e2e:?}");
    assert!(!comparison.got_worse);
    let (_folder, strict) = compare(&drifting(0.5), 0.001);
    assert!(strict.got_worse, "where it matters");
}

#[test]
fn without_a_difference_it_is_said_what_would_be_seen() {
    let noisy: Vec<Pair> = (0..10u64).map(|pair| (5_000 + 40 * (pair % 3), 5_000 + 40 * (pair * 7 % 4))).collect();
    let (_folder, comparison) = compare(&noisy, 0.001);
    let e2e = &comparison.points[0].metrics[0];
    assert_eq!(e2e.decision, Decision::NoDifference, "{e2e:?}");
    assert!(e2e.detectable.unwrap() > 0.0005, "{e2e:?}");
    assert!(comparison.render(TableFormat::Table).contains("would be seen in 80 % of the cases"));
    let (_folder, wide) = compare(&noisy, 0.05);
    assert_eq!(wide.points[0].metrics[0].decision, Decision::Equivalent);
}

#[test]
fn too_few_pairs_decide_nothing_and_broken_ones_are_left_out() {
    let (_folder, few) = compare(&drifting(50.0)[..4], 0.01);
    assert_eq!(decisions(&few), [Decision::Insufficient; 2]);
    assert!(!few.is_decided() && !few.got_worse);
    assert!(few.render(TableFormat::Table).contains("4 of the 5 pairs that it takes"));
    let (_folder, five) = compare(&drifting(50.0)[..5], 0.01);
    assert_eq!(decisions(&five), [Decision::Slower; 2]);

    let folder = tempfile::tempdir().unwrap();
    let mut runs: Vec<Timeline> = Vec::new();
    for ((a, b), repeat) in drifting(5.0).into_iter().zip(0..) {
        runs.extend([side(Arm::A, repeat, a), side(Arm::B, repeat, b)]);
    }
    runs[4].run.outcome = Outcome::Failed("it broke".to_owned());
    let mut again = side(Arm::A, 10, 90_000);
    (again.run.round, again.run.retry_of) = (2, Some(2));
    runs.push(again);
    let report = measured(folder.path(), runs);
    let comparison = Comparison::of_pairs(&report, folder.path(), &question(0.01)).unwrap();
    let point = &comparison.points[0];
    assert_eq!((point.pairs, point.pairs_left_out), (9, 1), "what was measured anew did not run beside its partner");
    assert!((point.metrics[0].ratio.unwrap() - 1.05).abs() < 0.002);
}

#[test]
fn a_gate_that_could_not_fail_says_so_and_how_many_pairs_it_takes() {
    let slower = |pairs: u64| (0..pairs).map(|pair| (5_000 + 300 * pair, 10_000 + 600 * pair)).collect::<Vec<Pair>>();
    let of_all_metrics = |pairs: &[Pair]| {
        let folder = tempfile::tempdir().unwrap();
        let all = Question { metrics: Metric::all().collect(), ..question(0.01) };
        Comparison::of_pairs(&in_pairs(folder.path(), pairs), folder.path(), &all).unwrap()
    };
    let comparison = of_all_metrics(&slower(10));
    let tests = comparison.points[0].metrics.iter().filter(|metric| metric.p.is_some()).count();
    assert!((26..52).contains(&tests), "more than ten pairs hold against: {tests}");
    assert!(!comparison.got_worse && !comparison.is_decided(), "twice as slow, and it could not be told");
    let said =
        format!("10 pairs cannot show that anything got worse: against {tests} tests Holm's correction takes 11 that");
    assert!(comparison.remarks.iter().any(|remark| remark.starts_with(&said)), "{:?}", comparison.remarks);
    assert!(comparison.render(TableFormat::Table).contains("nothing could be decided"));
    assert!(of_all_metrics(&slower(6)).remarks.is_empty(), "Student's t could");
    let enough = of_all_metrics(&slower(11));
    assert!(enough.got_worse && enough.is_decided() && enough.remarks.is_empty(), "{:?}", enough.remarks);
}

#[test]
fn an_objective_that_only_b_misses_is_worse() {
    let folder = tempfile::tempdir().unwrap();
    let report = in_pairs(folder.path(), &drifting(0.0));
    let at = |bound: f64| {
        let slo = BTreeMap::from([("avg_e2e_s".to_owned(), bound)]);
        Comparison::of_pairs(&report, folder.path(), &Question { slo, ..question(0.01) }).unwrap()
    };
    let both: Vec<f64> = report
        .points
        .iter()
        .map(|point| point.values.get(bench::analysis::metrics::Metric::named("avg_e2e_s").unwrap()).unwrap())
        .collect();
    assert!(both[0] < both[1], "B is a hair slower: {both:?}");
    let between = at(0.5 * (both[0] + both[1]));
    assert!(between.got_worse && between.render(TableFormat::Table).contains("newly missed"));
    assert!(!at(both[1] * 1.01).got_worse && !at(both[0] * 0.99).got_worse, "both keep it, or both miss it");
}

#[test]
fn saved_results_stand_side_by_side_and_are_never_decided() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let runs = |factor: u64| {
        (0..6).map(move |repeat| run_in_role("a", Role::Measured, repeat, factor * 1_000_000 + u64::from(repeat)))
    };
    let a = measured(folders[0].path(), runs(5));
    let mut more = runs(10).collect::<Vec<_>>();
    more.push(run_in_role("c", Role::Measured, 0, 1_000_000));
    let b = measured(folders[1].path(), more);
    let both = |b: &Report| Comparison::of_saved((&a, folders[0].path()), (b, folders[1].path()), &question(0.01));
    let comparison = both(&b).unwrap();
    assert_eq!((comparison.design, comparison.points.len()), (Design::SavedResults, 1));
    assert_eq!(decisions(&comparison), [Decision::Unverified; 2]);
    let e2e = &comparison.points[0].metrics[0];
    assert!((e2e.ratio.unwrap() - 2.0).abs() < 0.01 && e2e.low.unwrap() > 1.9, "{e2e:?}");
    assert!(!comparison.got_worse && !comparison.is_decided());
    let text = comparison.render(TableFormat::Table);
    for words in ["unverified: both results were measured in commands of their own", "is in B alone", "+100.00 %"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(text.contains("A and B stand side by side; differences are not decided"), "{text}");
    assert!(!text.contains("nothing could be decided"), "the phrase of another exit status: {text}");
    let other = measured(tempfile::tempdir().unwrap().path(), [run_in_role("c", Role::Measured, 0, 1_000_000)]);
    assert!(both(&other).unwrap_err().to_string().contains("no point in common"));
    let without = measured(tempfile::tempdir().unwrap().path(), []);
    let error = both(&without).unwrap_err().to_string();
    assert!(error.ends_with("has no point to compare: of 10 planned runs 0 measured, 0 valid, 10 missing"), "{error}");
    let none = Comparison::of_pairs(&a, folders[0].path(), &question(0.01)).unwrap_err();
    assert!(none.to_string().contains("has no pairs to compare"));
}

#[test]
fn slow_run_of_one_side_changes_nothing_where_both_sides_show_the_same_value() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let runs = |slow: u32| {
        let e2e_ns = move |repeat: u32| if repeat == slow { 50_000_000 } else { 5_000_000 };
        (0..20).map(move |repeat| run_in_role("a", Role::Measured, repeat, e2e_ns(repeat)))
    };
    let (a, b) = (measured(folders[0].path(), runs(99)), measured(folders[1].path(), runs(7)));
    let comparison = Comparison::of_saved((&a, folders[0].path()), (&b, folders[1].path()), &question(0.01)).unwrap();
    for metric in &comparison.points[0].metrics {
        assert!((metric.a.unwrap() / metric.b.unwrap() - 1.0).abs() < 1e-12 && metric.ratio == Some(1.0), "{metric:?}");
        assert_eq!((metric.low, metric.high), (Some(1.0), Some(1.0)), "{metric:?}");
    }
}

/// Six runs of a point on each side, as planned in rounds of one point.
fn saved_results(change: impl Fn(&mut Timeline)) -> [(tempfile::TempDir, Report); 2] {
    let side = |is_b: bool| {
        let folder = tempfile::tempdir().unwrap();
        let runs = (0..5).map(|repeat| run_in_role("a", Role::Measured, repeat, 5_000_000 + 1_000 * u64::from(repeat)));
        let mut runs: Vec<Timeline> = runs.collect();
        if is_b {
            runs.iter_mut().for_each(&change);
        }
        let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
        for run in &runs {
            results.add(run).unwrap();
        }
        let report = results.finish().unwrap();
        (folder, report)
    };
    [side(false), side(true)]
}

fn compare_saved([a, b]: &[(tempfile::TempDir, Report); 2], question: &Question) -> Comparison {
    Comparison::of_saved((&a.1, a.0.path()), (&b.1, b.0.path()), question).unwrap()
}

#[test]
fn side_without_a_valid_run_is_named_and_decides_nothing() {
    let whole = compare_saved(&saved_results(|_| ()), &question(0.01));
    assert!(whole.is_whole() && whole.undecided().is_none(), "{whole:?}");
    let counts = |comparison: &Comparison| {
        comparison.sides.each_ref().map(|side| (side.planned, side.measured, side.valid, side.missing))
    };
    assert_eq!(counts(&whole), [(Some(5), 5, 5, 0); 2]);

    let all_invalid = compare_saved(&saved_results(|run| run.run.counters.malformed = 1), &question(0.01));
    assert_eq!(counts(&all_invalid), [(Some(5), 5, 5, 0), (Some(5), 5, 0, 0)]);
    assert_eq!(all_invalid.undecided().as_deref(), Some("no metric has a number on both sides"));
    let text = all_invalid.render(TableFormat::Table);
    assert!(text.contains("B is not whole: of 5 planned runs 5 measured, 0 valid, 0 missing"), "{text}");
    assert!(text.contains("B: INVALID a repeat 3: 1 event records were malformed"), "{text}");
    assert!(text.contains("INVALID or missing runs are left out"), "{text}");

    let one = compare_saved(
        &saved_results(|run| run.run.counters.malformed = u64::from(run.run.repeat == 2)),
        &question(0.01),
    );
    assert!(!one.is_whole() && one.undecided().is_none(), "the others can be put side by side");
}

#[test]
fn missing_runs_of_a_side_are_counted() {
    let [a, (folder, _)] = saved_results(|_| ());
    drop(folder);
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    for repeat in 0..2 {
        results.add(&run_in_role("a", Role::Measured, repeat, 5_000_000)).unwrap();
    }
    let b = (folder, results.finish().unwrap());
    let comparison = compare_saved(&[a, b], &question(0.01));
    assert!(!comparison.is_whole());
    assert_eq!((comparison.sides[1].measured, comparison.sides[1].missing), (2, 3));
    let said = "B is not whole: of 5 planned runs 2 measured, 2 valid, 3 missing";
    assert!(comparison.remarks.iter().any(|remark| remark == said), "{:?}", comparison.remarks);
}

#[test]
fn objective_that_cannot_be_judged_is_no_success() {
    let slo = BTreeMap::from([("avg_e2e_s".to_owned(), 0.01), ("p99_e2e_s".to_owned(), 0.01)]);
    let comparison = compare_saved(&saved_results(|_| ()), &Question { slo, ..question(0.01) });
    assert!(!comparison.got_worse && !comparison.is_decided());
    let why = comparison.undecided().unwrap();
    assert!(why.starts_with("no number for the objective p99_e2e_s of a in A and 1 more"), "{why}");
}

#[test]
fn everything_that_two_results_were_measured_with_is_named_where_it_differs() {
    let mut both = saved_results(|run| {
        run.run.engine_facts.as_mut().unwrap().max_num_seqs = 16;
        run.run.engine_facts.as_mut().unwrap().other.insert("dtype".to_owned(), "bfloat16\u{1b}[2J".into());
        run.run.engine_facts.as_mut().unwrap().other.insert("reused".to_owned(), serde_json::json!({"age_s": 40.0}));
    });
    let b = &mut both[1].1;
    b.bench_version = "0.2.0".to_owned();
    b.environment = serde_json::json!({"host": {"kernel": "6.2", "hostname": "there"}, "command": ["bench"]});
    b.instrument.as_mut().unwrap().wait_strategy = "sleep".to_owned();
    let epoch = &mut b.plan.as_mut().unwrap().epochs[0];
    epoch.key.engine_args = vec!["--block-size".to_owned(), "32".to_owned()];
    epoch.points[0].warmup = 3;
    let comparison = compare_saved(&both, &question(0.01));
    let found: Vec<&str> = comparison.remarks.iter().filter_map(|remark| remark.strip_prefix("differs: ")).collect();
    let expected = [
        "bench_version: 0.1.0 in A, 0.2.0 in B",
        "environment.host: here in A, nothing in B",
        "environment.host.hostname: nothing in A, there in B",
        "environment.host.kernel: nothing in A, 6.2 in B",
        "instrument.wait_strategy: spin in A, sleep in B",
        "engine.engine_args: [] in A, [\"--block-size\",\"32\"] in B",
        "engine_facts.max_num_seqs: 8 in A, 16 in B",
        "engine_facts.other.dtype: nothing in A, bfloat16\\u{1b}[2J in B",
        "settings.warmup: 0 in A, 3 in B",
    ];
    assert_eq!(found, expected);
    let same = compare_saved(&saved_results(|_| ()), &question(0.01));
    assert!(!same.remarks.iter().any(|remark| remark.starts_with("differs: ")), "{:?}", same.remarks);
}

#[test]
fn an_objective_without_a_value_on_side_a_is_not_newly_missed() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let run = |samples: u32| (0..samples).map(|repeat| run_in_role("a", Role::Measured, repeat, 5_000_000));
    // Of 40 requests there is no p99, of 320 there is.
    let (a, b) = (measured(folders[0].path(), run(5)), measured(folders[1].path(), run(40)));
    let slo = BTreeMap::from([("p99_e2e_s".to_owned(), 0.001)]);
    let question = Question { slo, ..question(0.01) };
    let comparison = Comparison::of_saved((&a, folders[0].path()), (&b, folders[1].path()), &question).unwrap();
    let met = |side: usize| comparison.points[0].slo[side][0].met;
    assert_eq!((met(0), met(1)), (None, Some(false)));
    assert!(!comparison.got_worse, "nobody knows whether A kept it");
}
