//! The numbers of a point over its runs: each with its own interval, or with the reason why it is not shown.

use bench::analysis::metrics::{Metric, Samples, Series, Statistic, Total};
use bench::analysis::verdict::Status;
use bench::measurement::timeline::{ABSENT, Timeline};
use bench::presentation::report::{PointEntry, Report, Ruler, RunEntry, TableFormat, table};
use bench::question::plan::Role;

use super::sketch::{Request, run_in_role, timeline};

fn point(runs: &[Timeline]) -> PointEntry {
    let entries: Vec<RunEntry> = runs.iter().map(|run| RunEntry::of(run, Ruler::UNKNOWN)).collect();
    assert!(entries.iter().all(|entry| entry.status == Status::Valid), "{:?}", entries[0].reasons);
    let samples: Vec<Samples> = runs.iter().map(Samples::of).collect();
    PointEntry::of(&entries.iter().collect::<Vec<_>>(), &samples, Ruler::UNKNOWN)
}

fn named(name: &str) -> Metric {
    Metric::named(name).unwrap()
}

/// Runs of about 5 ms, of which every 20th takes ten times as long.
fn with_slow_runs(runs: u32) -> Vec<Timeline> {
    let e2e_us = |repeat: u32| (5_000 + 37 * u64::from(repeat * 7 % 11)) * if repeat % 20 == 3 { 10 } else { 1 };
    (0..runs).map(|repeat| run_in_role("a", Role::Measured, repeat, e2e_us(repeat) * 1_000)).collect()
}

#[test]
fn value_stays_inside_its_interval_where_one_run_in_20_takes_ten_times_as_long() {
    for (runs, until_ci) in [(5, None), (20, None), (40, None), (20, Some(0.01)), (40, Some(0.01))] {
        let mut timelines = with_slow_runs(runs);
        timelines.iter_mut().for_each(|run| run.run.point.until_ci = until_ci);
        let found = point(&timelines);
        let mut seen = 0;
        for (metric, value) in &found.values.0 {
            let Some((value, interval)) = value.zip(found.intervals[&metric.name()]) else { continue };
            let (low, high) = (interval.low.unwrap_or(f64::NEG_INFINITY), interval.high.unwrap_or(f64::INFINITY));
            assert!(low <= value && value <= high, "{} of {runs} runs: {low} .. {value} .. {high}", metric.name());
            seen += 1;
        }
        assert!(seen > 20, "{seen} intervals");
    }
    let found = point(&with_slow_runs(20));
    let e2e = found.values.get(named("avg_e2e_s")).unwrap();
    assert!((0.005..0.0055).contains(&e2e), "the slow run moves nothing: {e2e}");
    let said: Vec<&String> = found.warnings.iter().filter(|warning| warning.starts_with("repeat 3: ")).collect();
    assert!(said.len() == 1 && said[0].contains("times the point's value"), "{:?}", found.warnings);
}

#[test]
fn rate_that_a_run_without_a_window_lacks_is_null_with_the_reason() {
    let at = 9_000_000;
    let mut empty = timeline(&[Request::new(at, at, 32, &[(at, 1)])]);
    empty.tokens[0].emitted_ns = at;
    let request = &mut empty.requests[0];
    (request.finish_emitted_ns, request.engine_queued_ns, request.engine_scheduled_ns) = (at, ABSENT, ABSENT);
    (request.engine_first_token_ns, request.engine_last_token_ns) = (ABSENT, ABSENT);
    empty.run.point.output_len = 1;
    let usual = timeline(&[Request::new(at, at, 32, &[(at + 1_000_000, 1)])]);
    let mut runs = vec![usual.clone(), empty, usual.clone(), usual];
    runs.iter_mut().for_each(|run| run.run.point.output_len = 1);
    let found = point(&runs);
    let rate = Metric::Total(Total::OutputTokens);
    assert_eq!((found.values.get(rate), found.intervals[&rate.name()]), (None, None));
    let reason = "1 of 4 valid runs without this number: a window without length has no rate";
    assert_eq!(found.notes[&rate.name()].0, reason);
    assert!(found.values.get(named("avg_ttft_s")).is_some());
    let text = table(&Report { points: vec![found], ..Report::empty(None) }, TableFormat::Table, false);
    assert!(text.contains(&format!("`output_tokens_per_s`: {reason}")), "{text}");
}

/// Five requests of ten tokens, 1 ms from token to token; of the first `bursts` all tokens come within a microsecond.
fn with_bursts(bursts: u64) -> Timeline {
    let request = |index: u64| {
        let begin_ns = 1_000_000 + 20_000_000 * index;
        let gap_ns = if index < bursts { 100 } else { 1_000_000 };
        let events: Vec<(u64, u32)> = (0..10).map(|token| (begin_ns + 1_000_000 + token * gap_ns, 1)).collect();
        Request::new(begin_ns, begin_ns, 32, &events)
    };
    timeline(&(0..5).map(request).collect::<Vec<_>>())
}

#[test]
fn mean_of_rates_that_a_burst_makes_has_a_note_and_no_column() {
    let found = point(&[with_bursts(1)]);
    let metric = Metric::Of(Series::Tpot, Statistic::Average);
    assert_eq!(found.values.get(metric).map(f64::round), Some(2_000_800.0), "the definition stays");
    let note = &found.notes[&metric.name()].0;
    let expected = "one run: no interval; a mean of rates, 1601 times the rate of the mean time per token: 1 of 5 requests, \
                    whose tokens came in bursts, make it";
    assert_eq!(note, expected);
    let report = Report { points: vec![found], ..Report::empty(None) };
    let text = table(&report, TableFormat::Table, false);
    assert!(text.contains("TPOT ") && !text.contains("TPOT tok/s") && !text.contains("2000800"), "{text}");
    assert!(text.contains("0.800/1.00/-"), "ms per token: {text}");
    assert!(text.contains(expected), "{text}");
    assert!(!point(&[with_bursts(0)]).notes.values().any(|note| note.0.contains("a mean of rates")));
}
