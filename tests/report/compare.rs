//! A against B, from recorded runs whose times are known.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bench::comparison::{COMPARISON_SCHEMA, Comparison, Decision, Design, Question};
use bench::metrics::Metric;
use bench::plan::{Arm, PairMember, Role};
use bench::report::{Report, Results, TableFormat};
use bench::timeline::{Outcome, Timeline};

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
        .map(|point| point.values.get(bench::metrics::Metric::named("avg_e2e_s").unwrap()).unwrap())
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
    let other = measured(tempfile::tempdir().unwrap().path(), [run_in_role("c", Role::Measured, 0, 1_000_000)]);
    assert!(both(&other).unwrap_err().to_string().contains("no point in common"));
    let none = Comparison::of_pairs(&a, folders[0].path(), &question(0.01)).unwrap_err();
    assert!(none.to_string().contains("has no pairs to compare"));
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
