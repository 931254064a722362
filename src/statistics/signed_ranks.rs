//! Walsh averages, and the exact distribution of Wilcoxon's signed ranks.

use super::TWO_SIDED_95;

/// Means of all pairs of values, each value with itself included, ascending.
pub(super) struct WalshAverages(Vec<f64>);

impl WalshAverages {
    /// Of at least one value.
    pub(super) fn of(values: &[f64]) -> WalshAverages {
        // Where two numbers differ by rounding alone, which one is smaller decides nothing.
        let mut averages = Vec::with_capacity(values.len() * (values.len() + 1) / 2);
        for (index, one) in values.iter().enumerate() {
            averages.extend(values[index..].iter().map(|other| 0.5 * (one + other)));
        }
        averages.sort_unstable_by(f64::total_cmp);
        WalshAverages(averages)
    }

    /// Hodges and Lehmann's estimate of the center.
    pub(super) fn median(&self) -> f64 {
        let count = self.0.len();
        0.5 * (self.0[(count - 1) / 2] + self.0[count / 2])
    }

    /// The exact 95 % interval of the center, by the [`lower_tail`] of as many values: from seven on there is one.
    pub(super) fn interval(&self, lower_tail: &[f64]) -> (f64, f64) {
        // The largest c with P(W <= c) <= 2.5 %.
        let c = lower_tail.partition_point(|probability| *probability <= 1.0 - TWO_SIDED_95).saturating_sub(1);
        (self.0[c], self.0[self.0.len() - 1 - c])
    }

    /// Two-sided p-value of a center of 0.
    pub(super) fn p(&self, lower_tail: &[f64]) -> f64 {
        // W counts the averages on one side of 0; those at 0 speak for neither.
        let count = self.0.len();
        let at_most_0 = self.0.partition_point(|average| *average <= 0.0);
        let at_least_0 = count - self.0.partition_point(|average| *average < 0.0);
        (2.0 * lower_tail[at_most_0.min(at_least_0).min(count)]).min(1.0)
    }
}

/// P(W <= w) of the signed-rank statistic of `values` values around 0, by w from 0 to its largest value: each rank is in the
/// sum or not, with equal chances.
pub(super) fn lower_tail(values: usize) -> Vec<f64> {
    let largest = values * (values + 1) / 2;
    let mut probabilities = vec![0.0; largest + 1];
    probabilities[0] = 1.0;
    let mut reached = 0;
    for rank in 1..=values {
        reached += rank;
        for sum in (0..=reached).rev() {
            let with = if sum >= rank { probabilities[sum - rank] } else { 0.0 };
            probabilities[sum] = 0.5 * (probabilities[sum] + with);
        }
    }
    let mut sum = 0.0;
    probabilities.iter_mut().for_each(|probability| {
        sum += *probability;
        *probability = sum;
    });
    probabilities
}
