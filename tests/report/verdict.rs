//! Every way in which a run can miss what was asked for, one at a time, on an otherwise sound run.

use bench::analysis::metrics::RunMetrics;
use bench::analysis::verdict::{Status, Verdict};
use bench::measurement::timeline::{ABSENT, Compilation, FinishReason, Outcome, Phase, StepEvent, Timeline};

use super::sketch::{Request, timeline, typical_run};

const NO_COUNT: u32 = u32::MAX;

fn sound() -> Timeline {
    typical_run("a", 0, 8)
}

fn verdict(timeline: &Timeline) -> Verdict {
    Verdict::of(timeline, &RunMetrics::of_timeline(timeline))
}

/// The reasons after a change to a sound run.
fn reasons(change: impl FnOnce(&mut Timeline)) -> Vec<String> {
    let mut timeline = sound();
    change(&mut timeline);
    let verdict = verdict(&timeline);
    assert_eq!(verdict.status == Status::Valid, verdict.reasons.is_empty());
    verdict.reasons
}

/// The change is found, for this reason and no other.
#[track_caller]
fn only_reason(expected: &str, change: impl FnOnce(&mut Timeline)) {
    let reasons = reasons(change);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains(expected), "{reasons:?}");
}

/// Among the reasons is this one.
#[track_caller]
fn has_reason(expected: &str, change: impl FnOnce(&mut Timeline)) {
    let reasons = reasons(change);
    assert!(reasons.iter().any(|reason| reason.contains(expected)), "{reasons:?}");
}

#[test]
fn a_sound_run_is_valid() {
    assert_eq!(reasons(|_| ()), Vec::<String>::new());
}

#[test]
fn lengths() {
    only_reason("1 of 8 measured requests had another input length than asked (first: request 3, 31 of 32)", |run| {
        run.requests[3].prompt_tokens = 31;
    });
    only_reason("gave another output length than asked (first: request 3, 4 of 5)", |run| {
        run.requests[3].asked_output_tokens = 5;
    });
    only_reason("have other output tokens in their events than at their finish (first: request 3, 5 counted", |run| {
        run.requests[3].output_tokens = 5;
    });
    only_reason("did not finish by their length (first: request 3, by `stop`)", |run| {
        run.requests[3].finish_reason = FinishReason::Stop as u8;
    });
    only_reason("9 requests were to be measured, and 8 were staged", |run| run.run.point.num_prompts = 9);
}

#[test]
fn requests_that_did_not_come_through() {
    only_reason("1 of 8 measured requests have no finish record (first: request 8)", |run| {
        run.requests[8].finish_received_ns = ABSENT;
    });
    has_reason("1 of 8 measured requests were never submitted (first: request 8)", |run| {
        run.requests[8].submitted_ns = ABSENT;
    });
    has_reason("1 of 8 measured requests gave no token (first: request 8)", |run| {
        run.tokens.retain(|event| event.request != 8);
    });
    has_reason("without a scheduled time", |run| run.requests[8].scheduled_ns = ABSENT);
    has_reason("no request was measured", |run| {
        run.requests.iter_mut().for_each(|request| request.phase = Phase::Warmup as u8);
    });
}

#[test]
fn stamps_and_order() {
    only_reason("1 of 32 token events were received before they were emitted", |run| {
        // Its last event, so that no other is out of order after it.
        let last = run.tokens.len() - 1;
        run.tokens[last].emitted_ns = run.tokens[last].received_ns + 1;
    });
    only_reason("came before their request was submitted (first: event 1 of request 1)", |run| {
        run.requests[1].submitted_ns = run.tokens[1].received_ns;
        // Emitted before, received after; the delay of the issue stays within its limit.
        run.requests[1].scheduled_ns = run.requests[1].submitted_ns;
        run.requests[1].engine_queued_ns = ABSENT;
    });
    has_reason("out of order within their request", |run| {
        let (a, b) = (run.tokens[3].received_ns, run.tokens[1].received_ns);
        run.tokens[1].received_ns = a;
        run.tokens[3].received_ns = b;
    });
    has_reason("out of order within their request", |run| run.tokens[1].step += 3);
    only_reason("came after the finish of their request", |run| run.requests[1].finish_received_ns -= 1);
    has_reason("carry no token", |run| run.tokens[1].count = 0);
    has_reason("belong to no request of the run", |run| run.tokens[1].request = 77);
}

#[test]
fn a_lost_event_shows_in_its_step_and_in_its_request() {
    let found = reasons(|run| {
        run.tokens.remove(5);
    });
    assert!(
        found.iter().any(|reason| reason.contains("1 of 33 engine steps lost token events (first: step 5")),
        "{found:?}"
    );
    assert!(found.iter().any(|reason| reason.contains("another output length")), "{found:?}");
    // The event of another phase is missed as well.
    only_reason("lost token events (first: step 0, 1 pushed and 0 received)", |run| {
        run.tokens.remove(0);
    });
}

#[test]
fn discarded_tokens_are_not_lost_ones() {
    let discarding = |run: &mut Timeline| run.steps[5].token_events += 1;
    only_reason("lost token events", discarding);
    let found = reasons(|run| {
        discarding(run);
        run.run.counters.discarded = 1;
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn steps_that_do_not_add_up() {
    only_reason("have more token events than they pushed (first: step 5, 0 pushed and 1 received)", |run| {
        run.steps[5].token_events = 0;
    });
    has_reason("engine steps have no record (first: step 5)", |run| {
        run.steps.remove(5);
    });
    has_reason("come from a step without a record", |run| {
        run.steps.pop();
    });
    has_reason("engine steps were recorded twice (first: step 5)", |run| run.steps[6].step = 5);
    only_reason("no engine step was recorded", |run| run.steps.clear());
    // A wrong number must not decide how much memory the check takes.
    has_reason("have no record", |run| run.steps[6].step = u32::MAX - 1);
    let idle = StepEvent { token_events: 0, step: 33, ..sound().steps[32] };
    assert_eq!(reasons(|run| run.steps.push(idle)), Vec::<String>::new());
}

#[test]
fn the_cached_share() {
    let primed = |cached: u32| {
        move |run: &mut Timeline| {
            run.requests[2].asked_prefix_tokens = 31;
            run.requests[2].cached_tokens = cached;
        }
    };
    assert_eq!(reasons(primed(16)), Vec::<String>::new());
    assert_eq!(reasons(primed(32)), Vec::<String>::new(), "a block more is within the limit");
    only_reason(
        "took nothing from the cache, where their prefix was to come from it (first: request 2, 0 where",
        primed(0),
    );
    only_reason("differs from the design by over a block (first: request 2, 33 where 16 are expected)", primed(33));
    only_reason("differs from the design", |run| run.requests[2].cached_tokens = 17);
    only_reason("have no count of cached tokens", |run| run.requests[2].cached_tokens = NO_COUNT);
    let off = |run: &mut Timeline| {
        let facts = run.run.engine_facts.as_mut().unwrap();
        (facts.prefix_caching, facts.prefix_block_size) = (false, None);
        run.run.point.prefix_len = 31;
        run.requests[2].asked_prefix_tokens = 31;
        run.requests[3].cached_tokens = NO_COUNT;
    };
    let mut run = sound();
    off(&mut run);
    let without_cache = verdict(&run);
    assert_eq!(without_cache.status, Status::Valid, "{without_cache:?}");
    assert!(without_cache.warnings[0].contains("prefix caching is off"), "{without_cache:?}");
    only_reason("differs from the design", |run| {
        off(run);
        run.requests[2].cached_tokens = 1;
    });
}

#[test]
fn what_the_recorder_counted() {
    only_reason("2 event records found the event ring full", |run| run.run.counters.ring_dropped = 2);
    only_reason("found no room in the recorder's memory", |run| run.run.counters.recorder_overflow = 1);
    only_reason("were malformed", |run| run.run.counters.malformed = 1);
    only_reason("belong to no submitted and unfinished request", |run| run.run.counters.unexplained = 1);
}

#[test]
fn what_was_compiled_in_the_measured_window() {
    let compiled = |ready_ns| Some(vec![Compilation { ready_ns, program: "jit(step)".into() }]);
    let (first_submit_ns, last_token_ns) =
        (sound().requests[0].submitted_ns, sound().tokens.last().unwrap().received_ns);
    only_reason("compiled 1 programs in the measured window (first: jit(step))", |run| {
        run.run.compilations = compiled(last_token_ns);
    });
    assert!(reasons(|run| run.run.compilations = compiled(first_submit_ns - 1)).is_empty());
    assert!(reasons(|run| run.run.compilations = compiled(last_token_ns + 1)).is_empty());
    assert!(reasons(|run| run.run.compilations = Some(Vec::new())).is_empty());
}

#[test]
fn machine_state() {
    only_reason("the wall clock stepped by -1.000 ms", |run| run.run.clock_step_ns = Some(-1_000_001));
    only_reason("the wall clock stepped", |run| run.run.clock_step_ns = Some(i64::MIN));
    assert!(reasons(|run| run.run.clock_step_ns = Some(1_000_000)).is_empty());
    only_reason("could not be reset", |run| run.run.cache_reset = Some(false));
    assert!(reasons(|run| run.run.cache_reset = None).is_empty());
}

#[test]
fn issue_delay() {
    let late = |delay_ns: u64| {
        move |run: &mut Timeline| {
            run.requests[1].submitted_ns = run.requests[1].scheduled_ns + delay_ns;
            run.requests[1].engine_queued_ns = run.requests[1].submitted_ns;
            run.requests[1].engine_scheduled_ns = run.requests[1].submitted_ns;
        }
    };
    assert!(reasons(late(1_000_000)).is_empty());
    only_reason("the p99 of the issue delay is 1.000 ms, and its limit 1.000 ms", late(1_000_001));
    // A hundredth of an E2E latency of 300 ms is 3 ms.
    let slow = |delay_ns: u64| timeline(&[Request::new(1_000, 1_000 + delay_ns, 32, &[(300_001_000, 1)])]);
    assert_eq!(verdict(&slow(3_000_000)).status, Status::Valid);
    assert_eq!(verdict(&slow(3_000_001)).status, Status::Invalid);
}

#[test]
fn percentiles_that_an_objective_asks_for_need_samples() {
    let objective = |name: &str| {
        let name = name.to_owned();
        move |run: &mut Timeline| {
            run.run.point.slo.insert(name, 1.0);
        }
    };
    // 8 requests in each of 5 runs are 40 samples, and 24 gaps in each are 120.
    assert!(reasons(objective("p90_ttft_s")).is_empty());
    only_reason("too few samples for `p99_ttft_s`: 8 in each of 5 runs, and it takes 299", objective("p99_ttft_s"));
    only_reason("too few samples for `p99_itl_s`: 24 in each of 5 runs", objective("p99_itl_s"));
    assert!(reasons(objective("avg_ttft_s")).is_empty());
}

#[test]
fn a_run_that_ended_early_is_failed_whatever_its_events_say() {
    let mut run = sound();
    run.run.outcome = Outcome::Failed("the engine exited with status 1".to_owned());
    run.tokens.clear();
    let failed = verdict(&run);
    assert_eq!((failed.status, failed.reasons), (Status::Failed, vec!["the engine exited with status 1".to_owned()]));
    run.run.outcome = Outcome::Skipped("the engine did not start".to_owned());
    assert_eq!(verdict(&run).status, Status::Skipped);
}
