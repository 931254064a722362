//! The slow tail of a run's or a point's latencies, and what it is made of.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Cause;
use super::steps::{Account, Steps};
use super::{itl, ttft};
use crate::analysis::metrics::{Samples, elapsed_ns};
use crate::measurement::timeline::Timeline;
use crate::statistics::Percentile;

/// Most latencies that are listed one by one.
const LISTED: usize = 10;

/// What the slowest ITLs and TTFTs come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Causes {
    /// Of the ITLs; null without any.
    pub itl: Option<Tail>,
    /// Of the TTFTs; null without any.
    pub ttft: Option<Tail>,
}

/// The latencies at or above the 99th percentile of their run that are above its median too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tail {
    /// How many.
    pub count: u64,
    /// All latencies.
    pub of: u64,
    /// What they come from, the most frequent cause first; null where steps were not recorded.
    pub causes: Option<Vec<CauseShare>>,
    /// The slowest of them: of the ITLs that one step ended the slowest one.
    pub slowest: Vec<Slow>,
}

/// The part of a tail that has one cause.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CauseShare {
    /// The cause.
    pub cause: Cause,
    /// Latencies of the tail that have it.
    pub count: u64,
    /// Their share of the tail.
    pub share: f64,
    /// What they have above the median of their run, together, seconds.
    pub excess_s: f64,
}

/// One slow latency. Null stands for what was not recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slow {
    /// Which of the point's repeats it is of.
    pub repeat: u32,
    /// The latency.
    pub latency_s: f64,
    /// What of it is above the median of its run.
    pub excess_s: f64,
    /// When it ended, counted from the first submit of the measured window.
    pub at_s: f64,
    /// The request, as `events.csv` numbers it.
    pub request: u32,
    /// The engine step that ended it.
    pub step: Option<u32>,
    /// Latencies of the tail that this step ended.
    pub from_this_step: u64,
    /// What made it slow.
    pub cause: Option<Cause>,
    /// Engine steps that ran in it.
    pub steps: Option<u32>,
    /// Prompt tokens that these steps computed, of whichever request.
    pub prefill_tokens: Option<u64>,
    /// Prompt tokens of the request itself that did not come from the cache; null for an ITL.
    pub own_prefill_tokens: Option<u32>,
    /// Most requests in decode in one of these steps.
    pub decode_requests: Option<u32>,
    /// Preemptions in them.
    pub preemptions: Option<u32>,
    /// Times that the kernel took the engine's thread off its core in them.
    pub involuntary_switches: Option<u32>,
    /// Time between the steps.
    pub between_steps_s: Option<f64>,
    /// Time in the engine's queue; null for an ITL.
    pub queue_s: Option<f64>,
    /// By how much more the last token took to the recorder than the one before; of a TTFT, what the first token took.
    pub recorder_s: Option<f64>,
}

/// A slow latency while its cause is looked for.
pub(super) struct Found {
    pub request: u32,
    pub step: Option<u32>,
    pub ended_ns: u64,
    pub latency_ns: i64,
    pub cause: Option<Cause>,
    pub account: Option<Account>,
    pub own_prefill_tokens: Option<u32>,
    pub queue_ns: Option<i64>,
    pub recorder_ns: Option<i64>,
}

/// From where on a latency belongs to the tail, and from where its excess counts.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub p50_ns: i64,
    pub p99_ns: i64,
}

impl Bounds {
    /// Of ascending latencies; `None` without any.
    pub(super) fn of(ascending_ns: &[i64]) -> Option<Bounds> {
        let (p50, p99) = (Percentile::P50.of_sorted(ascending_ns)?, Percentile::P99.of_sorted(ascending_ns)?);
        Some(Bounds { p50_ns: p50, p99_ns: p99 })
    }

    /// What a latency of the tail has above the median; `None` for one that is not of the tail.
    pub(super) fn excess_ns(self, latency_ns: i64) -> Option<i64> {
        (latency_ns >= self.p99_ns && latency_ns > self.p50_ns).then(|| latency_ns.saturating_sub(self.p50_ns))
    }
}

impl Causes {
    /// Of a run, whose samples are given.
    pub fn of(timeline: &Timeline, samples: &Samples) -> Causes {
        let Some(window) = samples.window else { return Causes::default() };
        let steps = Steps::of(timeline, window);
        let tail = |ascending_ns: &[i64], find: &dyn Fn(Bounds) -> Vec<Found>| {
            let bounds = Bounds::of(ascending_ns)?;
            let first_ns = window.first_submit_ns;
            Some(Tail::of(&find(bounds), bounds, timeline.run.repeat, first_ns, ascending_ns.len(), steps.is_some()))
        };
        Causes {
            itl: tail(&samples.itl_ns, &|bounds| itl::slow(timeline, steps.as_ref(), bounds)),
            ttft: tail(&samples.ttft_ns, &|bounds| ttft::slow(timeline, samples, steps.as_ref(), bounds)),
        }
    }

    /// Of a point: the tails of its runs together.
    pub fn of_runs<'a>(runs: impl Iterator<Item = &'a Causes> + Clone) -> Causes {
        let pick = |tail: fn(&Causes) -> Option<&Tail>| runs.clone().filter_map(tail).cloned().reduce(Tail::plus);
        Causes { itl: pick(|causes| causes.itl.as_ref()), ttft: pick(|causes| causes.ttft.as_ref()) }
    }
}

impl Tail {
    fn of(found: &[Found], bounds: Bounds, repeat: u32, first_ns: u64, of: usize, known: bool) -> Tail {
        let mut by_cause: BTreeMap<Cause, (u64, i64)> = BTreeMap::new();
        for (cause, latency_ns) in found.iter().filter_map(|slow| Some((slow.cause?, slow.latency_ns))) {
            let (count, excess_ns) = by_cause.entry(cause).or_default();
            *count += 1;
            *excess_ns = excess_ns.saturating_add(latency_ns.saturating_sub(bounds.p50_ns));
        }
        let excess = by_cause.into_iter().map(|(cause, (count, ns))| (cause, count, ns as f64 / 1e9));
        Tail {
            count: found.len() as u64,
            of: of as u64,
            causes: known.then(|| shares(excess)),
            slowest: slowest(found, bounds, repeat, first_ns),
        }
    }

    fn plus(self, other: Tail) -> Tail {
        let mut by_cause: BTreeMap<Cause, (u64, f64)> = BTreeMap::new();
        for part in self.causes.iter().chain(&other.causes).flatten() {
            let (count, excess_s) = by_cause.entry(part.cause).or_default();
            *count += part.count;
            *excess_s += part.excess_s;
        }
        let known = self.causes.is_some() && other.causes.is_some();
        let mut slowest = [self.slowest, other.slowest].concat();
        slowest.sort_by(|a, b| b.latency_s.total_cmp(&a.latency_s));
        slowest.truncate(LISTED);
        let sums = by_cause.into_iter().map(|(cause, (count, excess_s))| (cause, count, excess_s));
        Tail { count: self.count + other.count, of: self.of + other.of, causes: known.then(|| shares(sums)), slowest }
    }
}

/// The shares of causes with their counts and excesses, the most frequent one first.
fn shares(parts: impl Iterator<Item = (Cause, u64, f64)>) -> Vec<CauseShare> {
    let parts: Vec<(Cause, u64, f64)> = parts.collect();
    let all: u64 = parts.iter().map(|(_, count, _)| count).sum();
    let share = |(cause, count, excess_s)| CauseShare { cause, count, share: count as f64 / all as f64, excess_s };
    let mut shares: Vec<CauseShare> = parts.into_iter().map(share).collect();
    shares.sort_by(|a, b| b.count.cmp(&a.count).then(a.cause.cmp(&b.cause)));
    shares
}

/// The slowest latencies, one for each step that ended any. Those whose step is not known are all listed.
fn slowest(found: &[Found], bounds: Bounds, repeat: u32, first_ns: u64) -> Vec<Slow> {
    let mut of_step: BTreeMap<u32, u64> = BTreeMap::new();
    for step in found.iter().filter_map(|slow| slow.step) {
        *of_step.entry(step).or_default() += 1;
    }
    let mut ordered: Vec<&Found> = found.iter().collect();
    ordered.sort_by(|a, b| b.latency_ns.cmp(&a.latency_ns).then(a.ended_ns.cmp(&b.ended_ns)));
    let mut left = of_step.clone();
    ordered.retain(|slow| slow.step.is_none_or(|step| left.remove(&step).is_some()));
    let from_step = |slow: &Found| slow.step.and_then(|step| of_step.get(&step)).copied().unwrap_or(1);
    let listed = |slow: &&Found| slow.listed(bounds, repeat, first_ns, from_step(slow));
    ordered.iter().take(LISTED).map(listed).collect()
}

impl Found {
    fn listed(&self, bounds: Bounds, repeat: u32, first_ns: u64, from_this_step: u64) -> Slow {
        let seconds = |ns: i64| ns as f64 / 1e9;
        let account = self.account.as_ref();
        Slow {
            repeat,
            latency_s: seconds(self.latency_ns),
            excess_s: seconds(self.latency_ns.saturating_sub(bounds.p50_ns)),
            at_s: seconds(elapsed_ns(first_ns, self.ended_ns)),
            request: self.request,
            step: self.step,
            from_this_step,
            cause: self.cause,
            steps: account.map(|account| account.steps),
            prefill_tokens: account.map(|account| account.prefill_tokens),
            own_prefill_tokens: self.own_prefill_tokens,
            decode_requests: account.map(|account| account.decode_requests),
            preemptions: account.map(|account| account.preemptions),
            involuntary_switches: account.map(|account| account.involuntary_switches),
            between_steps_s: account.map(|account| seconds(account.between_ns)),
            queue_s: self.queue_ns.map(seconds),
            recorder_s: self.recorder_ns.map(seconds),
        }
    }
}
