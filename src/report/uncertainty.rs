//! By how much the instrument itself can have moved each number of a report.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::entry::MetricValues;
use crate::calibration::{ErrorBudget, MetricErrors};
use crate::metrics::{Metric, Percentile, Series, StampErrors, Statistic, Total};
use crate::plan::{Load, Point};
use crate::roofline::CpuPeaks;

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
    /// The bounds for the numbers `values` of a run or a point: what the known answers were off by at as many requests at
    /// once, or what its own stamps were late by, if that is more. A calibration cannot know what a run's machine did.
    pub(super) fn of(
        budget: Option<&ErrorBudget>,
        asked: &Point,
        values: &MetricValues,
        stamps: Option<&StampErrors>,
    ) -> InstrumentErrors {
        let calibrated = budget.and_then(|budget| budget.errors(in_flight(asked)));
        InstrumentErrors::from(calibrated.map(|errors| at_least(errors, stamps)), asked, values)
    }

    /// What the instrument typically moves each number by: of percentiles above the median, whose samples are few, the bound
    /// that these are.
    pub(super) fn typical(
        &self,
        budget: Option<&ErrorBudget>,
        asked: &Point,
        values: &MetricValues,
    ) -> InstrumentErrors {
        let typical = budget.and_then(|budget| budget.typical_errors(in_flight(asked)));
        let mut errors = InstrumentErrors::from(typical, asked, values);
        for ((metric, error), (_, bound)) in errors.0.iter_mut().zip(&self.0) {
            if matches!(metric, Metric::Of(_, Statistic::Percentile(Percentile::P90 | Percentile::P99))) {
                *error = *bound;
            }
        }
        errors
    }

    fn from(errors: Option<MetricErrors>, asked: &Point, values: &MetricValues) -> InstrumentErrors {
        let bound = |metric| errors.and_then(|errors| bound(metric, &errors, asked, values));
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
fn in_flight(asked: &Point) -> u32 {
    let Load::Closed { concurrency } = asked.load;
    concurrency.map_or(asked.num_prompts, |concurrency| concurrency.min(asked.num_prompts))
}

fn at_least(errors: MetricErrors, stamps: Option<&StampErrors>) -> MetricErrors {
    let Some(stamps) = stamps else { return errors };
    let or_late = |error_s: f64, late_ns: i64| error_s.max(late_ns as f64 / 1e9);
    MetricErrors {
        ttft_s: or_late(errors.ttft_s, stamps.ttft_ns),
        itl_s: stamps.itl_ns.map_or(errors.itl_s, |late_ns| or_late(errors.itl_s, late_ns)),
        e2e_s: or_late(errors.e2e_s, stamps.e2e_ns),
    }
}

fn bound(metric: Metric, errors: &MetricErrors, asked: &Point, values: &MetricValues) -> Option<f64> {
    match metric {
        Metric::Of(Series::Ttft | Series::TtftService, _) => Some(errors.ttft_s),
        Metric::Of(Series::E2e, _) => Some(errors.e2e_s),
        Metric::Of(Series::Itl | Series::ItlPerToken, _) => Some(errors.itl_s),
        Metric::Of(Series::TimePerOutputToken, _) => Some(per_token_s(errors, asked)),
        // Of a reciprocal 1/t the error is that of t, over the square of t.
        Metric::Of(Series::Tpot, _) => values.get(metric).map(|rate| rate * rate * per_token_s(errors, asked)),
        Metric::Of(Series::Queue | Series::Prefill | Series::Decode | Series::Step, _) => None,
        Metric::Total(Total::Elapsed) => Some(errors.e2e_s),
        Metric::Total(Total::PrefixHitRateExpected | Total::PrefixHitRateMeasured) => None,
        // The window ends with a stamp of ours.
        Metric::Total(_) => {
            let elapsed_s = values.get(Metric::Total(Total::Elapsed)).filter(|elapsed_s| *elapsed_s > 0.0)?;
            values.get(metric).map(|rate| rate * errors.e2e_s / elapsed_s)
        }
    }
}

/// Both ends of a request's tokens are stamps, and their distance is shared by the gaps between; of requests of different
/// lengths the shortest may have a single gap.
fn per_token_s(errors: &MetricErrors, asked: &Point) -> f64 {
    let gaps = if asked.has_one_output_len() { asked.output_len.saturating_sub(1).max(1) } else { 1 };
    errors.itl_s.max(errors.ttft_s).max(errors.e2e_s) / f64::from(gaps)
}
