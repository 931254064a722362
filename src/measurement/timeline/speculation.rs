//! Speculative decoding: what the engine drafted, and the end of a request, where vLLM cuts what it has accepted.

use serde::{Deserialize, Serialize};

use super::{Phase, Timeline, known};

/// What an engine with speculative decoding drafted in the steps of the measured window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speculation {
    /// Drafts: one for each request in a step that had any.
    pub drafts: u64,
    /// Tokens in them.
    pub draft_tokens: u64,
    /// Tokens of them that the model accepted, those included that were cut.
    pub accepted_tokens: u64,
    /// Sampled tokens behind the last one of their request. vLLM drops them, and they count nowhere else.
    pub cut_tokens: u64,
}

/// The drafts of one step, in the engine's own count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u64, u64, u64)", into = "(u32, u64, u64, u64)")]
pub struct StepDrafts {
    /// The step within the run, from 0.
    pub step: u32,
    /// Drafts in it.
    pub drafts: u64,
    /// Tokens in them.
    pub draft_tokens: u64,
    /// Tokens of them that were accepted.
    pub accepted_tokens: u64,
}

impl From<(u32, u64, u64, u64)> for StepDrafts {
    fn from((step, drafts, draft_tokens, accepted_tokens): (u32, u64, u64, u64)) -> StepDrafts {
        StepDrafts { step, drafts, draft_tokens, accepted_tokens }
    }
}

impl From<StepDrafts> for (u32, u64, u64, u64) {
    fn from(of: StepDrafts) -> (u32, u64, u64, u64) {
        (of.step, of.drafts, of.draft_tokens, of.accepted_tokens)
    }
}

impl Timeline {
    /// Makes the timeline of an engine with speculative decoding one of the tokens that its requests were given, and keeps
    /// what was drafted in the measured window.
    ///
    /// The tap sees all tokens of a step. vLLM cuts those behind the end of a request before it hands them out, so the last
    /// event of a request loses what the engine does not count at the finish. An event that is too long in any other way stays
    /// as it is, and the verdict finds it.
    pub fn settle_speculation(&mut self, drafts: &[StepDrafts]) {
        let mut speculation = Speculation { cut_tokens: self.cut_at_finish(), ..Speculation::default() };
        let measured = self.requests.iter().filter(|request| request.phase() == Phase::Measure);
        let first_submit_ns = measured.filter_map(|request| known(request.submitted_ns)).min();
        let last_token_ns = self.tokens.last().map(|token| token.received_ns);
        if let Some((from_ns, to_ns)) = first_submit_ns.zip(last_token_ns) {
            for of_step in drafts {
                let found = self.steps.binary_search_by_key(&of_step.step, |step| step.step);
                if found.is_ok_and(|at| (from_ns..=to_ns).contains(&self.steps[at].started_ns)) {
                    speculation.drafts += of_step.drafts;
                    speculation.draft_tokens += of_step.draft_tokens;
                    speculation.accepted_tokens += of_step.accepted_tokens;
                }
            }
        }
        self.run.speculation = Some(speculation);
    }

    /// Cuts the last event of each request to the engine's own count; gives the tokens that measured requests lost.
    fn cut_at_finish(&mut self) -> u64 {
        let mut seen: Vec<(u64, usize)> = vec![(0, 0); self.requests.len()];
        for (index, event) in self.tokens.iter().enumerate() {
            if let Some((tokens, last)) = seen.get_mut(event.request as usize) {
                *tokens += u64::from(event.count);
                *last = index;
            }
        }
        let mut cut = 0;
        for (request, (tokens, last)) in self.requests.iter().zip(seen) {
            if !request.finished() || request.output_tokens == u32::MAX || tokens == 0 {
                continue;
            }
            let beyond = tokens.saturating_sub(u64::from(request.output_tokens));
            let event = &mut self.tokens[last];
            if let Some(left) = u64::from(event.count).checked_sub(beyond).filter(|left| *left > 0) {
                event.count = left as u32;
                cut += if request.phase() == Phase::Measure { beyond } else { 0 };
            }
        }
        cut
    }
}
