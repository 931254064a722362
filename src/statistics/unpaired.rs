//! The effect between two sets of runs that were not interleaved. Whatever changed between them is in it.

use super::normal::NORMAL_95;
use super::paired::SIGNED_RANK_FROM;
use super::selection::nth_of;
use super::{Interval, TWO_SIDED_95, student_t_quantile};

/// B / A with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnpairedEffect {
    /// Hodges and Lehmann's shift on logarithms: the median of B / A over all pairs of a run of A and a run of B.
    pub ratio: f64,
    /// Its 95 % interval, which holds the ratio; `None` where one side has a single run.
    pub interval: Option<Interval>,
}

/// Ratio and 95 % interval. With under seven runs on a side the interval is Welch's on logarithms, with its degrees of freedom
/// rounded down; from seven on that of Mann and Whitney's ranks. Both are of the kind that the values of single points have:
/// a run that takes ten times as long moves neither.
///
/// `None` without values, or if one is not above 0.
pub fn unpaired_effect(a: &[f64], b: &[f64]) -> Option<UnpairedEffect> {
    let (of_a, of_b) = (moments(a)?, moments(b)?);
    let shifts = Shifts::of(a, b);
    let shift = shifts.median();
    let interval = of_a.error.zip(of_b.error).map(|(error_a, error_b)| {
        if a.len().min(b.len()) >= SIGNED_RANK_FROM {
            return shifts.interval();
        }
        let (square_a, square_b) = (error_a.powi(2), error_b.powi(2));
        let parts = square_a.powi(2) / (a.len() - 1) as f64 + square_b.powi(2) / (b.len() - 1) as f64;
        let degrees = if parts > 0.0 { ((square_a + square_b).powi(2) / parts).max(1.0) as u32 } else { 1 };
        let half = student_t_quantile(TWO_SIDED_95, degrees) * (square_a + square_b).sqrt();
        let difference = of_b.mean - of_a.mean;
        (difference - half, difference + half)
    });
    let of_ends = |(low, high): (f64, f64)| Interval { low: Some(low.exp()), high: Some(high.exp()) };
    let ratio = shift.exp();
    Some(UnpairedEffect { ratio, interval: interval.map(|ends| of_ends(ends).with(ratio)) })
}

/// ln(B / A) of all pairs of a run of A and a run of B. They are counted and never kept.
struct Shifts {
    /// Logarithms, ascending.
    a: Vec<f64>,
    /// The same of B.
    b: Vec<f64>,
}

impl Shifts {
    fn of(a: &[f64], b: &[f64]) -> Shifts {
        let sorted = |values: &[f64]| {
            let mut logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
            logs.sort_unstable_by(f64::total_cmp);
            logs
        };
        Shifts { a: sorted(a), b: sorted(b) }
    }

    fn len(&self) -> usize {
        self.a.len() * self.b.len()
    }

    fn at_most(&self, shift: f64) -> usize {
        let mut end = 0;
        let of_run = |a: &f64| {
            while end < self.b.len() && self.b[end] - a <= shift {
                end += 1;
            }
            end
        };
        self.a.iter().map(of_run).sum()
    }

    /// The shift of this rank, from 0.
    fn nth(&self, rank: usize) -> f64 {
        let smallest = self.b[0] - self.a[self.a.len() - 1];
        let largest = self.b[self.b.len() - 1] - self.a[0];
        nth_of(rank, (smallest, largest), |shift| self.at_most(shift))
    }

    fn median(&self) -> f64 {
        0.5 * (self.nth((self.len() - 1) / 2) + self.nth(self.len() / 2))
    }

    /// By the normal distribution of Mann and Whitney's statistic, which from seven runs on a side gives the exact ranks or is one
    /// rank wider.
    fn interval(&self) -> (f64, f64) {
        let (pairs, runs) = (self.len() as f64, (self.a.len() + self.b.len()) as f64);
        let (mean, sd) = (0.5 * pairs, (pairs * (runs + 1.0) / 12.0).sqrt());
        let cut = (mean - NORMAL_95 * sd - 0.5).max(0.0) as usize;
        (self.nth(cut), self.nth(self.len() - 1 - cut))
    }
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
