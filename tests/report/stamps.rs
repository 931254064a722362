//! The engine's own stamps against ours: the differences that are reported, and the bounds that make a run invalid.

use bench::analysis::metrics::RunMetrics;
use bench::analysis::verdict::{STAMP_TOLERANCE_NS, Verdict};
use bench::measurement::timeline::{ABSENT, Phase, Timeline};
use bench::presentation::report::{Ruler, RunEntry};

use super::sketch::{Request, timeline};

/// Three steps of a vLLM, with 10 us between them, that stamps tokens 5 us after the tap. Request 0 is submitted before
/// them, and request 1 in the first, so that the look after it finds it. Request 2 is a warm-up.
fn sound() -> Timeline {
    let requests = [
        Request::new(10_000, 10_000, 32, &[(90_100, 1), (190_100, 1), (290_100, 1)]),
        Request::new(50_000, 50_000, 32, &[(190_100, 1), (290_100, 1)]),
        Request::new(10_000, 10_000, 32, &[(90_100, 1)]).in_phase(Phase::Warmup),
    ];
    let mut run = timeline(&requests);
    run.run.engine = "vllm".to_owned();
    for (step, (started_ns, ended_ns)) in [(20_000, 100_000), (110_000, 200_000), (210_000, 300_000)].iter().enumerate()
    {
        (run.steps[step].started_ns, run.steps[step].ended_ns) = (*started_ns, *ended_ns);
    }
    stamp(&mut run, 0, [12_000, 20_500, 95_000, 295_000]);
    stamp(&mut run, 1, [102_000, 110_500, 196_000, 295_000]);
    stamp(&mut run, 2, [ABSENT; 4]);
    run
}

fn entry(run: &Timeline) -> RunEntry {
    RunEntry::of(run, Ruler::UNKNOWN)
}

/// Sets QUEUED, SCHEDULED, first and last token of a request.
fn stamp(run: &mut Timeline, request: usize, stamps_ns: [u64; 4]) {
    let request = &mut run.requests[request];
    [
        request.engine_queued_ns,
        request.engine_scheduled_ns,
        request.engine_first_token_ns,
        request.engine_last_token_ns,
    ] = stamps_ns;
}

fn reasons(change: impl FnOnce(&mut Timeline)) -> Vec<String> {
    let mut run = sound();
    change(&mut run);
    Verdict::of(&run, &RunMetrics::of_timeline(&run)).reasons
}

#[track_caller]
fn explained(change: impl FnOnce(&mut Timeline)) {
    assert_eq!(reasons(change), Vec::<String>::new());
}

#[track_caller]
fn only_reason(expected: &str, change: impl FnOnce(&mut Timeline)) {
    assert_eq!(reasons(change), [expected]);
}

#[test]
fn the_differences_of_measured_requests_are_reported() {
    explained(|_| ());
    let found = serde_json::to_value(entry(&sound())).unwrap();
    let expected = serde_json::json!({
        "queued_ns": {"min": 2_000, "p50": 2_000, "p99": 52_000, "max": 52_000},
        "first_token_ns": {"min": -5_900, "p50": -5_900, "p99": -4_900, "max": -4_900},
        "last_token_ns": {"min": -4_900, "p50": -4_900, "p99": -4_900, "max": -4_900},
    });
    assert_eq!(found["cross_check"], expected);
}

#[test]
fn without_stamps_there_is_nothing_to_check() {
    let mut run = sound();
    (0..3).for_each(|request| stamp(&mut run, request, [ABSENT; 4]));
    let found = entry(&run);
    assert_eq!(found.reasons, Vec::<String>::new());
    let expected = serde_json::json!({"queued_ns": null, "first_token_ns": null, "last_token_ns": null});
    assert_eq!(serde_json::to_value(found.cross_check).unwrap(), expected);
    // One of four is enough for what needs only that one.
    stamp(&mut run, 0, [ABSENT, ABSENT, ABSENT, 295_000]);
    let found = entry(&run);
    assert_eq!((found.cross_check.queued_ns, found.cross_check.last_token_ns.map(|ns| ns.p50)), (None, Some(-4_900)));
    explained(|run| stamp(run, 2, [1, 2, 3, 4])); // of a warm-up
}

#[test]
fn a_request_is_queued_after_it_was_submitted() {
    explained(|run| run.requests[0].engine_queued_ns = 10_000 - STAMP_TOLERANCE_NS);
    only_reason(
        "1 of 2 measured requests were QUEUED by the engine before they were submitted (first: request 0, submitted at \
         10000 ns, QUEUED at 8999 ns, bound 9000 ns)",
        |run| run.requests[0].engine_queued_ns = 8_999,
    );
}

#[test]
fn a_request_is_queued_by_the_look_after_the_step_that_ran() {
    let queued = |queued_ns: u64| move |run: &mut Timeline| stamp(run, 1, [queued_ns, ABSENT, ABSENT, ABSENT]);
    explained(queued(111_000));
    only_reason(
        "1 of 2 measured requests were QUEUED by the engine later than the sidecar's look at the request ring explains \
         (first: request 1, submitted at 50000 ns, QUEUED at 111001 ns, bound 111000 ns)",
        queued(111_001),
    );
    // The scripted engine waits within its steps, and looks while it does.
    let scripted = |queued_ns: u64| {
        move |run: &mut Timeline| {
            run.run.engine = "scripted".to_owned();
            queued(queued_ns)(run);
        }
    };
    explained(scripted(201_000));
    assert!(reasons(scripted(201_001))[0].contains("bound 201000 ns"));
}

#[test]
fn a_handle_that_just_missed_a_look_waits_for_the_next() {
    // Submitted after step 0, and perhaps after the look: step 1 may run without it, and the look after step 1 finds it.
    let submitted = |queued_ns: u64| {
        move |run: &mut Timeline| {
            run.requests[1].submitted_ns = 103_000;
            run.requests[1].scheduled_ns = 103_000;
            stamp(run, 1, [queued_ns, ABSENT, ABSENT, ABSENT]);
        }
    };
    explained(submitted(211_000));
    assert!(reasons(submitted(211_001))[0].contains("bound 211000 ns"));
    // The recorder may have been held up between the stamp and the push: until it next receives something, the handle
    // may not be there.
    let held_up = |queued_ns: u64| {
        move |run: &mut Timeline| {
            run.tokens.iter_mut().filter(|event| event.step == 0).for_each(|event| event.received_ns = 100_001);
            [0, 2].into_iter().for_each(|request| run.requests[request].finish_received_ns += 100_001);
            stamp(run, 1, [queued_ns, ABSENT, ABSENT, ABSENT]);
        }
    };
    explained(held_up(211_000));
    assert!(reasons(held_up(211_001))[0].contains("bound 211000 ns"));
    // After the last steps nothing bounds it.
    explained(|run| {
        submitted(999_000)(run);
        run.steps.truncate(2);
        run.tokens.retain(|event| event.step < 2);
        (run.requests[0].asked_output_tokens, run.requests[0].output_tokens) = (2, 2);
        (run.requests[1].asked_output_tokens, run.requests[1].output_tokens) = (1, 1);
        stamp(run, 0, [ABSENT; 4]);
    });
}

#[test]
fn the_engine_stamps_in_order() {
    let order = "measured requests have stamps of the engine that are out of order (first: request 0";
    let cases = [
        ([20_501, 20_500, 95_000, 295_000], "QUEUED at 20501 ns and SCHEDULED at 20500 ns"),
        ([12_000, 95_001, 95_000, 295_000], "SCHEDULED at 95001 ns and first token at 95000 ns"),
        ([95_001, ABSENT, 95_000, 295_000], "QUEUED at 95001 ns and first token at 95000 ns"),
    ];
    for (stamps_ns, expected) in cases {
        only_reason(&format!("1 of 2 {order}, {expected})"), |run| stamp(run, 0, stamps_ns));
    }
    // Two tokens of one step, stamped in the wrong order.
    only_reason(&format!("1 of 2 {order}, first token at 296000 ns and last token at 295000 ns)"), |run| {
        run.tokens.iter_mut().filter(|event| event.request == 0).for_each(|event| event.step = 2);
        let counts = [1, 2, 3];
        run.steps.iter_mut().zip(counts).for_each(|(step, count)| step.token_events = count);
        run.steps[1].token_events = 1;
        run.steps[2].token_events = 4;
        stamp(run, 0, [12_000, 20_500, 296_000, 295_000]);
    });
    explained(|run| stamp(run, 0, [20_500, 20_500, 95_000, 295_000]));
}

#[test]
fn a_token_is_stamped_in_the_step_that_gave_it() {
    let first = |stamp_ns: u64| move |run: &mut Timeline| stamp(run, 1, [ABSENT, ABSENT, stamp_ns, 295_000]);
    explained(first(109_000));
    explained(first(201_000));
    let message = |stamp_ns: u64, bound_ns: u64| {
        format!(
            "1 of 2 measured requests have a first token that the engine stamped outside the step that gave it (first: \
             request 1, stamped at {stamp_ns} ns, received at 190100 ns, bound of step 1 {bound_ns} ns)"
        )
    };
    only_reason(&message(108_999, 109_000), first(108_999));
    only_reason(&message(201_001, 201_000), first(201_001));
    let last = |stamp_ns: u64| move |run: &mut Timeline| stamp(run, 1, [ABSENT, ABSENT, ABSENT, stamp_ns]);
    explained(last(301_000));
    only_reason(
        "1 of 2 measured requests have a last token that the engine stamped outside the step that gave it (first: \
         request 1, stamped at 301001 ns, received at 290100 ns, bound of step 2 301000 ns)",
        last(301_001),
    );
    assert!(reasons(last(208_999))[0].contains("bound of step 2 209000 ns"));
    // A step without a number bounds nothing.
    explained(|run| {
        last(999_000)(run);
        run.tokens.iter_mut().for_each(|event| event.step = u32::MAX);
        run.steps.clear();
        run.run.engine = "imported".to_owned();
    });
}

#[test]
fn with_async_scheduling_the_next_step_bounds_the_stamp() {
    let first = |stamp_ns: u64| {
        move |run: &mut Timeline| {
            run.run.engine_facts.as_mut().unwrap().async_scheduling = true;
            stamp(run, 1, [ABSENT, ABSENT, stamp_ns, ABSENT]);
        }
    };
    explained(first(301_000));
    assert!(
        reasons(first(301_001))[0].contains("stamped at 301001 ns, received at 190100 ns, bound of step 1 301000 ns")
    );
    assert!(reasons(first(108_999))[0].contains("bound of step 1 109000 ns"));
    explained(|run| {
        first(ABSENT)(run);
        run.requests[1].engine_last_token_ns = 999_000; // of the last step, after which none is recorded
    });
}
