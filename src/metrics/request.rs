//! What the token events say about each request.

use super::Fraction;
use crate::timeline::{Phase, RequestEvent, Timeline, known};

/// The token events of one request, in the order in which they were recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTokens {
    /// When the first event was received; 0 without events.
    pub first_received_ns: u64,
    /// When the last event was received; 0 without events.
    pub last_received_ns: u64,
    /// Tokens over all events.
    pub tokens: u64,
    /// Number of events.
    pub events: u64,
}

impl RequestTokens {
    /// The token events of every request of a timeline, by the request's index.
    pub fn of(timeline: &Timeline) -> Vec<RequestTokens> {
        let mut all = vec![RequestTokens::default(); timeline.requests.len()];
        for event in &timeline.tokens {
            if let Some(request) = all.get_mut(event.request as usize) {
                request.add(event.received_ns, event.count);
            }
        }
        all
    }

    /// Adds the next event, and returns the time since the one before it, in nanoseconds.
    pub fn add(&mut self, received_ns: u64, count: u32) -> Option<i64> {
        let gap_ns = (self.events > 0).then(|| elapsed_ns(self.last_received_ns, received_ns));
        if self.events == 0 {
            self.first_received_ns = received_ns;
        }
        self.last_received_ns = received_ns;
        self.tokens += u64::from(count);
        self.events += 1;
        gap_ns
    }

    /// From the first event to the last, divided by the tokens after the first, in nanoseconds; `None` below two tokens.
    pub fn time_per_output_token_ns(&self) -> Option<Fraction> {
        let decode_ns = elapsed_ns(self.first_received_ns, self.last_received_ns);
        Fraction::new(decode_ns, self.tokens.saturating_sub(1))
    }
}

/// Whether a request counts in the metrics: it belongs to the measured window and was submitted.
pub fn is_measured(request: &RequestEvent) -> bool {
    request.phase() == Phase::Measure && known(request.submitted_ns).is_some()
}

/// When the arrival process wanted a submitted request. One without a time of its own, which the verdict reports, counts
/// from its submission.
pub fn scheduled_ns(request: &RequestEvent) -> u64 {
    known(request.scheduled_ns).unwrap_or(request.submitted_ns)
}

/// Nanoseconds from one stamp to another. Negative when they are out of order: a broken timeline's numbers have to show it.
pub fn elapsed_ns(from_ns: u64, to_ns: u64) -> i64 {
    to_ns.wrapping_sub(from_ns) as i64
}

/// Nanoseconds between two stamps; `None` if one is not known.
pub fn known_elapsed_ns(from_ns: u64, to_ns: u64) -> Option<i64> {
    Some(elapsed_ns(known(from_ns)?, known(to_ns)?))
}

/// Prompt tokens of a request that come from the cache by design: its shared prefix in whole blocks. The last prompt
/// token is always computed, so it never counts. 0 when prefix caching is off (`block_size` is `None`).
pub fn expected_cached_tokens(request: &RequestEvent, block_size: Option<u32>) -> u32 {
    let cacheable = request.asked_prefix_tokens.min(request.asked_prompt_tokens.saturating_sub(1));
    match block_size {
        Some(block) if block > 0 => cacheable / block * block,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cached_share_is_whole_blocks_and_leaves_the_last_prompt_token() {
        let request = |prompt, prefix| RequestEvent::planned(Phase::Measure, prompt, 1, prefix);
        assert_eq!(expected_cached_tokens(&request(8192, 7900), Some(16)), 7888);
        assert_eq!(expected_cached_tokens(&request(32, 32), Some(16)), 16);
        assert_eq!(expected_cached_tokens(&request(33, 32), Some(16)), 32);
        assert_eq!(expected_cached_tokens(&request(33, 15), Some(16)), 0);
        assert_eq!(expected_cached_tokens(&request(33, 32), None), 0);
    }
}
