//! What the token events say about each request.

use super::Fraction;
use crate::measurement::timeline::{EngineFacts, Phase, RequestEvent, Timeline, TokenEvent, known};

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
    /// Step of the first event; `u32::MAX` if it is not known, 0 without events.
    pub first_step: u32,
    /// Step of the last event; `u32::MAX` if it is not known, 0 without events.
    pub last_step: u32,
}

/// From one token event of a request to its next: what an ITL measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the event before was received.
    pub from_ns: u64,
    /// When the next one was received.
    pub to_ns: u64,
    /// Step of the event before; `u32::MAX` if it is not known.
    pub from_step: u32,
    /// Step of the next one; `u32::MAX` if it is not known.
    pub to_step: u32,
}

impl Gap {
    /// The ITL, in nanoseconds; negative in a broken timeline.
    pub fn elapsed_ns(&self) -> i64 {
        elapsed_ns(self.from_ns, self.to_ns)
    }
}

impl RequestTokens {
    /// The token events of every request of a timeline, by the request's index.
    pub fn of(timeline: &Timeline) -> Vec<RequestTokens> {
        let mut all = vec![RequestTokens::default(); timeline.requests.len()];
        for event in &timeline.tokens {
            if let Some(request) = all.get_mut(event.request as usize) {
                request.add(event);
            }
        }
        all
    }

    /// Adds the next event, and returns what lies between it and the one before.
    pub fn add(&mut self, event: &TokenEvent) -> Option<Gap> {
        let gap = (self.events > 0).then_some(Gap {
            from_ns: self.last_received_ns,
            to_ns: event.received_ns,
            from_step: self.last_step,
            to_step: event.step,
        });
        if self.events == 0 {
            (self.first_received_ns, self.first_step) = (event.received_ns, event.step);
        }
        (self.last_received_ns, self.last_step) = (event.received_ns, event.step);
        self.tokens += u64::from(event.count);
        self.events += 1;
        gap
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

/// Tokens in a block of the prefix cache that an engine uses: `Some(None)` for one whose prefix caching is off, and `None`
/// for one that caches and did not say.
pub fn block_size_in_use(facts: &EngineFacts) -> Option<Option<u32>> {
    match (facts.prefix_caching, facts.prefix_block_size) {
        (true, None) => None,
        (true, block_size) => Some(block_size),
        (false, _) => Some(None),
    }
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
