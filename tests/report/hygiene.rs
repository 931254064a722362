//! What shows that the runs of a sweep disturb each other: sentinels, the state after a reset, an unsteady begin.

use std::fs;
use std::path::Path;

use bench::measurement::timeline::Timeline;
use bench::presentation::report::{Report, Results, TableFormat, rebuild, table};
use bench::question::plan::{Load, Role};

use super::sketch::{Request, run_in_role, run_record, session_of, timeline, typical_run};

fn report(folder: &Path, runs: &[Timeline]) -> Report {
    let mut results = Results::create(folder, &session_of(runs)).unwrap();
    for (order, run) in runs.iter().enumerate() {
        let mut run = run.clone();
        run.run.order = order as u32;
        results.add(&run).unwrap();
    }
    let report = results.finish().unwrap();
    assert_eq!(rebuild(folder).unwrap(), report, "rebuilt from the stored runs alone");
    report
}

/// Sentinels of these E2E latencies in microseconds, a minute apart, and a run of the point `a` behind each.
fn sentinels(e2e_us: &[u64]) -> (tempfile::TempDir, Report) {
    let folder = tempfile::tempdir().unwrap();
    let runs = e2e_us.iter().zip(0..).flat_map(|(e2e_us, repeat)| {
        [run_in_role("sentinel-a", Role::Sentinel, repeat, e2e_us * 1_000), typical_run("a", repeat, 8)]
    });
    let report = report(folder.path(), &runs.collect::<Vec<_>>());
    (folder, report)
}

#[test]
fn sentinels_that_take_longer_and_longer_are_told() {
    let (folder, report) = sentinels(&[5_000, 5_050, 5_100, 5_150, 5_200, 5_250, 5_300]);
    let [entry] = &report.sentinels[..] else { panic!("{:?}", report.sentinels) };
    assert_eq!((entry.point.as_str(), entry.epoch, entry.metric.as_str()), ("sentinel-a", 0, "avg_e2e_s"));
    let values: Vec<f64> = entry.runs.iter().map(|run| run.value.unwrap()).collect();
    assert!((values[0] - 0.005).abs() < 1e-12 && (values[6] - 0.0053).abs() < 1e-12, "{values:?}");
    assert_eq!(entry.runs.iter().map(|run| run.order).collect::<Vec<_>>(), [0, 2, 4, 6, 8, 10, 12]);
    assert_eq!(entry.runs[3].after_s, Some(180.0));
    let drift = entry.drift.unwrap();
    assert!(drift.flagged && drift.z < -1.645, "{drift:?}");
    // Of seven, the first three have the median 5.05 ms, and the last three 5.25 ms.
    assert!((entry.change.unwrap() - (5.25 / 5.05 - 1.0)).abs() < 1e-9);
    let text = table(&report, TableFormat::Table, false);
    let line = text.lines().find(|line| line.starts_with("warning: drift between sentinels")).expect(&text);
    assert!(line.contains("sentinel-a changed over its 7 runs within 6 min, by +4.0 %"), "{line}");

    assert_eq!(report.points.len(), 1, "a sentinel is no point of its own");
    assert_eq!(report.runs.len(), 14, "and its runs are runs");
    assert_eq!(report.exit_status(), 0, "a warning");
    let chart = fs::read_to_string(folder.path().join("sentinels.svg")).unwrap();
    assert!(chart.contains("minutes since the first sentinel") && chart.contains("</svg>"), "{chart}");
    assert!(
        fs::read_to_string(folder.path().join("report.html")).unwrap().contains("minutes since the first sentinel")
    );
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<td>sentinel-a</td>") || page.contains(">sentinel-a<"), "its row in the chart's table");
}

#[test]
fn sentinels_without_drift_are_not() {
    let (_folder, steady) = sentinels(&[5_000, 5_070, 5_010, 5_060, 5_020, 5_050, 5_030]);
    assert!(!steady.sentinels[0].drift.unwrap().flagged);
    assert!(!table(&steady, TableFormat::Table, false).contains("drift between"));
    let (_folder, few) = sentinels(&[5_000, 5_100, 5_200, 5_300]);
    assert_eq!((few.sentinels[0].drift, few.sentinels[0].change.is_some()), (None, true));
    assert!(few.sentinels[0].note.as_ref().unwrap().contains("4 of the 5"));
    let (folder, none) = sentinels(&[]);
    assert!(none.sentinels.is_empty() && !folder.path().join("sentinels.svg").exists());
}

/// An engine after its reset, as `change` leaves it, against a fresh one.
fn reset_check(change: impl Fn(&mut Timeline)) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let mut after = run_in_role("after-reset-a", Role::AfterReset, 0, 6_000_000);
    let mut fresh = run_in_role("fresh-engine-a", Role::FreshEngine, 0, 5_000_000);
    fresh.run.epoch = 1;
    fresh.run.engine_load_s = 2.0;
    change(&mut after);
    let planned = (0..5).map(|repeat| typical_run("a", repeat, 8));
    report(folder.path(), &planned.chain([after, fresh]).collect::<Vec<_>>())
}

#[test]
fn an_engine_that_is_as_a_fresh_one_after_its_reset_says_so() {
    let report = reset_check(|_| ());
    let check = &report.reset_checks[0];
    assert_eq!((check.differences.as_deref(), check.steps), (Some(&[][..]), Some(8)), "{check:?}");
    assert_eq!(check.p50_step_ratio, Some(1.0), "the steps of a sketch all take as long, whatever lies between them");
    assert_eq!(report.exit_status(), 0);
    let text = table(&report, TableFormat::Table, false);
    assert!(
        text.contains("reset of epoch 0: 8 steps just as on a fresh engine; its median step took 1.000 times"),
        "{text}"
    );
}

/// What is left behind, and what is said of it.
type Left<'a> = (&'a dyn Fn(&mut Timeline), &'a str);

#[test]
fn what_a_reset_leaves_behind_is_told() {
    let changes: [Left<'_>; 5] = [
        (
            &|run| run.requests[2].cached_tokens = 16,
            "1 of 8 requests differ; in the first of them (request 2) `cached tokens` is 16",
        ),
        (&|run| run.steps[3].waiting = 1, "1 of 8 steps differ; in the first of them (step 3) `waiting` is 1"),
        (&|run| run.steps[3].kv_cache_usage_ppm = 7, "(step 3) `KV cache use in ppm` is 7"),
        (&|run| run.steps.truncate(7), "7 steps after the reset, 8 on the fresh engine"),
        (&|run| run.run.engine_facts.as_mut().unwrap().num_kv_blocks = Some(99), "KV cache: 99 after the reset, 100"),
    ];
    for (change, wanted) in changes {
        let report = reset_check(change);
        let text = table(&report, TableFormat::Table, false);
        assert!(text.contains("after its reset the engine of epoch 0 is not as a fresh one"), "{wanted}: {text}");
        assert!(text.contains(wanted), "{wanted}: {text}");
        assert_eq!(report.exit_status(), 1, "{wanted}");
    }
}

#[test]
fn a_reset_that_was_none_is_not_compared() {
    let report = reset_check(|run| run.run.engine_load_s = 1.0);
    let check = &report.reset_checks[0];
    assert!(check.differences.is_none() && check.note.as_ref().unwrap().contains("loaded anew"), "{check:?}");
    assert!(table(&report, TableFormat::Table, false).contains("reset of epoch 0: not compared with a fresh engine"));
}

/// A closed load of two whose first 14 requests, four of them the ramp-up, take 30 % longer than the other 60.
pub fn unsteady_run(label: &str, repeat: u32) -> Timeline {
    closed_load(label, repeat, 1.3)
}

fn closed_load(label: &str, repeat: u32, factor: f64) -> Timeline {
    let mut begins = [10_000_000, 10_000_000];
    let mut requests = Vec::new();
    for index in 0..74u64 {
        let slot = (index % 2) as usize;
        let jitter = 10_000 * ((index * 7 + u64::from(repeat) * 3) % 5);
        let e2e_ns = (5_000_000.0 * if index < 14 { factor } else { 1.0 }) as u64 + jitter;
        let begin = begins[slot];
        begins[slot] = begin + e2e_ns;
        requests.push(Request::new(begin, begin + 300, 32, &[(begin + e2e_ns / 2, 1), (begin + e2e_ns, 1)]));
    }
    let mut timeline = timeline(&requests);
    timeline.run = run_record(label, repeat);
    timeline.run.point.num_prompts = 74;
    timeline
}

#[test]
fn a_begin_that_is_slower_than_the_rest_is_told_and_kept() {
    let of = |factor: f64, load: Load| {
        let folder = tempfile::tempdir().unwrap();
        let runs = (0..3).map(|repeat| {
            let mut run = closed_load("a", repeat, factor);
            run.run.point.load = load;
            run
        });
        report(folder.path(), &runs.collect::<Vec<_>>()).points.remove(0)
    };
    let closed = Load::Closed { concurrency: Some(2) };
    let slow = of(1.3, closed);
    let found = slow.warm_cut.unwrap();
    assert!(found.accepted && found.requests == 10 && (found.change - 0.3).abs() < 0.02, "{found:?}");
    assert!(
        slow.warnings.iter().any(|warning| warning.contains("mean E2E of the first 10 requests is +29.")),
        "{:?}",
        slow.warnings
    );
    assert_eq!(slow.num_prompts, 3 * 74, "nothing is cut");
    assert!(!of(1.0, closed).warnings.iter().any(|warning| warning.contains("steady")));
    assert_eq!(of(1.3, Load::Closed { concurrency: None }).warm_cut, None, "nothing is steady where all come at once");
}
