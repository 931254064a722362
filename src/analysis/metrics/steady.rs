//! The part of a run that should be steady: between the ramp-up and the ramp-down of a closed load.

use super::RequestTokens;
use super::request::{elapsed_ns, is_measured, scheduled_ns};
use crate::measurement::timeline::Timeline;
use crate::question::plan::Load;

/// E2E latencies, in the order of submission, of the measured requests that were submitted and answered while all slots of
/// a closed load were busy: without the first ones, one turnover more, and the last ones. Empty for other loads, where every
/// step has another batch, and for requests that are asked for different lengths.
pub(super) fn steady_e2e_ns(timeline: &Timeline, requests: &[RequestTokens]) -> Vec<i64> {
    let point = &timeline.run.point;
    let Load::Closed { concurrency: Some(slots) } = point.load else { return Vec::new() };
    if !point.has_one_output_len() {
        return Vec::new();
    }
    let measured = timeline.requests.iter().zip(requests).filter(|(request, _)| is_measured(request));
    let answered = measured.filter(|(_, tokens)| tokens.events > 0);
    let all: Vec<i64> =
        answered.map(|(request, tokens)| elapsed_ns(scheduled_ns(request), tokens.last_received_ns)).collect();
    let (ramp_up, ramp_down) = (2 * slots as usize, slots as usize);
    all.get(ramp_up..all.len().saturating_sub(ramp_down)).unwrap_or_default().to_vec()
}
