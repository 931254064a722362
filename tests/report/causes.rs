//! Slow ITLs and TTFTs whose cause is known, because it was put there.

use bench::measurement::telemetry::{DeviceKind, Quantity, Sample, SampledDevice, TelemetryRecord};
use bench::measurement::timeline::{Compilation, Phase, Timeline};
use bench::presentation::exchange::csv;
use bench::presentation::report::{Ruler, RunEntry, from_csv};
use serde_json::{Value, json};

use super::sketch::{Request, timeline};

const MS: u64 = 1_000_000;

/// The step that ends the slow ITL, and when it was to end.
const SLOW: usize = 100;
const SLOW_NS: u64 = (10 * SLOW as u64 + 50) * MS;

/// The run with its steps one after the other, 5 us apart, each with its requests in decode.
fn without_pauses(mut run: Timeline) -> Timeline {
    for index in 0..run.steps.len() {
        let first_ns = run.steps[0].ended_ns.saturating_sub(10 * MS);
        let before_ns = index.checked_sub(1).map_or(first_ns, |before| run.steps[before].ended_ns);
        run.steps[index].started_ns = before_ns + 5_000;
        run.steps[index].running = 1;
    }
    run
}

/// A request of 201 tokens, 10 ms apart, of which one takes 50 ms.
fn one_slow_itl() -> Timeline {
    let at = |event: u64| 10 * event * MS + if event >= SLOW as u64 { 50 * MS } else { 10 * MS };
    let events: Vec<(u64, u32)> = (0..201).map(|event| (at(event), 1)).collect();
    without_pauses(timeline(&[Request::new(MS, MS, 32, &events)]))
}

fn tail(run: &Timeline, kind: &str) -> Value {
    let causes = serde_json::to_value(RunEntry::of(run, Ruler::UNKNOWN).causes).unwrap();
    causes[kind].clone()
}

#[track_caller]
fn assert_one_cause(run: &Timeline, kind: &str, cause: &str) -> Value {
    let tail = tail(run, kind);
    assert_eq!((&tail["count"], &tail["causes"][0]["cause"]), (&json!(1), &json!(cause)), "{tail:#}");
    assert_eq!((&tail["causes"][0]["share"], &tail["slowest"][0]["cause"]), (&json!(1.0), &json!(cause)));
    tail["slowest"][0].clone()
}

#[test]
fn a_slow_step_like_all_others_is_unexplained() {
    let slow = assert_one_cause(&one_slow_itl(), "itl", "unexplained");
    assert_eq!((&slow["latency_s"], &slow["excess_s"]), (&json!(0.05), &json!(0.04)));
    assert_eq!((&slow["step"], &slow["request"], &slow["steps"]), (&json!(SLOW), &json!(0), &json!(1)));
    assert_eq!(slow["at_s"], json!((SLOW_NS - MS) as f64 / 1e9));
    assert_eq!((&slow["from_this_step"], &slow["own_prefill_tokens"]), (&json!(1), &Value::Null));
    assert_eq!(tail(&one_slow_itl(), "itl")["of"], 200);
}

#[test]
fn a_prefill_in_the_step_is_the_cause() {
    let mut run = one_slow_itl();
    (run.steps[SLOW].prefill_tokens, run.steps[SLOW].prefill_requests) = (512, 1);
    let slow = assert_one_cause(&run, "itl", "prefill");
    assert_eq!((&slow["prefill_tokens"], &slow["decode_requests"]), (&json!(512), &json!(1)));
}

#[test]
fn of_two_prefills_of_a_size_neither_is_the_usual_one() {
    let mut run = one_slow_itl();
    for step in [40, SLOW] {
        (run.steps[step].prefill_tokens, run.steps[step].prefill_requests) = (512, 1);
    }
    assert_one_cause(&run, "itl", "prefill");
}

#[test]
fn a_prefill_that_is_usually_quick_is_not_the_cause() {
    let mut run = one_slow_itl();
    // Three others of its size take as long as any step.
    for step in [20, 40, 60, SLOW] {
        (run.steps[step].prefill_tokens, run.steps[step].prefill_requests) = (512, 1);
    }
    assert_one_cause(&run, "itl", "unexplained");
    run.steps[SLOW].involuntary_switches = 2;
    assert_one_cause(&run, "itl", "engine_stall");
}

#[test]
fn a_larger_batch_is_the_cause() {
    let mut run = one_slow_itl();
    (run.steps[SLOW].decode_tokens, run.steps[SLOW].decode_requests) = (64, 64);
    assert_one_cause(&run, "itl", "batch");
}

#[test]
fn the_engines_host_is_the_cause() {
    let mut run = one_slow_itl();
    run.steps[SLOW].started_ns = run.steps[SLOW].ended_ns - 30 * MS;
    let slow = assert_one_cause(&run, "itl", "engine_stall");
    assert_eq!(slow["between_steps_s"], json!(0.02));
    run.steps[SLOW].started_ns = run.steps[SLOW].ended_ns - 31 * MS;
    assert_one_cause(&run, "itl", "unexplained");
    run.steps[SLOW].tap_push_ns = 21 * MS as u32;
    assert_one_cause(&run, "itl", "engine_stall");
}

#[test]
fn the_recorders_host_is_the_cause() {
    let mut run = one_slow_itl();
    run.tokens[50].received_ns += 8 * MS;
    let tail = tail(&run, "itl");
    let slow: Vec<&Value> = tail["slowest"].as_array().unwrap().iter().map(|slow| &slow["cause"]).collect();
    assert_eq!(slow, ["unexplained", "recorder_stall"]);
    assert_eq!(tail["slowest"][1]["recorder_s"], json!(0.008));
    let shares: Vec<&Value> = tail["causes"].as_array().unwrap().iter().map(|part| &part["share"]).collect();
    assert_eq!(shares, [&json!(0.5), &json!(0.5)]);
}

/// Two requests with a token every 10 ms, of which one gives none in four steps.
fn one_waits() -> Timeline {
    let events: Vec<(u64, u32)> = (1..=201).map(|event| (10 * event * MS, 1)).collect();
    let waiting: Vec<(u64, u32)> =
        events.iter().copied().filter(|(at, _)| !(900 * MS..940 * MS).contains(at)).collect();
    without_pauses(timeline(&[Request::new(MS, MS, 32, &events), Request::new(MS, MS, 32, &waiting)]))
}

#[test]
fn a_preemption_is_the_cause_of_the_request_that_it_hit() {
    let mut run = one_waits();
    let slow = assert_one_cause(&run, "itl", "not_scheduled");
    assert_eq!((&slow["request"], &slow["steps"]), (&json!(1), &json!(5)));
    run.steps[90].preemptions = 1;
    run.requests[1].preemptions = 1;
    let slow = assert_one_cause(&run, "itl", "preemption");
    assert_eq!(slow["preemptions"], 1);
}

#[test]
fn a_compilation_is_the_cause_before_all_others() {
    let mut run = one_slow_itl();
    run.steps[SLOW].prefill_tokens = 512;
    let ready = |ready_ns| Some(vec![Compilation { ready_ns, program: "step".to_owned() }]);
    run.run.compilations = ready(SLOW_NS - MS);
    assert_one_cause(&run, "itl", "compilation");
    run.run.compilations = ready(SLOW_NS + MS);
    assert_one_cause(&run, "itl", "prefill");
}

#[test]
fn throttling_is_the_cause_while_the_machine_says_so() {
    let mut run = one_slow_itl();
    let device = SampledDevice { kind: DeviceKind::Gpu, name: "gpu 0".to_owned() };
    run.run.telemetry = Some(TelemetryRecord {
        rate_hz: 10,
        devices: vec![device],
        sources: vec![],
        missing: vec![],
        cpu_ns: 0,
        wall_ns: 1,
        not_pinned: None,
    });
    let (idle, slowdown) = (1, 8);
    let sampled = |at_ns: u64, quantity, value| {
        let mut sample = Sample::unknown(0, at_ns);
        sample.set(quantity, Some(value));
        sample
    };
    let reasons = |bits: u64| {
        let at = [(SLOW_NS - 90 * MS, 0), (SLOW_NS - 20 * MS, bits), (SLOW_NS + 20 * MS, 0)];
        at.map(|(at_ns, bits)| sampled(at_ns, Quantity::ThrottleReasonBits, bits)).to_vec()
    };
    for (bits, cause) in [(slowdown, "throttling"), (idle, "unexplained")] {
        run.telemetry = reasons(bits);
        assert_one_cause(&run, "itl", cause);
    }
    let counts = |later| [(SLOW_NS - 90 * MS, 7), (SLOW_NS + 20 * MS, later)];
    for (later, cause) in [(8, "throttling"), (7, "unexplained")] {
        run.telemetry = counts(later).map(|(at_ns, count)| sampled(at_ns, Quantity::ThrottleTotal, count)).to_vec();
        assert_one_cause(&run, "itl", cause);
    }
    // It was over before.
    run.telemetry = vec![
        sampled(MS, Quantity::ThrottleReasonBits, slowdown),
        sampled(20 * MS, Quantity::ThrottleReasonBits, 0),
        sampled(SLOW_NS, Quantity::ThrottleReasonBits, 0),
    ];
    assert_one_cause(&run, "itl", "unexplained");
}

/// Twenty requests one after the other, each with its first token after 10 ms; one takes 50 ms.
fn one_slow_ttft() -> Timeline {
    let request = |index: u64| {
        let begin = (1 + 100 * index) * MS;
        let first = begin + if index == 7 { 50 * MS } else { 10 * MS };
        Request::new(begin, begin, 32, &[(first, 1), (first + 10 * MS, 1)])
    };
    let mut run = timeline(&(0..20).map(request).collect::<Vec<_>>());
    for (index, step) in run.steps.iter_mut().enumerate() {
        // The first of two gives the first token.
        let length_ns = if index == 14 { 50 * MS } else { 10 * MS };
        step.started_ns = step.ended_ns - length_ns + 100_000;
        (step.prefill_tokens, step.decode_tokens) = if index % 2 == 0 { (32, 0) } else { (0, 1) };
    }
    run
}

#[test]
fn a_ttft_has_its_cause() {
    let slow = assert_one_cause(&one_slow_ttft(), "ttft", "unexplained");
    assert_eq!((&slow["request"], &slow["step"], &slow["own_prefill_tokens"]), (&json!(7), &json!(14), &json!(32)));

    let mut run = one_slow_ttft();
    run.steps[14].prefill_tokens = 2_048;
    let slow = assert_one_cause(&run, "ttft", "prefill");
    assert_eq!(slow["prefill_tokens"], 2_048);

    let mut run = one_slow_ttft();
    run.requests[7].engine_scheduled_ns += 40 * MS;
    let slow = assert_one_cause(&run, "ttft", "queue");
    assert_eq!(slow["queue_s"], json!(0.040_000_03));

    let mut run = one_slow_ttft();
    run.requests[7].submitted_ns += 30 * MS;
    assert_one_cause(&run, "ttft", "late_issue");

    let mut run = one_slow_ttft();
    run.steps[14].started_ns += 30 * MS;
    assert_one_cause(&run, "ttft", "engine_stall");

    let mut run = one_slow_ttft();
    run.steps[14].involuntary_switches = 1;
    assert_one_cause(&run, "ttft", "engine_stall");

    let mut run = one_slow_ttft();
    run.tokens.iter_mut().find(|event| event.request == 7).unwrap().emitted_ns -= 39 * MS;
    assert_one_cause(&run, "ttft", "recorder_stall");
}

#[test]
fn requests_that_are_not_measured_have_no_slow_latencies() {
    let mut events = vec![(20 * MS, 1), (90 * MS, 1)];
    let warmup = Request::new(MS, MS, 32, &events).in_phase(Phase::Warmup);
    events.iter_mut().for_each(|event| event.0 += 100 * MS);
    let tail = tail(&timeline(&[warmup, Request::new(101 * MS, 101 * MS, 32, &events)]), "itl");
    assert_eq!((&tail["of"], &tail["count"], &tail["slowest"]), (&json!(1), &json!(0), &json!([])));
}

#[test]
fn of_a_timeline_without_steps_the_slowest_are_listed_and_no_cause_is_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.csv");
    let mut out = ::csv::Writer::from_path(&path).unwrap();
    csv::write_header(&mut out).unwrap();
    csv::write_events(&mut out, &one_slow_itl()).unwrap();
    out.flush().unwrap();
    let report = from_csv(&path).unwrap();
    let run = serde_json::to_value(&report.runs[0].causes).unwrap();
    assert_eq!((&run["itl"]["count"], &run["itl"]["causes"]), (&json!(1), &Value::Null));
    let slow = &run["itl"]["slowest"][0];
    assert_eq!((&slow["latency_s"], &slow["step"], &slow["cause"]), (&json!(0.05), &json!(SLOW), &Value::Null));
    assert_eq!(slow["prefill_tokens"], Value::Null);
}

#[test]
fn a_point_has_the_tails_of_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut results =
        bench::presentation::report::Results::create(folder.path(), &super::sketch::session(&["p"])).unwrap();
    for repeat in 0..3 {
        let mut run = one_slow_itl();
        (run.run.repeat, run.run.order) = (repeat, repeat);
        if repeat == 2 {
            run.steps[SLOW].prefill_tokens = 512;
        }
        results.add(&run).unwrap();
    }
    let report = results.finish().unwrap();
    let point = serde_json::to_value(&report.points[0].causes).unwrap();
    let found: Vec<(&Value, &Value)> =
        point["itl"]["causes"].as_array().unwrap().iter().map(|part| (&part["cause"], &part["count"])).collect();
    assert_eq!(found, [(&json!("unexplained"), &json!(2)), (&json!("prefill"), &json!(1))]);
    assert_eq!((&point["itl"]["count"], &point["itl"]["of"]), (&json!(3), &json!(600)));
    let repeats: Vec<u64> =
        point["itl"]["slowest"].as_array().unwrap().iter().map(|slow| slow["repeat"].as_u64().unwrap()).collect();
    assert_eq!(repeats, [0, 1, 2]);
}
