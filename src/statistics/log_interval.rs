//! The interval of a mean or a rate over runs.

use super::{Interval, TWO_SIDED_95, student_t_quantile};

/// Estimate and interval of a positive quantity from one value per run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogInterval {
    /// Geometric mean of the runs' values.
    pub estimate: f64,
    /// 95 % interval; `None` for a single run.
    pub interval: Option<Interval>,
    /// Standard deviation of the logarithms; `None` for a single run.
    pub sd_log: Option<f64>,
}

/// Log-t interval over runs, 95 %: exp(mean(y) +- t s / sqrt(R)) of y = ln(value). It covers the mean of run-to-run
/// varying latencies where a bootstrap over samples does not (Kalibera & Jones 2013).
///
/// `half_tick` is half of the smallest difference that the clock can show, in the values' unit: runs that agree
/// entirely are known no better. `None` without values, or if one is not above 0.
pub fn log_interval(values: &[f64], half_tick: f64) -> Option<LogInterval> {
    log_interval_at(values, half_tick, TWO_SIDED_95)
}

/// The same with another upper quantile of the t distribution.
pub(super) fn log_interval_at(values: &[f64], half_tick: f64, quantile: f64) -> Option<LogInterval> {
    if values.is_empty() || !values.iter().all(|value| *value > 0.0 && value.is_finite()) {
        return None;
    }
    let runs = values.len() as f64;
    let mean = values.iter().map(|value| value.ln()).sum::<f64>() / runs;
    let estimate = mean.exp();
    if values.len() == 1 {
        return Some(LogInterval { estimate, interval: None, sd_log: None });
    }
    let sd_log = if values.iter().all(|value| *value == values[0]) {
        0.0
    } else {
        (values.iter().map(|value| (value.ln() - mean).powi(2)).sum::<f64>() / (runs - 1.0)).sqrt()
    };
    let (low, high) = if sd_log == 0.0 {
        (values[0] - half_tick, values[0] + half_tick)
    } else {
        let half = student_t_quantile(quantile, values.len() as u32 - 1) * sd_log / runs.sqrt();
        ((mean - half).exp(), (mean + half).exp())
    };
    Some(LogInterval { estimate, interval: Some(Interval { low: Some(low), high: Some(high) }), sd_log: Some(sd_log) })
}
