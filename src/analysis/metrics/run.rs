//! The metrics of one run, or of several runs of one point pooled.

use std::borrow::Cow;

use super::Fraction;
use super::samples::{Samples, Totals};
use crate::statistics::Sample;
use crate::statistics::{Distribution, Percentile};

/// Nanoseconds in a second.
const NS_PER_S: f64 = 1e9;

/// Metrics over a measured window, in the units of the timeline. `None`: no sample, or not measured.
#[derive(Clone, Debug, PartialEq)]
pub struct RunMetrics {
    /// received(first token) - scheduled, ns.
    pub ttft_ns: Option<Distribution<i64>>,
    /// received(first token) - submitted, ns.
    pub ttft_service_ns: Option<Distribution<i64>>,
    /// Gaps between token events of a request, ns.
    pub itl_ns: Option<Distribution<i64>>,
    /// The same, each divided by its tokens, picoseconds.
    pub itl_per_token_ps: Option<Distribution<i64>>,
    /// Time per output token after the first, ns.
    pub time_per_output_token_ns: Option<Distribution<Fraction>>,
    /// Its reciprocal: the percentiles are those of the times, ns per token, and `mean` is that of the rates, tokens/s.
    pub tpot: Option<Distribution<Fraction>>,
    /// received(last token) - scheduled, ns.
    pub e2e_ns: Option<Distribution<i64>>,
    /// In the engine's queue, ns.
    pub queue_ns: Option<Distribution<i64>>,
    /// From the engine's queue to the first token, ns.
    pub prefill_ns: Option<Distribution<i64>>,
    /// First token to last, by the engine's stamps, ns.
    pub decode_ns: Option<Distribution<i64>>,
    /// Duration of the steps, ns.
    pub step_ns: Option<Distribution<i64>>,
    /// submitted - scheduled, ns.
    pub issue_delay_ns: Option<Distribution<i64>>,
    /// received - emitted, ns.
    pub transport_ns: Option<Distribution<i64>>,
    /// received - the recorder's look before, ns: how much earlier a token event may have become visible.
    pub poll_gap_ns: Option<Distribution<u32>>,
    /// The engine's own stamps against ours.
    pub cross_check: CrossCheck,
    /// ITLs in which the instrument had a hiccup.
    pub itl_marks: ItlMarks,
    /// Tap and push together inside the engine, ns, over the steps that ran a model.
    pub tap_push_ns: Option<Distribution<i64>>,
    /// The same by batch size, ascending.
    pub tap_push_by_batch: Vec<(u32, Distribution<i64>)>,
    /// Sums.
    pub totals: Totals,
    /// Of a single run, the metrics of tokens by the times of emission: what a recorder that is never late would have found.
    /// `None` unless all token events have one.
    pub as_emitted: Option<Box<RunMetrics>>,
}

/// The engine's own stamps against ours, ns, over the requests that have them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CrossCheck {
    /// QUEUED - submitted.
    pub queued_ns: Option<Distribution<i64>>,
    /// received(first token) - the engine's stamp of it. Below 0 where the engine stamps after the tap.
    pub first_token_ns: Option<Distribution<i64>>,
    /// received(last token) - the engine's stamp of it.
    pub last_token_ns: Option<Distribution<i64>>,
}

/// ITLs in which the instrument had a hiccup: on the recorder's core, in the engine's loop, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItlMarks {
    /// How many; `None` if of one run neither kind of hiccup is known.
    pub marked: Option<u64>,
    /// All ITLs.
    pub count: u64,
    /// ITLs above the 99th percentile of all.
    pub above_p99: u64,
    /// Those of them that are marked; `None` as for `marked`.
    pub above_p99_marked: Option<u64>,
}

impl RunMetrics {
    /// Metrics of one run, or pooled over several.
    pub fn of(runs: &[Samples]) -> RunMetrics {
        let times = |pick: fn(&Samples) -> &[i64]| Distribution::of_sorted(&pooled(runs, pick));
        let (itl_ns, itl_marks) = itls(runs);
        // Of the instrument's own figures: a run without them leaves the pool without them.
        let transport_ns = pooled(runs, |samples| samples.transport_ns.as_slice());
        let is_stamped = runs.iter().all(|samples| !samples.transport_ns.is_empty());
        let per_token = pooled(runs, |samples| samples.time_per_output_token_ns.as_slice());
        let tap_push = pooled(runs, |samples| samples.tap_push.as_slice());
        RunMetrics {
            ttft_ns: times(|samples| &samples.ttft_ns),
            ttft_service_ns: times(|samples| &samples.ttft_service_ns),
            itl_ns,
            itl_per_token_ps: times(|samples| &samples.itl_per_token_ps),
            time_per_output_token_ns: Distribution::of_sorted(&per_token),
            tpot: rates(&pooled(runs, Samples::with_rate)),
            e2e_ns: times(|samples| &samples.e2e_ns),
            queue_ns: times(|samples| &samples.queue_ns),
            prefill_ns: times(|samples| &samples.prefill_ns),
            decode_ns: times(|samples| &samples.decode_ns),
            step_ns: times(|samples| &samples.step_ns),
            issue_delay_ns: times(|samples| &samples.issue_delay_ns),
            transport_ns: Distribution::of_sorted(&transport_ns).filter(|_| is_stamped),
            poll_gap_ns: Distribution::of_sorted(&pooled(runs, |samples| samples.poll_gap_ns.as_slice()))
                .filter(|_| runs.iter().all(|samples| !samples.poll_gap_ns.is_empty())),
            cross_check: CrossCheck {
                queued_ns: times(|samples| &samples.submitted_to_queued_ns),
                first_token_ns: times(|samples| &samples.first_token_after_engine_ns),
                last_token_ns: times(|samples| &samples.last_token_after_engine_ns),
            },
            itl_marks,
            tap_push_ns: of_unsorted(tap_push.iter().map(|(_, push_ns)| *push_ns).collect()),
            tap_push_by_batch: by_batch(&tap_push),
            totals: Totals::sum(runs.iter().map(|samples| &samples.totals)),
            as_emitted: if let [run] = runs { run.as_emitted.clone() } else { None },
        }
    }

    /// An amount per second of the measured window; `None` for a window without length.
    pub fn per_second(&self, amount: u64) -> Option<f64> {
        let elapsed_s = self.totals.elapsed_ns as f64 / NS_PER_S;
        (elapsed_s > 0.0).then(|| amount as f64 / elapsed_s)
    }
}

/// The ITLs of all runs, and which of them are marked.
fn itls(runs: &[Samples]) -> (Option<Distribution<i64>>, ItlMarks) {
    let all_ns = pooled(runs, |samples| samples.itl_ns.as_slice());
    let p99_ns = Percentile::P99.of_sorted(&all_ns).unwrap_or(i64::MAX);
    let within_p99 = |itl_ns: &[i64]| itl_ns.partition_point(|itl_ns| *itl_ns <= p99_ns);
    let known = runs.iter().all(|samples| samples.totals.hiccups_known());
    let marks = ItlMarks {
        marked: known.then(|| runs.iter().map(|samples| samples.itl_marks.count_from(0)).sum()),
        count: all_ns.len() as u64,
        above_p99: (all_ns.len() - within_p99(&all_ns)) as u64,
        above_p99_marked: known
            .then(|| runs.iter().map(|samples| samples.itl_marks.count_from(within_p99(&samples.itl_ns))).sum()),
    };
    (Distribution::of_sorted(&all_ns), marks)
}

/// All samples of several runs, ascending; those of a single run are not copied.
pub fn pooled<'a, T: Copy + Ord>(runs: &'a [Samples], pick: impl Fn(&'a Samples) -> &'a [T]) -> Cow<'a, [T]> {
    if let [run] = runs {
        return Cow::Borrowed(pick(run));
    }
    let mut all: Vec<T> = Vec::with_capacity(runs.iter().map(|run| pick(run).len()).sum());
    for run in runs {
        all.extend_from_slice(pick(run));
    }
    // A stable sort, because it finds and merges the runs' own ascending parts.
    all.sort();
    Cow::Owned(all)
}

/// Distribution of the reciprocals of times per token. The rate that p % of the requests reach or exceed is the
/// reciprocal of the p-th percentile of the times, so that only the mean has to be taken anew.
fn rates(times_ns: &[Fraction]) -> Option<Distribution<Fraction>> {
    let mut distribution = Distribution::of_sorted(times_ns)?;
    distribution.mean = times_ns.iter().map(|time| NS_PER_S / time.as_f64()).sum::<f64>() / times_ns.len() as f64;
    Some(distribution)
}

fn by_batch(tap_push: &[(u32, i64)]) -> Vec<(u32, Distribution<i64>)> {
    tap_push
        .chunk_by(|a, b| a.0 == b.0)
        .filter_map(|steps| Some((steps[0].0, of_unsorted(steps.iter().map(|(_, push_ns)| *push_ns).collect())?)))
        .collect()
}

fn of_unsorted<T: Sample>(mut samples: Vec<T>) -> Option<Distribution<T>> {
    samples.sort_unstable();
    Distribution::of_sorted(&samples)
}
