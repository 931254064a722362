//! The slowest ITLs and their causes.

use super::Cause;
use super::steps::{Account, Steps};
use super::tail::{Bounds, Found};
use crate::analysis::metrics::{Gap, RequestTokens, is_measured, known_elapsed_ns};
use crate::measurement::timeline::{ABSENT, RequestEvent, Timeline};

/// The ITLs of the tail, in the order in which they ended.
pub(super) fn slow(timeline: &Timeline, steps: Option<&Steps<'_>>, bounds: Bounds) -> Vec<Found> {
    let measured: Vec<bool> = timeline.requests.iter().map(is_measured).collect();
    let mut requests = vec![RequestTokens::default(); timeline.requests.len()];
    let mut emitted_before_ns = vec![ABSENT; timeline.requests.len()];
    let mut found = Vec::new();
    for event in &timeline.tokens {
        let index = event.request as usize;
        if !measured.get(index).copied().unwrap_or(false) {
            continue;
        }
        let emitted_from_ns = std::mem::replace(&mut emitted_before_ns[index], event.emitted_ns);
        let Some(gap) = requests[index].add(event) else { continue };
        let Some(excess_ns) = bounds.excess_ns(gap.elapsed_ns()) else { continue };
        let recorder_ns = known_elapsed_ns(emitted_from_ns, event.emitted_ns)
            .map(|emitted_ns| gap.elapsed_ns().saturating_sub(emitted_ns));
        let account = steps.and_then(|steps| steps.between(gap.from_step, gap.to_step));
        let cause = steps.zip(account).map(|(steps, account)| {
            Evidence { request: &timeline.requests[index], gap, account, recorder_ns, bounds, excess_ns }.cause(steps)
        });
        found.push(Found {
            request: event.request,
            step: event.step(),
            ended_ns: gap.to_ns,
            latency_ns: gap.elapsed_ns(),
            cause,
            account,
            own_prefill_tokens: None,
            queue_ns: None,
            recorder_ns,
        });
    }
    found
}

/// What is known of one ITL.
struct Evidence<'a> {
    request: &'a RequestEvent,
    gap: Gap,
    account: Account,
    recorder_ns: Option<i64>,
    bounds: Bounds,
    excess_ns: i64,
}

impl Evidence<'_> {
    fn cause(&self, steps: &Steps<'_>) -> Cause {
        let Evidence { gap, account, .. } = self;
        let makes_half = |part_ns: i64| part_ns.saturating_mul(2) >= self.excess_ns;
        let waited = account.steps > 1;
        if steps.compiled(gap.from_ns, gap.to_ns) {
            Cause::Compilation
        } else if waited && self.request.preemptions > 0 && account.preemptions > 0 {
            Cause::Preemption
        } else if self.recorder_ns.is_some_and(makes_half) {
            Cause::RecorderStall
        } else if makes_half(account.between_ns + account.tap_ns) {
            Cause::EngineStall
        } else if makes_half(account.typical_ns.saturating_sub(self.bounds.p50_ns)) {
            match (account.prefill_tokens, waited) {
                (1.., _) => Cause::Prefill,
                (0, true) => Cause::NotScheduled,
                (0, false) => Cause::Batch,
            }
        } else if account.involuntary_switches > 0 {
            Cause::EngineStall
        } else if steps.throttled(gap.from_ns, gap.to_ns) {
            Cause::Throttling
        } else {
            Cause::Unexplained
        }
    }
}
