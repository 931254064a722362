//! Checks of the engine's own stamps of each measured request against what the recorder and the sidecar saw of it.

use super::Finding;
use crate::analysis::metrics::{RequestTokens, is_measured};
use crate::measurement::timeline::{RequestEvent, StepEvent, Timeline, known};

/// How far a stamp may lie beyond its bound, in nanoseconds. vLLM's stamps are seconds in floating point, exact to 0.1 us
/// after a year without a restart, and the clock has a tick.
pub const STAMP_TOLERANCE_NS: u64 = 1_000;

#[derive(Default)]
struct Findings {
    queued_early: Finding,
    queued_late: Finding,
    out_of_order: Finding,
    first_token: Finding,
    last_token: Finding,
}

/// Every reason that the engine's stamps give against their run. Requests without stamps give none.
pub(super) fn reasons(timeline: &Timeline, tokens: &[RequestTokens]) -> Vec<String> {
    let mut findings = Findings::default();
    let mut measured = 0;
    for (index, (request, tokens)) in timeline.requests.iter().zip(tokens).enumerate() {
        if !is_measured(request) {
            continue;
        }
        measured += 1;
        findings.check_queued(timeline, index, request);
        findings.check_order(index, request);
        if tokens.events > 0 {
            let (stamp_ns, received_ns) = (request.engine_first_token_ns, tokens.first_received_ns);
            let outside = outside_step(timeline, tokens.first_step, stamp_ns, received_ns);
            findings.first_token.add_found(index, outside);
            let (stamp_ns, received_ns) = (request.engine_last_token_ns, tokens.last_received_ns);
            let outside = outside_step(timeline, tokens.last_step, stamp_ns, received_ns);
            findings.last_token.add_found(index, outside);
        }
    }
    findings.reasons(measured)
}

impl Finding {
    fn add_found(&mut self, request: usize, found: Option<String>) {
        if let Some(found) = found {
            self.add(|| format!("request {request}, {found}"));
        }
    }
}

impl Findings {
    fn check_queued(&mut self, timeline: &Timeline, index: usize, request: &RequestEvent) {
        let (submitted_ns, Some(queued_ns)) = (request.submitted_ns, known(request.engine_queued_ns)) else { return };
        let example = |bound_ns: u64| {
            format!("request {index}, submitted at {submitted_ns} ns, QUEUED at {queued_ns} ns, bound {bound_ns} ns")
        };
        let earliest_ns = submitted_ns.saturating_sub(STAMP_TOLERANCE_NS);
        if queued_ns < earliest_ns {
            self.queued_early.add(|| example(earliest_ns));
        }
        if let Some(latest_ns) = latest_queued_ns(timeline, submitted_ns).filter(|latest_ns| queued_ns > *latest_ns) {
            self.queued_late.add(|| example(latest_ns));
        }
    }

    fn check_order(&mut self, index: usize, request: &RequestEvent) {
        let stamps = [
            ("QUEUED", request.engine_queued_ns),
            ("SCHEDULED", request.engine_scheduled_ns),
            ("first token", request.engine_first_token_ns),
            ("last token", request.engine_last_token_ns),
        ];
        let there: Vec<(&str, u64)> = stamps.into_iter().filter(|(_, at_ns)| known(*at_ns).is_some()).collect();
        let wrong = there.windows(2).find(|pair| pair[0].1 > pair[1].1);
        if let Some([(before, before_ns), (after, after_ns)]) = wrong {
            self.out_of_order
                .add(|| format!("request {index}, {before} at {before_ns} ns and {after} at {after_ns} ns"));
        }
    }

    fn reasons(self, measured: u64) -> Vec<String> {
        let did = [
            (self.queued_early, "were QUEUED by the engine before they were submitted"),
            (self.queued_late, "were QUEUED by the engine later than the sidecar's look at the request ring explains"),
            (self.out_of_order, "have stamps of the engine that are out of order"),
            (self.first_token, "have a first token that the engine stamped outside the step that gave it"),
            (self.last_token, "have a last token that the engine stamped outside the step that gave it"),
        ];
        did.into_iter().filter_map(|(finding, did)| finding.reason(measured, "measured requests", did)).collect()
    }
}

/// The latest QUEUED stamp of a request that was submitted then, tolerance included; `None` if nothing bounds it.
///
/// The handle is in the ring as soon as the recorder, which does one thing after the other, has received anything after
/// the submission. The look at the ring that follows the step that ends next finds it, and the next step begins after.
fn latest_queued_ns(timeline: &Timeline, submitted_ns: u64) -> Option<u64> {
    let next = timeline.tokens.partition_point(|event| event.received_ns <= submitted_ns);
    let visible_ns = timeline.tokens.get(next)?.received_ns;
    let ended_before = timeline.steps.partition_point(|step| step.ended_ns < visible_ns);
    let step = timeline.steps.get(ended_before + 1)?;
    // The scripted engine waits, and looks, within its steps.
    let looked_by_ns = if timeline.run.engine == "scripted" { step.ended_ns } else { step.started_ns };
    Some(looked_by_ns.saturating_add(STAMP_TOLERANCE_NS))
}

/// What is wrong with the engine's stamp of a token that a step gave; `None` if nothing is, or if it is not known.
///
/// With async scheduling the engine processes the tokens of a step at the latest in the next one.
fn outside_step(timeline: &Timeline, step: u32, stamp_ns: u64, received_ns: u64) -> Option<String> {
    let stamp_ns = known(stamp_ns)?;
    let position = timeline.steps.binary_search_by_key(&step, |record| record.step).ok()?;
    let from_ns = timeline.steps[position].started_ns.saturating_sub(STAMP_TOLERANCE_NS);
    let is_async = timeline.run.engine_facts.as_ref().is_some_and(|facts| facts.async_scheduling);
    let last: Option<&StepEvent> = timeline.steps.get(position + usize::from(is_async));
    let to_ns = last.map_or(u64::MAX, |step| step.ended_ns.saturating_add(STAMP_TOLERANCE_NS));
    (stamp_ns < from_ns || stamp_ns > to_ns).then(|| {
        let bound_ns = if stamp_ns < from_ns { from_ns } else { to_ns };
        format!("stamped at {stamp_ns} ns, received at {received_ns} ns, bound of step {step} {bound_ns} ns")
    })
}
