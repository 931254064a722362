//! Checks of what each measured request was asked for against what it gave.

use super::Finding;
use crate::analysis::metrics::{RequestTokens, expected_cached_tokens};
use crate::measurement::timeline::{FinishReason, Phase, RequestEvent, Timeline, known};

/// A field of a [`RequestEvent`] that was not asked for, or not counted.
const UNKNOWN: u32 = u32::MAX;

/// Everything found wrong with the measured requests.
#[derive(Default)]
struct Findings {
    never_submitted: Finding,
    not_scheduled: Finding,
    no_token: Finding,
    not_finished: Finding,
    input_length: Finding,
    output_length: Finding,
    output_count: Finding,
    finish_reason: Finding,
    cached: Finding,
    missed: Finding,
    not_counted: Finding,
}

/// Every reason that the measured requests give against their run.
pub(super) fn reasons(timeline: &Timeline, tokens: &[RequestTokens]) -> Vec<String> {
    let caching = timeline.run.engine_facts.as_ref().map(|facts| (facts.prefix_caching, facts.prefix_block_size));
    let mut findings = Findings::default();
    let mut measured = 0;
    for (index, (request, tokens)) in timeline.requests.iter().zip(tokens).enumerate() {
        if request.phase() != Phase::Measure {
            continue;
        }
        measured += 1;
        if known(request.submitted_ns).is_none() {
            findings.never_submitted.add(|| format!("request {index}"));
            continue;
        }
        findings.check_delivery(index, request, tokens);
        if let (true, Some((caching, block_size))) = (request.finished(), caching) {
            findings.check_cache(index, request, caching, block_size);
        }
    }
    findings.reasons(measured)
}

impl Findings {
    fn check_delivery(&mut self, index: usize, request: &RequestEvent, tokens: &RequestTokens) {
        if known(request.scheduled_ns).is_none() {
            self.not_scheduled.add(|| format!("request {index}"));
        }
        if tokens.events == 0 {
            self.no_token.add(|| format!("request {index}"));
        }
        let asked = request.asked_output_tokens;
        if asked != UNKNOWN && tokens.tokens != u64::from(asked) {
            self.output_length.add(|| format!("request {index}, {} of {asked}", tokens.tokens));
        }
        if !request.finished() {
            self.not_finished.add(|| format!("request {index}"));
            return;
        }
        let (prompt, output) = (request.prompt_tokens, request.output_tokens);
        if prompt != UNKNOWN && prompt != request.asked_prompt_tokens {
            self.input_length.add(|| format!("request {index}, {prompt} of {}", request.asked_prompt_tokens));
        }
        if output != UNKNOWN && u64::from(output) != tokens.tokens {
            self.output_count.add(|| format!("request {index}, {output} counted and {} received", tokens.tokens));
        }
        // Without a length that was asked for, no reason to finish is the wrong one.
        let reason = FinishReason::from_u8(request.finish_reason).unwrap_or(FinishReason::Other);
        if asked != UNKNOWN && reason != FinishReason::Length {
            self.finish_reason.add(|| format!("request {index}, by `{}`", reason.as_str()));
        }
    }

    fn check_cache(&mut self, index: usize, request: &RequestEvent, caching: bool, block_size: Option<u32>) {
        if request.cached_tokens == UNKNOWN {
            if caching {
                self.not_counted.add(|| format!("request {index}"));
            }
            return;
        }
        let block_size = block_size.filter(|_| caching);
        let expected = expected_cached_tokens(request, block_size);
        if request.cached_tokens == 0 && expected > 0 {
            self.missed.add(|| format!("request {index}, 0 where {expected} are expected"));
        } else if request.cached_tokens.abs_diff(expected) > block_size.unwrap_or(0) {
            self.cached.add(|| format!("request {index}, {} where {expected} are expected", request.cached_tokens));
        }
    }

    fn reasons(self, measured: u64) -> Vec<String> {
        let did = [
            (self.never_submitted, "were never submitted"),
            (self.not_scheduled, "were submitted without a scheduled time"),
            (self.no_token, "gave no token"),
            (self.not_finished, "have no finish record"),
            (self.input_length, "had another input length than asked"),
            (self.output_length, "gave another output length than asked"),
            (self.output_count, "have other output tokens in their events than at their finish"),
            (self.finish_reason, "did not finish by their length"),
            (self.cached, "took a share of their prompt from the cache that differs from the design by over a block"),
            (self.missed, "took nothing from the cache, where their prefix was to come from it"),
            (self.not_counted, "have no count of cached tokens, so that their cache hits are unknown"),
        ];
        did.into_iter().filter_map(|(finding, did)| finding.reason(measured, "measured requests", did)).collect()
    }
}
