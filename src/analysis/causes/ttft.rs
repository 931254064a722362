//! The slowest TTFTs and their causes.

use super::Cause;
use super::steps::{Account, Steps};
use super::tail::{Bounds, Found};
use crate::analysis::metrics::{Samples, elapsed_ns, is_measured, known_elapsed_ns, scheduled_ns};
use crate::measurement::timeline::{RequestEvent, Timeline, TokenEvent, known};
use crate::statistics::Percentile;

/// The medians of what a TTFT is made of, over the requests of the run.
struct Usual {
    issue_ns: i64,
    queue_ns: i64,
    prefill_ns: i64,
}

/// The TTFTs of the tail, in the order in which they ended.
pub(super) fn slow(timeline: &Timeline, samples: &Samples, steps: Option<&Steps<'_>>, bounds: Bounds) -> Vec<Found> {
    let median = |ascending_ns: &[i64]| Percentile::P50.of_sorted(ascending_ns).unwrap_or(0);
    let usual = Usual {
        issue_ns: median(&samples.issue_delay_ns),
        queue_ns: median(&samples.queue_ns),
        prefill_ns: median(&samples.prefill_ns),
    };
    let mut answered = vec![false; timeline.requests.len()];
    let first_tokens = timeline.tokens.iter().filter(|event| {
        let is_answered = answered.get_mut(event.request as usize);
        is_answered.is_some_and(|is_answered| !std::mem::replace(is_answered, true))
    });
    let found = |event: &TokenEvent| found(event, timeline, steps, bounds, &usual);
    first_tokens.filter_map(found).collect()
}

fn found(
    event: &TokenEvent,
    timeline: &Timeline,
    steps: Option<&Steps<'_>>,
    bounds: Bounds,
    usual: &Usual,
) -> Option<Found> {
    let request = timeline.requests.get(event.request as usize).filter(|request| is_measured(request))?;
    let latency_ns = elapsed_ns(scheduled_ns(request), event.received_ns);
    let excess_ns = bounds.excess_ns(latency_ns)?;
    let account = steps.zip(event.step()).and_then(|(steps, step)| steps.since(request.submitted_ns, step));
    let queue_ns = known_elapsed_ns(request.engine_queued_ns, request.engine_scheduled_ns);
    let recorder_ns = known_elapsed_ns(event.emitted_ns, event.received_ns);
    let cause = steps.zip(account).map(|(steps, account)| {
        Evidence { request, event, account, queue_ns, recorder_ns, usual, excess_ns }.cause(steps)
    });
    Some(Found {
        request: event.request,
        step: event.step(),
        ended_ns: event.received_ns,
        latency_ns,
        cause,
        account,
        own_prefill_tokens: own_prefill_tokens(request),
        queue_ns,
        recorder_ns,
    })
}

/// Prompt tokens that did not come from the cache; `None` if the engine did not count.
fn own_prefill_tokens(request: &RequestEvent) -> Option<u32> {
    let is_counted = request.prompt_tokens != u32::MAX && request.cached_tokens != u32::MAX;
    is_counted.then(|| request.prompt_tokens.saturating_sub(request.cached_tokens))
}

/// What is known of one TTFT.
struct Evidence<'a> {
    request: &'a RequestEvent,
    event: &'a TokenEvent,
    account: Account,
    queue_ns: Option<i64>,
    recorder_ns: Option<i64>,
    usual: &'a Usual,
    excess_ns: i64,
}

impl Evidence<'_> {
    fn cause(&self, steps: &Steps<'_>) -> Cause {
        let Evidence { request, account, usual, .. } = self;
        let makes_half = |part_ns: i64| part_ns.saturating_mul(2) >= self.excess_ns;
        let issue_ns = elapsed_ns(scheduled_ns(request), request.submitted_ns);
        let (from_ns, to_ns) = (scheduled_ns(request), self.event.received_ns);
        if steps.compiled(from_ns, to_ns) {
            Cause::Compilation
        } else if request.preemptions > 0 && account.preemptions > 0 {
            Cause::Preemption
        } else if self.recorder_ns.is_some_and(makes_half) {
            Cause::RecorderStall
        } else if makes_half(issue_ns.saturating_sub(usual.issue_ns)) {
            Cause::LateIssue
        } else if makes_half(account.between_ns + account.tap_ns) {
            Cause::EngineStall
        } else if self.queue_ns.is_some_and(|queue_ns| makes_half(queue_ns.saturating_sub(usual.queue_ns))) {
            Cause::Queue
        } else if self.prefill_typically_ns(steps).is_some_and(|ns| makes_half(ns - usual.prefill_ns)) {
            Cause::Prefill
        } else if account.involuntary_switches > 0 {
            Cause::EngineStall
        } else if steps.throttled(from_ns, to_ns) {
            Cause::Throttling
        } else {
            Cause::Unexplained
        }
    }

    /// What the steps from the engine's taking the request to its first token typically take.
    fn prefill_typically_ns(&self, steps: &Steps<'_>) -> Option<i64> {
        let from_ns = known(self.request.engine_scheduled_ns).unwrap_or(self.request.submitted_ns);
        Some(steps.since(from_ns, self.event.step()?)?.typical_ns)
    }
}
