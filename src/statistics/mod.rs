//! Statistics over the runs of a point. The run is the statistical unit: steps within one are too alike to count as
//! independent, and intervals over single samples miss the truth far more often than they claim.

mod convergence;
mod distribution;
mod drift;
mod log_interval;
mod multiple;
mod normal;
mod over_runs;
mod paired;
mod percentile;
mod power;
mod sample;
mod selection;
mod signed_ranks;
mod student_t;
mod trimmed_mean;
mod unpaired;
mod warm_cut;
mod woodruff;

pub use convergence::{Convergence, SEQUENTIAL_95};
pub use distribution::Distribution;
pub use drift::{Drift, drift};
pub use log_interval::{LogInterval, log_interval};
pub use multiple::{benjamini_hochberg, holm};
pub use over_runs::{OverRuns, over_runs};
pub use paired::{FEWEST_PAIRS, LEVEL, PairedEffect, PairedMethod, can_hold, paired_effect, pairs_against};
pub use percentile::Percentile;
pub use power::{PLANNED_POWER, Spread, found_from};
pub use sample::Sample;
pub use student_t::student_t_quantile;
pub use trimmed_mean::{TrimmedMean, trimmed_mean};
pub use unpaired::{UnpairedEffect, unpaired_effect};
pub use warm_cut::{WarmCut, warm_cut};
pub use woodruff::{Woodruff, WoodruffProblem, fewest_samples, sorted_quantile, woodruff};

/// Upper quantile of the t distribution for a two-sided 95 % interval.
pub const TWO_SIDED_95: f64 = 0.975;

/// Fewer runs than this make an interval that is shown, marked, and decides nothing.
pub const FEW_RUNS: usize = 5;

/// An interval. An end that the samples leave open is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Interval {
    /// The interval, widened where it leaves `value` out.
    #[must_use]
    pub fn with(self, value: f64) -> Interval {
        Interval { low: self.low.map(|low| low.min(value)), high: self.high.map(|high| high.max(value)) }
    }
}

#[cfg(test)]
mod tests;
