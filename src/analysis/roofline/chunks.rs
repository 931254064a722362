//! Which tokens of which request each step computed: step records count them, token events say when prompts were done.

use std::collections::VecDeque;

use crate::measurement::timeline::{StepEvent, Timeline, known};

/// Successive tokens of one request, computed in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The request's tokens before them, which are in the cache.
    pub before: u64,
    /// How many they are.
    pub tokens: u64,
}

/// What one step computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepChunks {
    /// By request.
    pub chunks: Vec<Chunk>,
    /// Requests that got a token.
    pub sampled: u64,
}

/// What each step of a timeline computed, in the order of [`Timeline::steps`].
///
/// Prompts are computed first come, first served, in the order in which the engine scheduled them, and each gives its first token
/// in the step that ends it. So the counts of the step records leave one way to split them; where they leave none,
/// because the engine did something else, nothing is claimed.
///
/// # Errors
/// What the records do not explain.
pub fn chunks(timeline: &Timeline) -> Result<Vec<StepChunks>, String> {
    if timeline.steps.iter().any(|step| step.preemptions > 0) {
        return Err("requests were preempted, and their tokens computed again".to_owned());
    }
    let mut prompts = waiting_prompts(timeline)?;
    let mut events = events_by_step(timeline)?;
    let mut made = vec![0_u64; timeline.requests.len()];
    let mut steps = Vec::with_capacity(timeline.steps.len());
    for step in &timeline.steps {
        let sampled = events.get_mut(step.step as usize).map(std::mem::take).unwrap_or_default();
        let (first, later): (Vec<usize>, Vec<usize>) = sampled.iter().partition(|request| made[**request] == 0);
        let mut chunks = prefill(step, &mut prompts, first)?;
        if later.len() as u64 != u64::from(step.decode_requests) || step.decode_tokens != step.decode_requests {
            return Err(format!(
                "step {} computed {} tokens of {} requests in decode, and {} of them got a token",
                step.step,
                step.decode_tokens,
                step.decode_requests,
                later.len()
            ));
        }
        // Of a request with k tokens the last one is computed now, and the others and the prompt are in the cache.
        let prompt = |request: usize| u64::from(timeline.requests[request].prompt_tokens);
        chunks.extend(later.iter().map(|request| Chunk { before: prompt(*request) + made[*request] - 1, tokens: 1 }));
        sampled.iter().for_each(|request| made[*request] += 1);
        steps.push(StepChunks { chunks, sampled: sampled.len() as u64 });
    }
    Ok(steps)
}

/// A prompt that is not computed to its end.
struct Prompt {
    request: usize,
    before: u64,
    left: u64,
}

/// The prompts in the order in which the engine took them up.
fn waiting_prompts(timeline: &Timeline) -> Result<VecDeque<Prompt>, String> {
    let mut prompts = Vec::new();
    let caching = timeline.run.engine_facts.as_ref().is_none_or(|facts| facts.prefix_caching);
    for (request, event) in timeline.requests.iter().enumerate() {
        let Some(scheduled_ns) = known(event.engine_scheduled_ns) else { continue };
        let cached = match event.cached_tokens {
            u32::MAX if caching => {
                return Err(format!("the engine did not count the cached tokens of request {request}"));
            }
            u32::MAX => 0,
            cached => cached,
        };
        if event.prompt_tokens == u32::MAX || event.prompt_tokens <= cached {
            return Err(format!("request {request} has no whole count of its prompt tokens"));
        }
        let left = u64::from(event.prompt_tokens - cached);
        prompts.push((scheduled_ns, Prompt { request, before: cached.into(), left }));
    }
    prompts.sort_by_key(|(scheduled_ns, _)| *scheduled_ns); // stable: those of one step in the order of their staging
    Ok(prompts.into_iter().map(|(_, prompt)| prompt).collect())
}

/// The requests that got a token, by step.
fn events_by_step(timeline: &Timeline) -> Result<Vec<Vec<usize>>, String> {
    let mut events: Vec<Vec<usize>> = vec![Vec::new(); timeline.steps.len()];
    for event in &timeline.tokens {
        if event.count != 1 {
            return Err(format!("a token event has {} tokens", event.count));
        }
        let step = event.step().and_then(|step| events.get_mut(step as usize));
        step.ok_or("a token event belongs to no recorded step")?.push(event.request as usize);
    }
    Ok(events)
}

/// Splits a step's prompt tokens over the prompts that are next. `ended` are the requests whose first token it gave.
fn prefill(step: &StepEvent, prompts: &mut VecDeque<Prompt>, mut ended: Vec<usize>) -> Result<Vec<Chunk>, String> {
    let unexplained = || {
        let StepEvent { step, prefill_tokens, prefill_requests, .. } = step;
        format!(
            "the {prefill_tokens} prompt tokens of {prefill_requests} requests in step {step} do not go into the prompts in the order of their scheduling"
        )
    };
    let mut left = u64::from(step.prefill_tokens);
    let mut chunks = Vec::new();
    for _ in 0..step.prefill_requests {
        let prompt = prompts.front_mut().ok_or_else(unexplained)?;
        let tokens = prompt.left.min(left);
        if tokens == 0 {
            return Err(unexplained());
        }
        chunks.push(Chunk { before: prompt.before, tokens });
        (prompt.before, prompt.left, left) = (prompt.before + tokens, prompt.left - tokens, left - tokens);
        if prompt.left == 0 {
            let place = ended.iter().position(|request| *request == prompt.request).ok_or_else(unexplained)?;
            ended.swap_remove(place);
            prompts.pop_front();
        }
    }
    if left > 0 || !ended.is_empty() { Err(unexplained()) } else { Ok(chunks) }
}
