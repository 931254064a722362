//! By how much the instrument can be wrong: the known answers' bound, or what a run's own stamps show if that is more.

use bench::calibration::ErrorBudget;
use bench::metrics::Metric;
use bench::report::{Ruler, RunEntry};
use bench::timeline::{ABSENT, Timeline};

use super::sketch::{Request, budget, timeline};

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

const METRICS: [&str; 5] = ["avg_ttft_s", "p50_itl_s", "p90_e2e_s", "avg_time_per_output_token_s", "elapsed_s"];

#[test]
fn stamps_in_time_leave_the_bound_of_the_known_answers() {
    assert_eq!(bounds_ns(&run(4, 11), METRICS), [1_000, 1_000, 1_000, 100, 1_000].map(Some));
    assert_eq!(
        RunEntry::of(&run(4, 11), Ruler::UNKNOWN).instrument_error.get(Metric::named("avg_ttft_s").unwrap()),
        None
    );
}

#[test]
fn a_late_first_token_is_in_the_bound_of_what_ends_or_begins_with_it() {
    let mut late = run(4, 11);
    delay(&mut late, 11, 500_000);
    assert_eq!(bounds_ns(&late, METRICS), [500_100, 500_100, 1_000, 50_010, 1_000].map(Some));
}

#[test]
fn a_late_last_token_is_in_the_bound_of_latencies_and_rates_that_end_with_it() {
    let mut late = run(4, 11);
    delay(&mut late, 43, 500_000);
    assert_eq!(bounds_ns(&late, METRICS), [1_000, 500_100, 500_100, 50_010, 500_100].map(Some));
}

#[test]
fn one_itl_in_a_hundred_may_be_wrong_by_more() {
    // 400 ITLs: two stamps, which four of them end with, may be later than the bound says; a third may not.
    let mut late = run(4, 101);
    delay(&mut late, 20, 900_000);
    delay(&mut late, 40, 800_000);
    assert_eq!(bounds_ns(&late, ["avg_itl_s"]), [Some(1_000)]);
    delay(&mut late, 60, 700_000);
    assert_eq!(bounds_ns(&late, ["avg_itl_s"]), [Some(700_100)]);
}

#[test]
fn without_the_time_of_emission_the_known_answers_are_all_there_is() {
    let mut unknown = run(4, 11);
    delay(&mut unknown, 11, 500_000);
    unknown.tokens[12].emitted_ns = ABSENT;
    assert_eq!(bounds_ns(&unknown, METRICS), [1_000, 1_000, 1_000, 100, 1_000].map(Some));
}
