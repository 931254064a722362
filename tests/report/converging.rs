//! Points of which runs are measured until their intervals are narrow enough.

use bench::presentation::report::{Report, Results, converged};
use bench::question::plan::Role;

use super::sketch::{run_in_role, session};

/// A point that asks for 1 %, with runs of these E2E latencies in microseconds.
fn point(e2e_us: &[u64]) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    for (e2e_us, repeat) in e2e_us.iter().zip(0..) {
        let mut run = run_in_role("a", Role::Measured, repeat, e2e_us * 1_000);
        (run.run.order, run.run.point.until_ci) = (repeat, Some(0.01));
        results.add(&run).unwrap();
    }
    results.finish().unwrap()
}

fn runs_at_the_end(report: &Report) -> Option<usize> {
    let asked = &report.runs[0].asked;
    (1..=report.runs.len()).find(|runs| converged(asked, &report.runs[..*runs]).is_some())
}

#[test]
fn a_steady_point_is_known_after_five_runs() {
    let report = point(&[5_000, 5_010, 4_990, 5_005, 4_995, 5_000]);
    assert_eq!(runs_at_the_end(&report), Some(5));
    let [point] = &report.points[..] else { panic!("{:?}", report.points) };
    assert!(!point.warnings.iter().any(|warning| warning.contains("not converged")), "{:?}", point.warnings);
}

#[test]
fn planned_runs_that_a_known_point_does_not_need_are_not_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(&["a"]);
    let epoch = &mut session.plan.epochs[0];
    epoch.points[0].until_ci = Some(0.01);
    epoch.rounds = vec![vec![0]; 12];
    let mut results = Results::create(folder.path(), &session).unwrap();
    for (e2e_us, repeat) in [5_000, 5_010, 4_990, 5_005, 4_995].into_iter().zip(0..) {
        let mut run = run_in_role("a", Role::Measured, repeat, e2e_us * 1_000);
        (run.run.order, run.run.point.until_ci) = (repeat, Some(0.01));
        results.add(&run).unwrap();
        results.refresh();
        let missing = if repeat == 4 { 0 } else { 11 - u64::from(repeat) };
        assert_eq!(results.report().num_missing(), missing, "after run {repeat}");
    }
    let report = results.finish().unwrap();
    assert_eq!((report.coverage.as_ref().unwrap().not_needed, report.exit_status()), (7, 0));
}

#[test]
fn an_unsteady_point_is_not_and_says_what_it_takes() {
    let report = point(&[5_000, 5_800, 4_900, 5_500, 5_100, 5_700]);
    assert_eq!(runs_at_the_end(&report), None);
    let point = &report.points[0];
    let warning = point.warnings.iter().find(|warning| warning.starts_with("`avg_itl_s`: not converged: ±"));
    let warning = warning.unwrap_or_else(|| panic!("{:?}", point.warnings));
    assert!(warning.contains("after 6 runs, it takes about "), "{warning}");
}

#[test]
fn a_point_that_drifts_is_never_known_well() {
    let report = point(&[5_000, 5_001, 5_002, 5_003, 5_004, 5_005, 5_006, 5_007, 5_008, 5_009]);
    assert_eq!(runs_at_the_end(&report), None);
    assert!(report.points[0].warnings.iter().any(|warning| warning.ends_with("after 10 runs, which drift")));
}

#[test]
fn the_interval_allows_for_the_looks_between() {
    let values = [5_000, 5_010, 4_990, 5_005, 4_995];
    let wide = point(&values).points[0].intervals["avg_e2e_s"].unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    for (e2e_us, repeat) in values.iter().zip(0..) {
        results.add(&run_in_role("a", Role::Measured, repeat, e2e_us * 1_000)).unwrap();
    }
    let usual = results.finish().unwrap().points[0].intervals["avg_e2e_s"].unwrap();
    assert!(wide.low < usual.low && wide.high > usual.high, "{wide:?} {usual:?}");
}
