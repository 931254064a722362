//! The state after a reset against a fresh engine: the same work on both, step by step.

use std::path::Path;

use serde::Serialize;

use super::RunEntry;
use crate::analysis::metrics::{Metric, Series, Statistic};
use crate::analysis::verdict::Status;
use crate::measurement::timeline::{RequestEvent, StepEvent, Timeline, store};
use crate::question::plan::Role;
use crate::statistics::Percentile;

/// An engine that was reset after all other runs of its epoch, held against a fresh one of the same settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResetCheckEntry {
    /// Index of the epoch whose engine was reset.
    pub epoch: u32,
    /// Label of the run on it.
    pub after_reset: String,
    /// Label of the run on the fresh engine.
    pub fresh_engine: String,
    /// What differs, by kind, each with the first example; empty if nothing does, null if it could not be compared.
    pub differences: Option<Vec<String>>,
    /// Why it could not be compared.
    pub note: Option<String>,
    /// Engine steps that were compared.
    pub steps: Option<u64>,
    /// Median duration of a step after the reset, in seconds.
    pub after_reset_p50_step_s: Option<f64>,
    /// The same on the fresh engine.
    pub fresh_engine_p50_step_s: Option<f64>,
    /// The first over the second.
    pub p50_step_ratio: Option<f64>,
}

/// What two engines in the same state do alike, whatever the time that it takes them.
struct Trace {
    requests: Vec<[u32; 6]>,
    /// Request, step and count of every token event.
    tokens: Vec<[u32; 3]>,
    batches: Vec<[u32; 9]>,
    kv_cache: Vec<[u32; 2]>,
}

/// The checks among `runs`, which are stored in `folder`.
///
/// # Errors
/// A stored run cannot be read.
pub(super) fn reset_checks(folder: &Path, runs: &[RunEntry]) -> Result<Vec<ResetCheckEntry>, store::StoreError> {
    let in_role = |role| runs.iter().filter(move |run| run.asked.role == role);
    let mut checks = Vec::new();
    for after in in_role(Role::AfterReset) {
        let Some(epoch) = after.identity.epoch else { continue };
        if let Some(fresh) = in_role(Role::FreshEngine).find(|fresh| fresh.identity.epoch == Some(epoch + 1)) {
            checks.push(check(folder, epoch, after, fresh)?);
        }
    }
    Ok(checks)
}

fn check(folder: &Path, epoch: u32, after: &RunEntry, fresh: &RunEntry) -> Result<ResetCheckEntry, store::StoreError> {
    let median = Metric::Of(Series::Step, Statistic::Percentile(Percentile::P50));
    let medians = [after, fresh].map(|run| run.values.get(median));
    let mut entry = ResetCheckEntry {
        epoch,
        after_reset: after.identity.point.clone(),
        fresh_engine: fresh.identity.point.clone(),
        differences: None,
        note: None,
        steps: None,
        after_reset_p50_step_s: medians[0],
        fresh_engine_p50_step_s: medians[1],
        p50_step_ratio: medians[0]
            .zip(medians[1])
            .filter(|(_, fresh)| *fresh > 0.0)
            .map(|(after, fresh)| after / fresh),
    };
    let is_whole = |run: &RunEntry| matches!(run.status, Status::Valid | Status::Invalid);
    if after.engine_load_s != Some(0.0) {
        entry.note = Some("the engine was loaded anew right before the run that was to follow a reset".to_owned());
    } else if !(is_whole(after) && is_whole(fresh)) {
        entry.note = Some("one of the two runs did not come to its end".to_owned());
    } else {
        let stored = |run: &RunEntry| store::read_run(&store::run_folder(folder, &run.identity.point, run.repeat));
        let (after, fresh) = (stored(after)?, stored(fresh)?);
        entry.steps = Some(after.steps.len() as u64);
        entry.differences = Some(differences(&after, &fresh));
    }
    Ok(entry)
}

impl ResetCheckEntry {
    /// Whether the engine was found in another state than a fresh one.
    pub(super) fn differs(&self) -> bool {
        self.differences.as_ref().is_some_and(|differences| !differences.is_empty())
    }

    /// A line for each difference.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> + '_ {
        self.differences.iter().flatten().map(|difference| {
            format!("after its reset the engine of epoch {} is not as a fresh one: {difference}", self.epoch)
        })
    }

    /// A line with the outcome, for a check that found no difference or could not be made.
    pub(super) fn footnote(&self) -> Option<String> {
        if self.differs() {
            return None;
        }
        if let Some(note) = &self.note {
            return Some(format!("reset of epoch {}: not compared with a fresh engine: {note}", self.epoch));
        }
        let ratio = self
            .p50_step_ratio
            .map_or_else(String::new, |ratio| format!("; its median step took {ratio:.3} times as long"));
        let steps = self.steps.unwrap_or(0);
        Some(format!("reset of epoch {}: {steps} steps just as on a fresh engine{ratio}", self.epoch))
    }
}

fn differences(after: &Timeline, fresh: &Timeline) -> Vec<String> {
    let blocks = |timeline: &Timeline| timeline.run.engine_facts.as_ref().and_then(|facts| facts.num_kv_blocks);
    let (after_blocks, fresh_blocks) = (blocks(after), blocks(fresh));
    let (after, fresh) = (Trace::of(after), Trace::of(fresh));
    let mut found = Vec::new();
    found.extend(first_difference("requests", &REQUEST_FIELDS, &after.requests, &fresh.requests));
    found.extend(first_difference("token events", &["request", "step", "tokens"], &after.tokens, &fresh.tokens));
    found.extend(first_difference("steps", &STEP_FIELDS, &after.batches, &fresh.batches));
    // Shares of caches of unequal sizes say nothing of each other.
    if after_blocks == fresh_blocks {
        let fields = ["step", "KV cache use in ppm"];
        found.extend(first_difference("steps", &fields, &after.kv_cache, &fresh.kv_cache));
    } else {
        let shown = |blocks: Option<u32>| blocks.map_or_else(|| "unknown".to_owned(), |blocks| blocks.to_string());
        found.push(format!(
            "blocks in the KV cache: {} after the reset, {} on the fresh engine",
            shown(after_blocks),
            shown(fresh_blocks)
        ));
    }
    found
}

const REQUEST_FIELDS: [&str; 6] =
    ["request", "prompt tokens", "output tokens", "cached tokens", "preemptions", "finish reason"];

const STEP_FIELDS: [&str; 9] = [
    "step",
    "requests in prefill",
    "prompt tokens",
    "requests in decode",
    "decode tokens",
    "running",
    "waiting",
    "preemptions",
    "token events",
];

impl Trace {
    fn of(timeline: &Timeline) -> Trace {
        let request = |(index, request): (usize, &RequestEvent)| {
            let RequestEvent { prompt_tokens, output_tokens, cached_tokens, preemptions, finish_reason, .. } = *request;
            [index as u32, prompt_tokens, output_tokens, cached_tokens, preemptions, u32::from(finish_reason)]
        };
        let batch = |step: &StepEvent| {
            let in_batch =
                [step.prefill_requests, step.prefill_tokens, step.decode_requests, step.decode_tokens, step.running];
            let [a, b, c, d, e] = in_batch;
            [step.step, a, b, c, d, e, step.waiting, step.preemptions, step.token_events]
        };
        let mut tokens: Vec<[u32; 3]> =
            timeline.tokens.iter().map(|event| [event.request, event.step, event.count]).collect();
        // Within a step the order is that of the engine's own batch, which any order serves.
        tokens.sort_unstable_by_key(|[request, step, _]| (*step, *request));
        Trace {
            requests: timeline.requests.iter().enumerate().map(request).collect(),
            tokens,
            batches: timeline.steps.iter().map(batch).collect(),
            kv_cache: timeline.steps.iter().map(|step| [step.step, step.kv_cache_usage_ppm]).collect(),
        }
    }
}

/// How many rows differ, and how the first of them does.
fn first_difference<const N: usize>(
    what: &str,
    fields: &[&str; N],
    after: &[[u32; N]],
    fresh: &[[u32; N]],
) -> Option<String> {
    if after.len() != fresh.len() {
        return Some(format!("{} {what} after the reset, {} on the fresh engine", after.len(), fresh.len()));
    }
    let unequal = || after.iter().zip(fresh).filter(|(after, fresh)| after != fresh);
    let (first_after, first_fresh) = unequal().next()?;
    let field = (0..N).find(|field| first_after[*field] != first_fresh[*field])?;
    Some(format!(
        "{} of {} {what} differ; in the first of them ({} {}) `{}` is {} after the reset and {} on the fresh engine",
        unequal().count(),
        after.len(),
        fields[0],
        first_after[0],
        fields[field],
        first_after[field],
        first_fresh[field]
    ))
}
