//! Quantiles of Student's t distribution for whole degrees of freedom.

use std::f64::consts::{FRAC_PI_2, PI};

/// Halvings of the search interval: more than the bits of a double, so that it ends at neighbouring numbers.
const HALVINGS: u32 = 80;

/// The value that a t-distributed variable with `degrees` >= 1 degrees of freedom stays below with probability
/// `probability`, which lies in (0.5, 1). Good to about 1e-14, relative.
pub fn student_t_quantile(probability: f64, degrees: u32) -> f64 {
    // With t = sqrt(degrees) tan(angle) the distribution is a finite sum, and the angle lies in a bounded interval.
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if central_probability(middle, degrees) < 2.0 * probability - 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::from(degrees).sqrt() * (0.5 * (low + high)).tan()
}

/// P(|T| >= |t|) for `degrees` >= 1 degrees of freedom.
pub(super) fn two_sided_p(t: f64, degrees: u32) -> f64 {
    (1.0 - central_probability((t.abs() / f64::from(degrees).sqrt()).atan(), degrees)).max(0.0)
}

/// P(|T| <= sqrt(degrees) tan(angle)). Abramowitz and Stegun, 26.7.3 and 26.7.4.
fn central_probability(angle: f64, degrees: u32) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let odd = degrees % 2 == 1;
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = if degrees == 1 { 0.0 } else { term };
    // Each term takes the next pair of factors: k / (k + 1) cos^2, with k odd for even degrees and even for odd ones.
    let mut factor = if odd { 2 } else { 1 };
    while factor + 2 < degrees {
        term *= cos * cos * f64::from(factor) / f64::from(factor + 1);
        sum += term;
        factor += 2;
    }
    if odd { 2.0 / PI * (angle + sin * sum) } else { sin * sum }
}
