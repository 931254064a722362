//! Checks of the token events of the measured requests: their order in time, and their stamps.

use super::Finding;
use crate::measurement::timeline::{Phase, RequestEvent, Timeline, TokenEvent, known};

/// The event before, of one request.
#[derive(Clone, Copy, Default)]
struct LastSeen {
    received_ns: u64,
    emitted_ns: u64,
    step: u32,
}

#[derive(Default)]
struct Findings {
    stray: Finding,
    empty: Finding,
    before_submit: Finding,
    before_emitted: Finding,
    out_of_order: Finding,
    after_finish: Finding,
}

/// Every reason that the measured requests' token events give against their run.
pub(super) fn reasons(timeline: &Timeline) -> Vec<String> {
    let mut last_seen = vec![LastSeen::default(); timeline.requests.len()];
    let mut findings = Findings::default();
    let mut measured = 0;
    for (index, event) in timeline.tokens.iter().enumerate() {
        let Some(request) = timeline.requests.get(event.request as usize) else {
            findings.stray.add(|| format!("event {index} of request {}", event.request));
            continue;
        };
        if request.phase() == Phase::Measure {
            measured += 1;
            findings.check(index, event, request, &mut last_seen[event.request as usize]);
        }
    }
    findings.reasons(measured, timeline.tokens.len() as u64)
}

impl Findings {
    fn check(&mut self, index: usize, event: &TokenEvent, request: &RequestEvent, last: &mut LastSeen) {
        let example = || format!("event {index} of request {}", event.request);
        if event.count == 0 {
            self.empty.add(example);
        }
        let emitted_ns = known(event.emitted_ns);
        if emitted_ns.is_some_and(|emitted_ns| emitted_ns > event.received_ns) {
            self.before_emitted.add(example);
        }
        // An unknown submission is later than everything.
        if emitted_ns.unwrap_or(event.received_ns).min(event.received_ns) < request.submitted_ns {
            self.before_submit.add(example);
        }
        let finish_emitted_ns = known(request.finish_emitted_ns);
        // One that is emitted after it was received has a reason of its own.
        let is_emitted_after = emitted_ns.filter(|emitted_ns| *emitted_ns <= event.received_ns) > finish_emitted_ns
            && finish_emitted_ns.is_some();
        if request.finished() && (event.received_ns > request.finish_received_ns || is_emitted_after) {
            self.after_finish.add(example);
        }
        let now = LastSeen {
            received_ns: event.received_ns,
            emitted_ns: emitted_ns.unwrap_or(last.emitted_ns),
            step: event.step().unwrap_or(last.step),
        };
        if now.received_ns < last.received_ns || now.emitted_ns < last.emitted_ns || now.step < last.step {
            self.out_of_order.add(example);
        }
        *last = now;
    }

    fn reasons(self, measured: u64, all: u64) -> Vec<String> {
        let did = [
            (self.stray, all, "belong to no request of the run"),
            (self.empty, measured, "carry no token"),
            (self.before_submit, measured, "came before their request was submitted"),
            (self.before_emitted, measured, "were received before they were emitted"),
            (self.out_of_order, measured, "are out of order within their request"),
            (self.after_finish, measured, "came after the finish of their request"),
        ];
        did.into_iter().filter_map(|(finding, of, did)| finding.reason(of, "token events", did)).collect()
    }
}
