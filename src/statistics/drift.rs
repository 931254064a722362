//! Whether a point's runs wandered in the order in which they were run.

use super::FEW_RUNS;

/// One-sided 5 % point of the normal distribution.
const NORMAL_05: f64 = -1.645;

/// Von Neumann's ratio over the run order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Squared differences of neighbours over squared differences from the mean; about 2 without drift.
    pub ratio: f64,
    /// The same as a normal score.
    pub z: f64,
    /// Whether neighbouring runs resemble each other more than chance explains. It flags, it does not repair.
    pub flagged: bool,
}

/// Drift of the logarithms of one value per run, in the order of execution. `None` with too few runs to decide, for
/// values not above 0, and for runs that agree entirely.
pub fn drift(values: &[f64]) -> Option<Drift> {
    if values.len() < FEW_RUNS || !values.iter().all(|value| *value > 0.0 && value.is_finite()) {
        return None;
    }
    let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
    let runs = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / runs;
    let between: f64 = logs.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum();
    let around: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
    if between == 0.0 || around == 0.0 {
        return None;
    }
    let ratio = between / around;
    let z = (ratio - 2.0) / (4.0 * (runs - 2.0) / (runs * runs - 1.0)).sqrt();
    Some(Drift { ratio, z, flagged: z < NORMAL_05 })
}
