//! Whether runs enough were measured for an interval of the width that is wanted.

use super::drift::drift;
use super::log_interval::log_interval_at;
use super::{FEW_RUNS, Interval, student_t_quantile};

/// Upper quantile of the t distribution while runs are added until the interval is narrow enough. To stop at the first narrow one
/// makes intervals too narrow; those of 97.5 %, taken for 95 %, hold the truth as often as they say.
pub const SEQUENTIAL_95: f64 = 0.9875;

/// From as many degrees of freedom on the t quantile changes by less than 0.2 %.
const MANY_DEGREES: u32 = 1_000;

/// How well the runs so far know a quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Convergence {
    /// Runs so far.
    pub runs: usize,
    /// Geometric mean of the runs' values.
    pub estimate: f64,
    /// The interval that is reported, with [`SEQUENTIAL_95`].
    pub interval: Interval,
    /// Its half-width, relative to the estimate.
    pub half_width: f64,
    /// Standard deviation of the logarithms.
    pub sd_log: f64,
    /// Whether the values drift over the order of the runs: then no interval says anything.
    pub drifts: bool,
}

impl Convergence {
    /// Of the runs' values, in their order. `None` of fewer than five, or if one is not above 0.
    pub fn of(values: &[f64], half_tick: f64) -> Option<Convergence> {
        if values.len() < FEW_RUNS {
            return None;
        }
        let found = log_interval_at(values, half_tick, SEQUENTIAL_95)?;
        let interval = found.interval?;
        let half_width = interval.high? / found.estimate - 1.0;
        let drifts = drift(values).is_some_and(|found| found.flagged);
        let (runs, estimate, sd_log) = (values.len(), found.estimate, found.sd_log?);
        Some(Convergence { runs, estimate, interval, half_width, sd_log, drifts })
    }

    /// Whether the interval is as narrow as wanted, and can be believed.
    pub fn is_reached(&self, target: f64) -> bool {
        self.half_width <= target && !self.drifts
    }

    /// About how many runs would make it so narrow: the fewest whose interval, with the t quantile of as many runs and the
    /// spread of the runs so far, is as narrow as `target`.
    pub fn runs_needed(&self, target: f64) -> u64 {
        let runs_by = |t: f64| (t * self.sd_log / target.ln_1p()).powi(2).ceil().max(FEW_RUNS as f64) as u64;
        // No quantile of fewer degrees is smaller, so that fewer runs are never enough.
        let fewest = runs_by(student_t_quantile(SEQUENTIAL_95, MANY_DEGREES));
        let is_enough = |runs: &u64| *runs >= runs_by(student_t_quantile(SEQUENTIAL_95, *runs as u32 - 1));
        (fewest..=u64::from(MANY_DEGREES)).find(is_enough).unwrap_or(fewest)
    }
}
