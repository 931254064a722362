//! Metrics of timelines of which the answers were worked out by hand, and of random ones against a plain reference.

use bench::analysis::metrics::{Metric, RunMetrics, Series};
use bench::measurement::timeline::{ABSENT, Phase, RequestEvent, Timeline, TokenEvent};
use proptest::prelude::*;

use super::sketch::{Request, TRANSPORT_NS, run_record, timeline};

fn value(metrics: &RunMetrics, name: &str) -> Option<f64> {
    Metric::named(name).unwrap_or_else(|| panic!("no metric {name}")).value(metrics)
}

fn assert_metrics(metrics: &RunMetrics, expected: &[(&str, f64)]) {
    for (name, expected) in expected {
        let got = value(metrics, name).unwrap_or_else(|| panic!("{name} is null"));
        assert!((got - expected).abs() <= 1e-12 * expected.abs(), "{name}: {got}, expected {expected}");
    }
}

fn assert_null(metrics: &RunMetrics, names: &[&str]) {
    for name in names {
        assert_eq!(value(metrics, name), None, "{name}");
    }
}

#[test]
fn one_request_of_one_token() {
    let metrics = RunMetrics::of_timeline(&timeline(&[Request::new(1_000, 1_500, 10, &[(5_000, 1)])]));
    assert_metrics(
        &metrics,
        &[
            ("avg_ttft_s", 4e-6),
            ("p99_ttft_s", 4e-6),
            ("p50_ttft_service_s", 3.5e-6),
            ("p90_e2e_s", 4e-6),
            ("elapsed_s", 3.5e-6),
            ("requests_per_s", 1.0 / 3.5e-6),
            ("output_tokens_per_s", 1.0 / 3.5e-6),
            ("input_tokens_per_s", 10.0 / 3.5e-6),
            ("total_tokens_per_s", 11.0 / 3.5e-6),
            ("avg_queue_s", 30e-9),
            ("avg_prefill_s", (4_920.0 - 1_540.0) * 1e-9),
            ("avg_decode_s", 0.0),
            ("avg_step_s", 550e-9),
        ],
    );
    assert_null(
        &metrics,
        &["avg_itl_s", "p99_itl_per_token_s", "avg_time_per_output_token_s", "p50_tpot_tokens_per_s"],
    );
    assert_eq!(metrics.transport_ns.unwrap().max, TRANSPORT_NS as i64);
    assert_eq!(metrics.issue_delay_ns.unwrap().p50, 500);
}

#[test]
fn several_tokens_per_event() {
    // Six tokens in three events: gaps of 400 and 600 ns, and 1000 ns for the five tokens after the first.
    let events = [(2_000, 1), (2_400, 4), (3_000, 1)];
    let metrics = RunMetrics::of_timeline(&timeline(&[Request::new(1_000, 1_000, 10, &events)]));
    assert_metrics(
        &metrics,
        &[
            ("avg_itl_s", 500e-9),
            ("p50_itl_s", 400e-9),
            ("p99_itl_s", 600e-9),
            ("p50_itl_per_token_s", 100e-9),
            ("avg_itl_per_token_s", 350e-9),
            ("avg_time_per_output_token_s", 200e-9),
            ("avg_tpot_tokens_per_s", 5e6),
            ("output_tokens_per_s", 6.0 / 2_000e-9),
        ],
    );
}

#[test]
fn several_tokens_in_the_only_event_take_no_time_and_have_no_rate() {
    let requests = [
        Request::new(1_000, 1_000, 10, &[(2_000, 3)]),
        Request::new(1_000, 1_000, 10, &[(2_000, 1), (2_000, 1)]),
        Request::new(1_000, 1_000, 10, &[(2_000, 1), (2_800, 2)]),
    ];
    let metrics = RunMetrics::of_timeline(&timeline(&requests));
    assert_metrics(
        &metrics,
        &[
            ("p50_time_per_output_token_s", 0.0),
            ("p99_time_per_output_token_s", 400e-9),
            ("avg_tpot_tokens_per_s", 2.5e6),
            ("p99_tpot_tokens_per_s", 2.5e6),
            ("p50_itl_s", 0.0),
        ],
    );
    let rates = metrics.spread(Series::Tpot).unwrap().count;
    let times = metrics.spread(Series::TimePerOutputToken).unwrap().count;
    assert_eq!((rates, times), (1, 3));
}

#[test]
fn everything_at_one_instant_has_no_throughput() {
    let metrics = RunMetrics::of_timeline(&timeline(&[Request::new(2_000, 2_000, 10, &[(2_000, 1)])]));
    assert_metrics(&metrics, &[("elapsed_s", 0.0), ("avg_ttft_s", 0.0)]);
    assert_null(&metrics, &["requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "input_tokens_per_s"]);
}

#[test]
fn a_preempted_request_keeps_its_long_gap() {
    let requests = [
        Request::new(1_000, 1_000, 10, &[(2_000, 1), (3_000, 1), (9_000, 1)]),
        Request::new(1_000, 1_000, 10, &[(2_000, 1), (3_000, 1), (4_000, 1)]),
    ];
    let mut sketched = timeline(&requests);
    sketched.steps[2].preemptions = 1;
    sketched.requests[0].preemptions = 1;
    let metrics = RunMetrics::of_timeline(&sketched);
    // Gaps of 1000, 6000, 1000, 1000.
    assert_metrics(&metrics, &[("avg_itl_s", 2_250e-9), ("p50_itl_s", 1e-6), ("p90_itl_s", 6e-6), ("p99_e2e_s", 8e-6)]);
    assert_eq!(metrics.totals.preemptions, Some(1));
    assert_eq!(metrics.totals.steps, Some(4));
}

#[test]
fn percentiles_of_few_and_many_samples() {
    for (count, p50, p90, p99) in [(1, 1, 1, 1), (2, 1, 2, 2), (99, 50, 90, 99), (100, 50, 90, 99), (101, 51, 91, 100)]
    {
        // The TTFT of request i is i us, and its rate 1/i tokens per us.
        let requests: Vec<Request> = (1..=count)
            .map(|us| Request::new(1_000, 1_000, 10, &[(1_000 + us * 1_000, 1), (1_000 + us * 2_000, 1)]))
            .collect();
        let metrics = RunMetrics::of_timeline(&timeline(&requests));
        let expected = [("p50_ttft_s", p50), ("p90_ttft_s", p90), ("p99_ttft_s", p99)];
        assert_metrics(&metrics, &expected.map(|(name, us)| (name, us as f64 * 1e-6)));
        let rates = [("p50_tpot_tokens_per_s", p50), ("p90_tpot_tokens_per_s", p90), ("p99_tpot_tokens_per_s", p99)];
        assert_metrics(&metrics, &rates.map(|(name, us)| (name, 1e6 / us as f64)));
    }
}

#[test]
fn only_the_measured_phase_counts() {
    let measured = Request::new(5_000, 5_000, 10, &[(7_000, 1), (7_500, 1)]);
    let others = [
        Request::new(1_000, 1_000, 99, &[(1_600, 1), (4_000, 7)]).in_phase(Phase::Prime),
        Request::new(1_000, 1_000, 99, &[(1_700, 1), (7_500, 7)]).in_phase(Phase::Warmup),
    ];
    let alone = RunMetrics::of_timeline(&timeline(std::slice::from_ref(&measured)));
    let mixed = RunMetrics::of_timeline(&timeline(&[&others[..], &[measured]].concat()));
    for metric in Metric::all() {
        assert_eq!(metric.value(&alone), metric.value(&mixed), "{}", metric.name());
    }
    assert_eq!(mixed.totals.requests, 1);
    assert_eq!(mixed.totals.steps, Some(2));
}

#[test]
fn hit_rates_by_blocks() {
    let requests = [
        Request::new(1_000, 1_000, 100, &[(2_000, 1)]).with_prefix(40),
        Request::new(1_000, 1_000, 100, &[(2_000, 1)]).with_prefix(100),
    ];
    let mut sketched = timeline(&requests);
    sketched.requests[1].cached_tokens = 80;
    let metrics = RunMetrics::of_timeline(&sketched);
    assert_metrics(&metrics, &[("prefix_hit_rate_expected", 0.64), ("prefix_hit_rate_measured", 0.56)]);
    sketched.requests[1].cached_tokens = u32::MAX;
    sketched.run.engine_facts = None;
    let metrics = RunMetrics::of_timeline(&sketched);
    assert_null(&metrics, &["prefix_hit_rate_expected", "prefix_hit_rate_measured"]);
}

#[test]
fn what_was_not_recorded_is_null() {
    let mut sketched = timeline(&[Request::new(1_000, 1_000, 10, &[(2_000, 1), (3_000, 1)])]);
    sketched.tokens[1].emitted_ns = ABSENT;
    sketched.steps.clear();
    sketched.requests[0].engine_scheduled_ns = ABSENT;
    let metrics = RunMetrics::of_timeline(&sketched);
    assert_eq!(metrics.transport_ns, None);
    assert_eq!((metrics.totals.steps, metrics.totals.preemptions), (None, None));
    assert_null(&metrics, &["avg_queue_s", "avg_prefill_s", "avg_step_s"]);
    assert_metrics(&metrics, &[("avg_decode_s", 1e-6)]);
}

#[test]
fn a_broken_timeline_shows_negative_times() {
    let mut sketched = timeline(&[Request::new(1_000, 1_000, 10, &[(2_000, 1), (3_000, 1)])]);
    sketched.tokens.swap(0, 1);
    let metrics = RunMetrics::of_timeline(&sketched);
    assert_metrics(&metrics, &[("avg_itl_s", -1e-6), ("avg_ttft_s", 2e-6), ("avg_e2e_s", 1e-6)]);
    assert_null(&metrics, &["avg_tpot_tokens_per_s"]);
}

#[test]
fn tap_and_push_by_batch() {
    let both = [(2_000, 1), (3_000, 1)];
    let requests =
        [Request::new(1_000, 1_000, 10, &both), Request::new(1_000, 1_000, 10, &[(2_000, 1), (3_000, 1), (4_000, 1)])];
    let mut sketched = timeline(&requests);
    sketched.steps[0].tap_push_ns = 9_000;
    let metrics = RunMetrics::of_timeline(&sketched);
    let by_batch: Vec<(u32, u64, i64, i64)> =
        metrics.tap_push_by_batch.iter().map(|(batch, times)| (*batch, times.count, times.p50, times.max)).collect();
    assert_eq!(by_batch, [(1, 1, 7_010, 7_010), (2, 2, 7_020, 9_000)]);
    assert_eq!(metrics.tap_push_ns.unwrap().p50, 7_020);
}

/// A request as drawn by chance: schedule, delay, prompt, gaps and counts, phase.
type Drawn = (u64, u64, u32, Vec<(u64, u32)>, u8);

fn drawn_timeline(drawn: &[Drawn]) -> Timeline {
    let mut tokens = Vec::new();
    let mut requests = Vec::new();
    for (index, (scheduled_ns, delay_ns, prompt, gaps, phase)) in drawn.iter().enumerate() {
        let mut request = RequestEvent::planned(Phase::from_u8(*phase).unwrap(), *prompt, u32::MAX, 0);
        request.scheduled_ns = *scheduled_ns;
        request.submitted_ns = scheduled_ns + delay_ns;
        requests.push(request);
        let mut now_ns = request.submitted_ns;
        for (gap_ns, count) in gaps {
            now_ns += gap_ns;
            let emitted_ns = now_ns - gap_ns % 977;
            let (request, step) = (index as u32, u32::MAX);
            tokens.push(TokenEvent { received_ns: now_ns, emitted_ns, request, step, count: *count, poll_gap_ns: 50 });
        }
    }
    tokens.sort_by_key(|event| event.received_ns);
    Timeline {
        run: run_record("p", 0),
        requests,
        tokens,
        steps: Vec::new(),
        hiccups: Vec::new(),
        telemetry: Vec::new(),
    }
}

/// The definitions, written down as plainly as possible, on floating-point numbers.
fn reference(timeline: &Timeline) -> Vec<(String, Option<f64>)> {
    let (mut ttft, mut itl, mut per_token, mut rate, mut e2e) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut submitted, mut input, mut output) = (0, 0, 0);
    let (mut first_submit, mut last_token) = (f64::INFINITY, f64::NEG_INFINITY);
    for (index, request) in timeline.requests.iter().enumerate().filter(|(_, r)| r.phase() == Phase::Measure) {
        submitted += 1;
        let events: Vec<&TokenEvent> = timeline.tokens.iter().filter(|event| event.request as usize == index).collect();
        let (Some(first), Some(last)) = (events.first(), events.last()) else { continue };
        let seconds = |from: u64, to: u64| (to as f64 - from as f64) / 1e9;
        let count: u32 = events.iter().map(|event| event.count).sum();
        ttft.push(seconds(request.scheduled_ns, first.received_ns));
        e2e.push(seconds(request.scheduled_ns, last.received_ns));
        itl.extend(events.windows(2).map(|pair| seconds(pair[0].received_ns, pair[1].received_ns)));
        let decode = seconds(first.received_ns, last.received_ns);
        if count > 1 {
            per_token.push(decode / f64::from(count - 1));
        }
        if count > 1 && decode > 0.0 {
            rate.push(f64::from(count - 1) / decode);
        }
        input += request.asked_prompt_tokens;
        output += count;
        first_submit = first_submit.min(request.submitted_ns as f64);
        last_token = last_token.max(last.received_ns as f64);
    }
    let elapsed = (last_token - first_submit) / 1e9;
    let per_s = |amount: u32| (elapsed > 0.0).then(|| f64::from(amount) / elapsed);
    let mut all = vec![
        ("requests_per_s".to_owned(), per_s(submitted)),
        ("output_tokens_per_s".to_owned(), per_s(output)),
        ("total_tokens_per_s".to_owned(), per_s(input + output)),
    ];
    let series = [
        ("ttft_s", ttft, false),
        ("itl_s", itl, false),
        ("time_per_output_token_s", per_token, false),
        ("tpot_tokens_per_s", rate, true),
        ("e2e_s", e2e, false),
    ];
    for (name, mut values, descending) in series {
        values.sort_by(|a, b| if descending { b.total_cmp(a) } else { a.total_cmp(b) });
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        all.push((format!("avg_{name}"), (!values.is_empty()).then_some(mean)));
        for p in [50, 90, 99] {
            let rank = (p * values.len()).div_ceil(100).max(1);
            all.push((format!("p{p}_{name}"), values.get(rank - 1).copied()));
        }
    }
    all
}

proptest! {
    #[test]
    fn random_timelines_agree_with_the_definitions(
        drawn in prop::collection::vec(
            (
                1_000_000_u64..2_000_000,
                0_u64..5_000,
                1_u32..500,
                prop::collection::vec((prop_oneof![Just(0_u64), 1_u64..3_000_000], 1_u32..4), 0..12),
                1_u8..3,
            ),
            0..120,
        )
    ) {
        let timeline = drawn_timeline(&drawn);
        let metrics = RunMetrics::of_timeline(&timeline);
        for (name, expected) in reference(&timeline) {
            let got = value(&metrics, &name);
            let same = match (got, expected) {
                (Some(got), Some(expected)) => (got - expected).abs() <= 1e-9 * expected.abs().max(1e-9),
                (got, expected) => got == expected,
            };
            prop_assert!(same, "{}: {:?}, expected {:?}", name, got, expected);
        }
    }
}
