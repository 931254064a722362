//! The effect between two sets of runs that were not interleaved. Whatever changed between them is in it.

use super::{Interval, TWO_SIDED_95, student_t_quantile};

/// B / A with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnpairedEffect {
    /// Ratio of the geometric means.
    pub ratio: f64,
    /// Welch's 95 % interval; `None` where one side has a single run.
    pub interval: Option<Interval>,
}

/// Welch's interval on logarithms, with its degrees of freedom rounded down. `None` without values, or if one is not above 0.
pub fn unpaired_effect(a: &[f64], b: &[f64]) -> Option<UnpairedEffect> {
    let (of_a, of_b) = (moments(a)?, moments(b)?);
    let difference = of_b.mean - of_a.mean;
    let interval = of_a.error.zip(of_b.error).map(|(error_a, error_b)| {
        let (square_a, square_b) = (error_a.powi(2), error_b.powi(2));
        let parts = square_a.powi(2) / (a.len() - 1) as f64 + square_b.powi(2) / (b.len() - 1) as f64;
        let degrees = if parts > 0.0 { ((square_a + square_b).powi(2) / parts).max(1.0) as u32 } else { 1 };
        let half = student_t_quantile(TWO_SIDED_95, degrees) * (square_a + square_b).sqrt();
        Interval { low: Some((difference - half).exp()), high: Some((difference + half).exp()) }
    });
    Some(UnpairedEffect { ratio: difference.exp(), interval })
}

struct Moments {
    mean: f64,
    /// Standard error of the mean; `None` for a single value.
    error: Option<f64>,
}

fn moments(values: &[f64]) -> Option<Moments> {
    if values.is_empty() || !values.iter().all(|value| *value > 0.0 && value.is_finite()) {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|value| value.ln()).sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value.ln() - mean).powi(2)).sum();
    let error = (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt());
    Some(Moments { mean, error })
}
