//! The interval of a percentile over runs: Woodruff's, with runs as clusters.

use super::Sample;
use super::{Interval, TWO_SIDED_95, student_t_quantile};

/// 97.5 % point of the normal distribution.
const NORMAL_975: f64 = 1.959_963_984_540_054;

/// A percentile's interval and what it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Woodruff {
    /// Type-7 quantile of all samples. Reports show the nearest rank instead.
    pub estimate: f64,
    /// Samples at or below the estimate, by run.
    pub counts: Vec<u64>,
    /// Standard error of the share of samples at or below the estimate.
    pub standard_error: f64,
    /// Half-width of the interval, as a share of the samples.
    pub half_width: f64,
    /// 95 % interval, in the samples' unit.
    pub interval: Interval,
}

/// Why a percentile has no interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WoodruffProblem {
    /// Fewer than two runs.
    OneRun,
    /// Fewer pooled samples than [`fewest_samples`].
    TooFewSamples {
        /// How many there are.
        samples: u64,
        /// How many it takes.
        needed: u64,
    },
}

/// The fewest samples whose largest exceeds the q-quantile with a probability of 95 %: 1 - q^n >= 0.95.
pub fn fewest_samples(q: f64) -> u64 {
    (0.05_f64.ln() / q.ln()).ceil() as u64
}

/// Type-7 quantile (linear between order statistics) of ascending samples, of which there is at least one.
pub fn sorted_quantile<T: Sample>(ascending: &[T], q: f64) -> f64 {
    let position = (ascending.len() - 1) as f64 * q.clamp(0.0, 1.0);
    let below = ascending[position.floor() as usize].as_f64();
    let above = ascending[position.ceil() as usize].as_f64();
    below + (position - position.floor()) * (above - below)
}

/// 95 % interval of the q-quantile. `runs` holds each run's samples and `pooled` all of them, ascending.
///
/// # Errors
/// [`WoodruffProblem`]. Runs without samples count as runs.
pub fn woodruff<T: Sample>(runs: &[&[T]], pooled: &[T], q: f64) -> Result<Woodruff, WoodruffProblem> {
    let (samples, needed) = (pooled.len() as u64, fewest_samples(q));
    if samples < needed {
        return Err(WoodruffProblem::TooFewSamples { samples, needed });
    }
    if runs.len() < 2 {
        return Err(WoodruffProblem::OneRun);
    }
    let n = samples as f64;
    let estimate = sorted_quantile(pooled, q);
    let counts: Vec<u64> =
        runs.iter().map(|run| run.partition_point(|sample| sample.as_f64() <= estimate) as u64).collect();
    let share = counts.iter().sum::<u64>() as f64 / n;
    let deviations = counts.iter().zip(runs).map(|(count, run)| (*count as f64 - share * run.len() as f64).powi(2));
    let clusters = runs.len() as f64;
    let standard_error = (clusters / (clusters - 1.0) * deviations.sum::<f64>()).sqrt() / n;
    let half_width = (student_t_quantile(TWO_SIDED_95, runs.len() as u32 - 1) * standard_error)
        .max(NORMAL_975 * (q * (1.0 - q) / n).sqrt());
    // An end is open where not a single sample lies beyond it.
    let end = |quantile: f64, share_beyond: f64| (share_beyond * n >= 1.0).then(|| sorted_quantile(pooled, quantile));
    let interval =
        Interval { low: end(q - half_width, q - half_width), high: end(q + half_width, 1.0 - q - half_width) };
    Ok(Woodruff { estimate, counts, standard_error, half_width, interval })
}
