//! Checks of the times of each measured request: scheduled <= submitted <= finish, and no further apart than numbers reach.
//! Those of its tokens are checked by `events`.

use super::Finding;
use crate::analysis::metrics::is_measured;
use crate::measurement::timeline::{RequestEvent, Timeline, known};

/// Longest run, in nanoseconds: 106 days. An ITL per token is kept in picoseconds, as a signed number of 64 bits.
pub const LONGEST_RUN_NS: u64 = i64::MAX as u64 / 1_000;

#[derive(Default)]
struct Findings {
    before_scheduled: Finding,
    finished_early: Finding,
    before_emitted: Finding,
}

/// Every reason that the times of the measured requests give against their run.
pub(super) fn reasons(timeline: &Timeline) -> Vec<String> {
    let mut findings = Findings::default();
    let mut measured = 0;
    for (index, request) in timeline.requests.iter().enumerate().filter(|(_, request)| is_measured(request)) {
        measured += 1;
        findings.check(index, request);
    }
    let mut reasons = findings.reasons(measured);
    reasons.extend(too_long(timeline));
    reasons
}

impl Findings {
    fn check(&mut self, index: usize, request: &RequestEvent) {
        let submitted_ns = request.submitted_ns;
        if let Some(scheduled_ns) = known(request.scheduled_ns).filter(|scheduled_ns| *scheduled_ns > submitted_ns) {
            self.before_scheduled
                .add(|| format!("request {index}, scheduled at {scheduled_ns} ns and submitted at {submitted_ns} ns"));
        }
        let Some(received_ns) = known(request.finish_received_ns) else { return };
        let emitted_ns = known(request.finish_emitted_ns).unwrap_or(received_ns);
        if emitted_ns.min(received_ns) < submitted_ns {
            self.finished_early.add(|| format!("request {index}"));
        }
        if emitted_ns > received_ns {
            self.before_emitted.add(|| format!("request {index}"));
        }
    }

    fn reasons(self, measured: u64) -> Vec<String> {
        let did = [
            (self.before_scheduled, "were submitted before they were scheduled"),
            (self.finished_early, "finished before they were submitted"),
            (self.before_emitted, "have a finish that was received before it was emitted"),
        ];
        did.into_iter().filter_map(|(finding, did)| finding.reason(measured, "measured requests", did)).collect()
    }
}

/// A run whose first and last time are too far apart for the numbers of a report.
fn too_long(timeline: &Timeline) -> Option<String> {
    let requests = || timeline.requests.iter().filter(|request| is_measured(request));
    let begins = requests().map(|request| request.submitted_ns.min(request.scheduled_ns));
    let finishes = requests().filter_map(|request| known(request.finish_received_ns));
    let last_ns = timeline.tokens.iter().map(|event| event.received_ns).chain(finishes).max()?;
    let took_ns = last_ns.saturating_sub(begins.min()?);
    (took_ns > LONGEST_RUN_NS).then(|| {
        format!(
            "{took_ns} ns lie between its first schedule and its last event, and numbers are exact up to \
             {LONGEST_RUN_NS} ns (106 days)"
        )
    })
}
