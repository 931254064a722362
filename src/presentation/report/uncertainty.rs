//! By how much the instrument itself can have moved each number of a report.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::entry::MetricValues;
use crate::analysis::metrics::{Metric, RunMetrics, Series, Statistic, Total};
use crate::measurement::calibration::CpuPeaks;
use crate::measurement::calibration::{ErrorBudget, MetricErrors};
use crate::question::plan::{Load, Point};
use crate::statistics::Percentile;

/// The error bound of each metric, in the metric's unit, in the order of a report. `None` where the number does not pass
/// through the instrument's clock (the engine's own stamps and counts), or where nothing is known of the instrument.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstrumentErrors(Vec<(Metric, Option<f64>)>);

/// What a report knows of the instrument that its numbers come from.
#[derive(Clone, Copy, Debug)]
pub struct Ruler<'a> {
    /// The clock's resolution in seconds.
    pub tick_s: f64,
    /// The instrument's error, where it was measured.
    pub budget: Option<&'a ErrorBudget>,
    /// What the engine's cores can do, where it was probed.
    pub cpu_peaks: Option<&'a CpuPeaks>,
}

impl Ruler<'_> {
    /// Of a timeline that somebody gives: stamps in nanoseconds, and nothing else is known.
    pub const UNKNOWN: Ruler<'static> = Ruler { tick_s: 1e-9, budget: None, cpu_peaks: None };
}

impl InstrumentErrors {
    /// The bounds for the numbers `values` of these runs, one or all of a point: what the known answers were off by at as many
    /// requests at once, tap included, and what the runs' own late stamps moved the number by.
    pub(super) fn of(
        budget: Option<&ErrorBudget>,
        asked: &Point,
        values: &MetricValues,
        runs: &[&RunMetrics],
    ) -> InstrumentErrors {
        InstrumentErrors::from(budget.and_then(|budget| budget.errors(in_flight(asked))), asked, values, runs)
    }

    /// What the instrument typically moves each number by: of percentiles above the median, whose samples are few, the bound
    /// that these are.
    pub(super) fn typical(
        &self,
        budget: Option<&ErrorBudget>,
        asked: &Point,
        values: &MetricValues,
        runs: &[&RunMetrics],
    ) -> InstrumentErrors {
        let typical = budget.and_then(|budget| budget.typical_errors(in_flight(asked)));
        let mut errors = InstrumentErrors::from(typical, asked, values, runs);
        for ((metric, error), (_, bound)) in errors.0.iter_mut().zip(&self.0) {
            if matches!(metric, Metric::Of(_, Statistic::Percentile(Percentile::P90 | Percentile::P99))) {
                *error = *bound;
            }
        }
        errors
    }

    fn from(
        errors: Option<MetricErrors>,
        asked: &Point,
        values: &MetricValues,
        runs: &[&RunMetrics],
    ) -> InstrumentErrors {
        let bound = |metric| Some(known_answers(metric, &errors?, asked, values, runs)? + moved(metric, values, runs)?);
        InstrumentErrors(values.0.iter().map(|(metric, value)| (*metric, value.and_then(|_| bound(*metric)))).collect())
    }

    /// The bound of one metric.
    pub fn get(&self, wanted: Metric) -> Option<f64> {
        self.0.iter().find(|(metric, _)| *metric == wanted).and_then(|(_, bound)| *bound)
    }
}

impl Serialize for InstrumentErrors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (metric, bound) in &self.0 {
            map.serialize_entry(&metric.name(), bound)?;
        }
        map.end()
    }
}

/// Most requests at once.
pub(super) fn in_flight(asked: &Point) -> u32 {
    let Load::Closed { concurrency } = asked.load;
    concurrency.map_or(asked.num_prompts, |concurrency| concurrency.min(asked.num_prompts))
}

/// What the error of the known answers comes to for a metric of these runs.
fn known_answers(
    metric: Metric,
    errors: &MetricErrors,
    asked: &Point,
    values: &MetricValues,
    runs: &[&RunMetrics],
) -> Option<f64> {
    let value = values.get(metric)?;
    match metric {
        Metric::Of(Series::Queue | Series::Prefill | Series::Decode | Series::Step, _) => None,
        Metric::Of(series, Statistic::Average) => {
            over_runs(metric, value, runs, |_, of_run| known_answer(series, of_run, errors, asked))
        }
        Metric::Of(series, Statistic::Percentile(_)) => known_answer(series, value, errors, asked),
        // Each window ends with a stamp of ours.
        Metric::Total(Total::Elapsed) => Some(runs.len() as f64 * errors.ttft_s),
        Metric::Total(Total::PrefixHitRateExpected | Total::PrefixHitRateMeasured) => None,
        Metric::Total(_) => over_windows(value, runs, |_| Some(errors.ttft_s)),
    }
}

/// What it comes to for one value of a series.
fn known_answer(series: Series, value: f64, errors: &MetricErrors, asked: &Point) -> Option<f64> {
    match series {
        Series::Ttft | Series::TtftService | Series::E2e => Some(errors.ttft_s),
        Series::Itl | Series::ItlPerToken => Some(errors.itl_s),
        Series::TimePerOutputToken => Some(per_token_s(errors, asked)),
        Series::Tpot => rate_error(value, per_token_s(errors, asked), 1.0 / value),
        Series::Queue | Series::Prefill | Series::Decode | Series::Step => None,
    }
}

/// By how much a number would be another one by the times of emission. Windows add up; the largest movement of a run stands for
/// that of a percentile.
fn moved(metric: Metric, values: &MetricValues, runs: &[&RunMetrics]) -> Option<f64> {
    let elapsed = Metric::Total(Total::Elapsed);
    let of_runs = |metric: Metric| runs.iter().map(move |run| moved_in_run(metric, run)).collect::<Option<Vec<f64>>>();
    match metric {
        Metric::Total(Total::Elapsed) => Some(of_runs(elapsed)?.iter().sum()),
        Metric::Total(_) => over_windows(values.get(metric)?, runs, |run| moved_in_run(elapsed, run)),
        Metric::Of(_, Statistic::Average) => {
            over_runs(metric, values.get(metric)?, runs, |run, _| moved_in_run(metric, run))
        }
        Metric::Of(_, Statistic::Percentile(_)) => Some(of_runs(metric)?.into_iter().fold(0.0, f64::max)),
    }
}

/// Of a value over runs whose own values `error` moves: it is a median of geometric means, and moves by no larger part of itself
/// than one of them does. Where one of them is 0 it is the mean over all samples, and moves by no more than one of them does.
fn over_runs(
    metric: Metric,
    value: f64,
    runs: &[&RunMetrics],
    error: impl Fn(&RunMetrics, f64) -> Option<f64>,
) -> Option<f64> {
    let known: Vec<(&RunMetrics, f64)> =
        runs.iter().filter_map(|run| metric.value(run).map(|of_run| (*run, of_run))).collect();
    let is_relative = known.iter().all(|(_, of_run)| *of_run > 0.0);
    let scale = |of_run: f64| if is_relative { value / of_run } else { 1.0 };
    let errors = known.into_iter().map(|(run, of_run)| error(run, of_run).map(|error| error * scale(of_run)));
    Some(errors.collect::<Option<Vec<f64>>>()?.into_iter().fold(0.0, f64::max))
}

/// Of one run; 0 where nothing is known of emission. A rate of tokens that were all emitted at one instant has no value to
/// differ from, and so no bound.
fn moved_in_run(metric: Metric, run: &RunMetrics) -> Option<f64> {
    match (metric.value(run), run.as_emitted.as_deref()) {
        (Some(value), Some(emitted)) => metric.value(emitted).map(|as_emitted| (value - as_emitted).abs()),
        _ => Some(0.0),
    }
}

/// Of a rate over runs whose windows may be too long by `error_s`, as [`over_runs`].
fn over_windows(rate: f64, runs: &[&RunMetrics], error_s: impl Fn(&RunMetrics) -> Option<f64>) -> Option<f64> {
    let of_run = |run: &&RunMetrics| rate_error(rate, error_s(run)?, Metric::Total(Total::Elapsed).value(run)?);
    Some(runs.iter().map(of_run).collect::<Option<Vec<f64>>>()?.into_iter().fold(0.0, f64::max))
}

/// Of a rate over a time that may be too long by `error_s`; nothing where that may be all of it.
fn rate_error(rate: f64, error_s: f64, time_s: f64) -> Option<f64> {
    (error_s < time_s).then(|| rate * error_s / (time_s - error_s))
}

/// Both ends of a request's tokens are stamps, and their distance is shared by the gaps between; of requests of different
/// lengths the shortest may have a single gap.
fn per_token_s(errors: &MetricErrors, asked: &Point) -> f64 {
    let gaps = if asked.has_one_output_len() { asked.output_len.saturating_sub(1).max(1) } else { 1 };
    errors.itl_s.max(errors.ttft_s) / f64::from(gaps)
}
