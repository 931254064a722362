//! Speculative decoding: a request is given what vLLM counts at its finish, not all that the tap saw in its last step.

use bench::analysis::metrics::RunMetrics;
use bench::analysis::verdict::{Status, Verdict};
use bench::measurement::timeline::{Phase, Speculation, StepDrafts, Timeline};
use bench::presentation::report::{Ruler, RunEntry};

use super::sketch::{Request, timeline};

fn drafts(step: u32) -> StepDrafts {
    StepDrafts { step, drafts: 1, draft_tokens: 4, accepted_tokens: 3 }
}

/// A warm-up request and a measured one. The tap saw 9 tokens of each, and vLLM gave 6: 3 of the last event are cut.
fn speculated() -> Timeline {
    let events = |from_ns: u64| [(from_ns, 1), (from_ns + 1_000_000, 4), (from_ns + 2_000_000, 4)];
    let warm_up = Request::new(1_000, 1_000, 32, &events(1_000_000)).in_phase(Phase::Warmup);
    let measured = Request::new(4_000_000, 4_000_000, 32, &events(5_000_000));
    let mut timeline = timeline(&[warm_up, measured]);
    for request in &mut timeline.requests {
        request.asked_output_tokens = 6;
        request.output_tokens = 6;
    }
    timeline
}

fn verdict(timeline: &Timeline) -> Verdict {
    Verdict::of(timeline, &RunMetrics::of_timeline(timeline))
}

#[test]
fn tokens_behind_the_end_of_a_request_count_apart() {
    let mut run = speculated();
    let before = verdict(&run);
    assert_eq!(before.status, Status::Invalid, "all that the tap saw is more than was given");
    run.settle_speculation(&[drafts(1), drafts(2), drafts(4), drafts(5)]);
    assert_eq!(verdict(&run).reasons, Vec::<String>::new());
    assert_eq!(run.tokens.iter().map(|event| event.count).collect::<Vec<_>>(), [1, 4, 1, 1, 4, 1]);
    let entry = RunEntry::of(&run, Ruler::UNKNOWN);
    let of_window = Speculation { drafts: 2, draft_tokens: 8, accepted_tokens: 6, cut_tokens: 3 };
    assert_eq!(entry.speculation, Some(of_window), "the warm-up is no part of it");
    assert_eq!(entry.metrics.totals.output_tokens, 6);
}

#[test]
fn event_that_the_finish_does_not_explain_is_left_for_the_verdict() {
    let mut run = speculated();
    run.requests[1].output_tokens = 5; // the last event would have nothing left
    run.settle_speculation(&[]);
    assert_eq!(run.tokens.last().unwrap().count, 4);
    let reasons = verdict(&run).reasons;
    assert!(reasons.iter().any(|reason| reason.contains("9 of 6")), "{reasons:?}");
}

#[test]
fn engine_that_gives_fewer_tokens_than_asked_is_invalid_after_the_cut() {
    let mut run = speculated();
    run.requests[1].asked_output_tokens = 7;
    run.settle_speculation(&[]);
    let reasons = verdict(&run).reasons;
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains("6 of 7"), "{reasons:?}");
}
