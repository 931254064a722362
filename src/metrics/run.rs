//! The metrics of one run, or of several runs of one point pooled.

use std::borrow::Cow;

use super::samples::{Samples, Totals};
use super::{Distribution, Fraction, Sample};

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
    /// Tap and push together inside the engine, ns, over the steps that ran a model.
    pub tap_push_ns: Option<Distribution<i64>>,
    /// The same by batch size, ascending.
    pub tap_push_by_batch: Vec<(u32, Distribution<i64>)>,
    /// Sums.
    pub totals: Totals,
}

impl RunMetrics {
    /// Metrics of one run, or pooled over several.
    pub fn of(runs: &[Samples]) -> RunMetrics {
        let times = |pick: fn(&Samples) -> &[i64]| Distribution::of_sorted(&pooled(runs, pick));
        let per_token = pooled(runs, |samples| samples.time_per_output_token_ns.as_slice());
        let tap_push = pooled(runs, |samples| samples.tap_push.as_slice());
        RunMetrics {
            ttft_ns: times(|samples| &samples.ttft_ns),
            ttft_service_ns: times(|samples| &samples.ttft_service_ns),
            itl_ns: times(|samples| &samples.itl_ns),
            itl_per_token_ps: times(|samples| &samples.itl_per_token_ps),
            time_per_output_token_ns: Distribution::of_sorted(&per_token),
            tpot: rates(&pooled(runs, Samples::with_rate)),
            e2e_ns: times(|samples| &samples.e2e_ns),
            queue_ns: times(|samples| &samples.queue_ns),
            prefill_ns: times(|samples| &samples.prefill_ns),
            decode_ns: times(|samples| &samples.decode_ns),
            step_ns: times(|samples| &samples.step_ns),
            issue_delay_ns: times(|samples| &samples.issue_delay_ns),
            // Transport is of the instrument: a run without it leaves the pool without it.
            transport_ns: times(|samples| &samples.transport_ns)
                .filter(|_| runs.iter().all(|samples| !samples.transport_ns.is_empty())),
            tap_push_ns: of_unsorted(tap_push.iter().map(|(_, push_ns)| *push_ns).collect()),
            tap_push_by_batch: by_batch(&tap_push),
            totals: Totals::sum(runs.iter().map(|samples| &samples.totals)),
        }
    }

    /// An amount per second of the measured window; `None` for a window without length.
    pub fn per_second(&self, amount: u64) -> Option<f64> {
        let elapsed_s = self.totals.elapsed_ns as f64 / NS_PER_S;
        (elapsed_s > 0.0).then(|| amount as f64 / elapsed_s)
    }
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
