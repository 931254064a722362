//! Walsh averages, and the distribution of Wilcoxon's signed ranks.

use std::sync::OnceLock;

use super::TWO_SIDED_95;
use super::normal::{NORMAL_95, normal_lower_tail};
use super::selection::nth_of;

/// Up to so many values the distribution of the signed ranks is exact. Above, the normal one gives the same ranks to within two.
const EXACT_UP_TO: usize = 100;

/// Means of all pairs of values, each value with itself included. They are counted and never kept: R values have R (R + 1) / 2.
pub(super) struct WalshAverages {
    /// Ascending.
    values: Vec<f64>,
    /// Of the signed ranks of as many values.
    distribution: SignedRanks,
}

impl WalshAverages {
    /// Of at least one value.
    pub(super) fn of(values: &[f64]) -> WalshAverages {
        let mut values = values.to_vec();
        // Where two numbers differ by rounding alone, which one is smaller decides nothing.
        values.sort_unstable_by(f64::total_cmp);
        let distribution = SignedRanks::of(values.len());
        WalshAverages { values, distribution }
    }

    fn len(&self) -> usize {
        self.values.len() * (self.values.len() + 1) / 2
    }

    /// How many averages `is_low` holds for, which holds for every average below one that it holds for.
    fn count(&self, is_low: impl Fn(f64) -> bool) -> usize {
        let (mut end, mut count) = (self.values.len(), 0);
        for (index, one) in self.values.iter().enumerate() {
            while end > index && !is_low(0.5 * (one + self.values[end - 1])) {
                end -= 1;
            }
            if end <= index {
                break;
            }
            count += end - index;
        }
        count
    }

    /// The average of this rank, from 0.
    fn nth(&self, rank: usize) -> f64 {
        let ends = (self.values[0], self.values[self.values.len() - 1]);
        nth_of(rank, ends, |value| self.count(|average| average <= value))
    }

    /// Hodges and Lehmann's estimate of the center.
    pub(super) fn median(&self) -> f64 {
        let count = self.len();
        0.5 * (self.nth((count - 1) / 2) + self.nth(count / 2))
    }

    /// The 95 % interval of the center: from seven values on there is one.
    pub(super) fn interval(&self) -> (f64, f64) {
        let cut = self.distribution.cut();
        (self.nth(cut), self.nth(self.len() - 1 - cut))
    }

    /// Two-sided p-value of a center of 0.
    pub(super) fn p(&self) -> f64 {
        // W counts the averages on one side of 0; those at 0 speak for neither.
        let at_most_0 = self.count(|average| average <= 0.0);
        let at_least_0 = self.len() - self.count(|average| average < 0.0);
        (2.0 * self.distribution.at_most(at_most_0.min(at_least_0))).min(1.0)
    }
}

/// The distribution of the signed-rank statistic W of values around 0.
enum SignedRanks {
    /// P(W <= w) by w, from 0 to the largest value.
    Exact(&'static [f64]),
    Normal {
        mean: f64,
        sd: f64,
    },
}

impl SignedRanks {
    fn of(values: usize) -> SignedRanks {
        static EXACT: [OnceLock<Vec<f64>>; EXACT_UP_TO + 1] = [const { OnceLock::new() }; EXACT_UP_TO + 1];
        match EXACT.get(values) {
            Some(known) => SignedRanks::Exact(known.get_or_init(|| lower_tail(values))),
            None => SignedRanks::normal(values),
        }
    }

    fn normal(values: usize) -> SignedRanks {
        let n = values as f64;
        SignedRanks::Normal { mean: n * (n + 1.0) / 4.0, sd: (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt() }
    }

    /// P(W <= w).
    fn at_most(&self, w: usize) -> f64 {
        match self {
            SignedRanks::Exact(lower_tail) => lower_tail[w.min(lower_tail.len() - 1)],
            SignedRanks::Normal { mean, sd } => normal_lower_tail((w as f64 + 0.5 - mean) / sd),
        }
    }

    /// The largest w with P(W <= w) <= 2.5 %; 0 if there is none.
    fn cut(&self) -> usize {
        match self {
            SignedRanks::Exact(lower_tail) => {
                lower_tail.partition_point(|probability| *probability <= 1.0 - TWO_SIDED_95).saturating_sub(1)
            }
            SignedRanks::Normal { mean, sd } => (mean - NORMAL_95 * sd - 0.5).max(0.0) as usize,
        }
    }
}

/// P(W <= w) of `values` values, by w: each rank is in the sum or not, with equal chances.
fn lower_tail(values: usize) -> Vec<f64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_and_normal_ranks_agree_where_one_follows_the_other() {
        for values in [EXACT_UP_TO - 1, EXACT_UP_TO, EXACT_UP_TO + 1, EXACT_UP_TO + 50] {
            let exact_tail = lower_tail(values);
            let exact = SignedRanks::Exact(exact_tail.leak());
            let normal = SignedRanks::normal(values);
            assert!(exact.cut().abs_diff(normal.cut()) <= 2, "{values}: {} and {}", exact.cut(), normal.cut());
            for share in [0.1, 0.2, 0.3, 0.4, 0.5] {
                let w = (share * (values * (values + 1) / 2) as f64) as usize;
                let (one, other) = (exact.at_most(w), normal.at_most(w));
                assert!((one - other).abs() < 1e-3, "{values} values, W = {w}: {one} and {other}");
            }
        }
    }

    #[test]
    fn averages_that_are_counted_are_those_of_all_pairs() {
        let values = [3.0, -1.0, -1.0, 0.0, 7.5, 2.0, -4.0, 2.0];
        let mut all: Vec<f64> = (0..values.len())
            .flat_map(|one| values[one..].iter().map(move |other| 0.5 * (values[one] + other)))
            .collect();
        all.sort_unstable_by(f64::total_cmp);
        let averages = WalshAverages::of(&values);
        let counted: Vec<f64> = (0..averages.len()).map(|rank| averages.nth(rank)).collect();
        assert_eq!(counted, all);
        assert_eq!(averages.count(|average| average < 0.0), all.iter().filter(|average| **average < 0.0).count());
    }
}
