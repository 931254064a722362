//! By how much the instrument can be wrong: the known answers' bound, and what the run's own stamps have moved a number by.

use bench::analysis::metrics::{Metric, Samples};
use bench::measurement::calibration::ErrorBudget;
use bench::measurement::timeline::{ABSENT, Timeline};
use bench::presentation::report::{InstrumentErrors, PointEntry, Results, Ruler, RunEntry, TableFormat, table};

use super::sketch::{Request, TRANSPORT_NS, budget, session, timeline, typical_run};

/// `requests` requests of `tokens` tokens, one after the other, received 100 ns after they were emitted.
fn run(requests: u64, tokens: u64) -> Timeline {
    let request = |index: u64| {
        let begin_ns = 1_000_000 + index * (tokens + 2) * 1_000_000;
        let events: Vec<(u64, u32)> = (1..=tokens).map(|token| (begin_ns + token * 1_000_000, 1)).collect();
        Request::new(begin_ns, begin_ns, 32, &events)
    };
    let mut run = timeline(&(0..requests).map(request).collect::<Vec<_>>());
    run.run.point.output_len = tokens as u32;
    run
}

/// Lets a token have been emitted so much earlier.
fn delay(run: &mut Timeline, token: usize, by_ns: u64) {
    run.tokens[token].emitted_ns -= by_ns;
}

/// The bounds of these metrics in nanoseconds, where an instrument that was calibrated to 1 us measured the run.
fn bounds_ns<const N: usize>(run: &Timeline, metrics: [&str; N]) -> [Option<i64>; N] {
    let budget: ErrorBudget = budget();
    let entry = RunEntry::of(run, Ruler { budget: Some(&budget), ..Ruler::UNKNOWN });
    metrics.map(|name| Some((entry.instrument_error.get(Metric::named(name).unwrap())? * 1e9).round() as i64))
}

const METRICS: [&str; 5] = ["avg_ttft_s", "p50_itl_s", "avg_e2e_s", "avg_time_per_output_token_s", "elapsed_s"];

#[test]
fn stamps_in_time_add_their_100_ns_to_the_known_answers() {
    assert_eq!(bounds_ns(&run(4, 11), METRICS), [1_100, 1_000, 1_100, 100, 1_100].map(Some));
    assert_eq!(
        RunEntry::of(&run(4, 11), Ruler::UNKNOWN).instrument_error.get(Metric::named("avg_ttft_s").unwrap()),
        None
    );
}

#[test]
fn a_late_first_token_is_in_the_bounds_of_the_means_that_it_moves() {
    let mut late = run(4, 11);
    delay(&mut late, 11, 500_000);
    assert_eq!(bounds_ns(&late, METRICS), [126_100, 1_000, 1_100, 12_600, 1_100].map(Some));
}

#[test]
fn a_late_last_token_is_in_the_bounds_of_what_ends_with_it() {
    let mut late = run(4, 11);
    delay(&mut late, 43, 500_000);
    assert_eq!(bounds_ns(&late, METRICS), [1_100, 1_000, 126_100, 12_600, 501_100].map(Some));
}

#[test]
fn the_error_of_a_rate_is_that_of_its_window() {
    let mut late = run(4, 11);
    delay(&mut late, 43, 5_000_000);
    let entry = RunEntry::of(&late, Ruler { budget: Some(&budget()), ..Ruler::UNKNOWN });
    let elapsed_s = entry.values.get(Metric::named("elapsed_s").unwrap()).unwrap();
    let bound = entry.instrument_error.get(Metric::named("output_tokens_per_s").unwrap()).unwrap();
    let faster_by = |late_s: f64| 44.0 / (elapsed_s - late_s) - 44.0 / elapsed_s;
    assert!((bound - faster_by(5.0001e-3) - faster_by(1e-6)).abs() < 1e-6, "{bound}");
}

#[test]
fn a_rate_of_tokens_that_were_emitted_at_one_instant_has_no_bound() {
    let mut at_once = run(4, 2);
    for token in &mut at_once.tokens {
        token.emitted_ns = 1_000_000;
    }
    assert_eq!(bounds_ns(&at_once, ["avg_tpot_tokens_per_s"]), [None]);
    assert!(bounds_ns(&run(4, 2), ["avg_tpot_tokens_per_s"])[0].is_some());
}

#[test]
fn a_p99_is_moved_as_soon_as_more_than_one_gap_in_a_hundred_is() {
    // 400 ITLs: the 396th in order is the fifth from above.
    let mut late = run(4, 101);
    for (token, by_ns) in [(20, 900_000), (40, 800_000), (60, 700_000), (80, 600_000)] {
        delay(&mut late, token, by_ns);
    }
    assert_eq!(bounds_ns(&late, ["p99_itl_s"]), [Some(1_000)]);
    delay(&mut late, 70, 500_000);
    assert_eq!(bounds_ns(&late, ["p99_itl_s", "p50_itl_s"]), [501_000, 1_000].map(Some));
}

#[test]
fn every_window_of_a_point_ends_with_a_stamp_and_late_ones_count_in_comparisons_too() {
    let mut late = run(4, 11);
    delay(&mut late, 11, 500_000);
    let (budget, runs) = (budget(), [late, run(4, 11), run(4, 11)]);
    let ruler = Ruler { budget: Some(&budget), ..Ruler::UNKNOWN };
    let entries: Vec<RunEntry> = runs.iter().map(|run| RunEntry::of(run, ruler)).collect();
    let samples: Vec<Samples> = runs.iter().map(Samples::of).collect();
    let point = PointEntry::of(&entries.iter().collect::<Vec<_>>(), &samples, ruler);
    let bound_ns =
        |errors: &InstrumentErrors, name| (errors.get(Metric::named(name).unwrap()).unwrap() * 1e9).round() as i64;
    assert_eq!(bound_ns(&point.instrument_error, "elapsed_s"), 3 * 1_100);
    assert_eq!(bound_ns(&point.instrument_error, "avg_ttft_s"), 1_100 + 500_000 / 4);
    assert_eq!(bound_ns(&point.typical_error, "avg_ttft_s"), 400 + 100 + 500_000 / 4);
}

#[test]
fn rate_of_a_point_is_bounded_by_the_run_that_was_moved_most() {
    let mut late = run(4, 11);
    delay(&mut late, 43, 500_000);
    let (budget, runs) = (budget(), [late, run(4, 11), run(4, 11)]);
    let ruler = Ruler { budget: Some(&budget), ..Ruler::UNKNOWN };
    let entries: Vec<RunEntry> = runs.iter().map(|run| RunEntry::of(run, ruler)).collect();
    let samples: Vec<Samples> = runs.iter().map(Samples::of).collect();
    let point = PointEntry::of(&entries.iter().collect::<Vec<_>>(), &samples, ruler);
    let rate = Metric::named("output_tokens_per_s").unwrap();
    let of = |errors: &InstrumentErrors| errors.get(rate).unwrap();
    let of_runs = entries.iter().map(|entry| of(&entry.instrument_error)).fold(0.0, f64::max);
    assert!((of(&point.instrument_error) / of_runs - 1.0).abs() < 1e-9, "no run could have moved it further");
}

#[test]
fn value_over_runs_of_unequal_lengths_moves_no_further_than_its_bound() {
    // Runs whose only request takes 1 and 10 ms, each received 0.1 ms late.
    let of_ms = |ms: u64| {
        let at = 1_000_000;
        let mut run = timeline(&[Request::new(at, at, 32, &[(at + ms * 1_000_000, 1)])]);
        run.run.point.output_len = 1;
        delay(&mut run, 0, 100_000 - TRANSPORT_NS);
        run
    };
    let (budget, runs) = (budget(), [of_ms(1), of_ms(10)]);
    let ruler = Ruler { budget: Some(&budget), ..Ruler::UNKNOWN };
    let entries: Vec<RunEntry> = runs.iter().map(|run| RunEntry::of(run, ruler)).collect();
    let samples: Vec<Samples> = runs.iter().map(Samples::of).collect();
    let point = PointEntry::of(&entries.iter().collect::<Vec<_>>(), &samples, ruler);
    let metric = Metric::named("avg_ttft_s").unwrap();
    let value = point.values.get(metric).unwrap();
    let as_emitted = (0.9e-3f64 * 9.9e-3).sqrt();
    let bound = point.instrument_error.get(metric).unwrap();
    assert!((value - (1e-3f64 * 10e-3).sqrt()).abs() < 1e-12);
    assert!(value - as_emitted > 0.17e-3 && value - as_emitted <= bound, "{} and {bound}", value - as_emitted);
    // A tenth of the value, and the known answers' 1 us of the run of 1 ms.
    assert!((bound - value * (0.1 + 1e-3)).abs() < 1e-9, "{bound}");
}

#[test]
fn stall_of_a_calibration_is_in_no_report_where_the_recorder_watched() {
    let said = |watched: Option<u64>| {
        let mut session = session(&["a"]);
        let row = &mut session.instrument.error_budget.as_mut().unwrap().rows[0];
        let quiet = row.ttft_error_ns;
        let stalled = bench::measurement::calibration::Times { p99: 4_000_000, max: 4_000_000, ..quiet };
        (row.ttft_error_ns, row.itl_error_ns) = (stalled, Some(stalled));
        let of_watched = watched.map(|count| bench::measurement::calibration::Times { count, ..quiet });
        (row.ttft_error_watched_ns, row.itl_error_watched_ns) = (of_watched, of_watched);
        let folder = tempfile::tempdir().unwrap();
        let mut results = Results::create(folder.path(), &session).unwrap();
        results.add(&typical_run("a", 0, 8)).unwrap();
        let report = results.finish().unwrap();
        let itl_s = report.points[0].instrument_error.get(Metric::named("p50_itl_s").unwrap()).unwrap();
        (itl_s, table(&report, TableFormat::Table, false))
    };
    let (itl_s, text) = said(Some(90));
    assert!((itl_s - 1e-6).abs() < 1e-12, "{itl_s}");
    assert!(
        text.contains("from the known answers on this machine that the recorder watched for and the stamps"),
        "{text}"
    );
    for unwatched in [None, Some(40)] {
        let (itl_s, text) = said(unwatched);
        assert!((itl_s - 4e-3).abs() < 1e-12, "{itl_s}");
        assert!(text.contains("from all known answers on this machine, stalls of the calibration included,"), "{text}");
    }
}

#[test]
fn without_the_time_of_emission_the_known_answers_are_all_there_is() {
    let mut unknown = run(4, 11);
    delay(&mut unknown, 11, 500_000);
    unknown.tokens[12].emitted_ns = ABSENT;
    assert_eq!(bounds_ns(&unknown, METRICS), [1_000, 1_000, 1_000, 100, 1_000].map(Some));
}
