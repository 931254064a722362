//! What a comparison will be able to find, said before it is measured.

use super::{FEWEST_PAIRS, TWO_SIDED_95, student_t_quantile};

/// In which share of the cases a change that a plan names is found, at least.
pub const PLANNED_POWER: f64 = 0.9;

/// The standard normal's quantile at 20 %: a spread is taken to be no larger than a bound that holds in 80 % of the cases.
const BOUND_Z: f64 = -0.841_621_233_572_914_2;

/// The most pairs that are proposed.
const MOST_PAIRS: usize = 1_000;

/// How much runs of one point differ from each other.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Standard deviation of the logarithm of a metric.
    pub sd: f64,
    /// Degrees of freedom of that estimate.
    pub degrees: f64,
}

impl Spread {
    /// Of values above 0 in the order in which they were measured. From the differences of neighbours, in which a drift that is
    /// slow against their distance cancels as it does in pairs, at two thirds of the efficiency (von Neumann and others 1941).
    /// In a sweep neighbours lie a round apart and the members of a pair do not, so that this errs to the safe side there.
    /// `None` for fewer than three values.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        if logs.len() < 3 || logs.iter().any(|log| !log.is_finite()) {
            return None;
        }
        let differences = (logs.len() - 1) as f64;
        let squares: f64 = logs.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum();
        Some(Spread { sd: (squares / (2.0 * differences)).sqrt(), degrees: differences * 2.0 / 3.0 })
    }

    /// Of the logarithm of B / A, where the two sides spread by `a` and `b`.
    pub fn of_pair(a: Spread, b: Spread) -> Spread {
        Spread { sd: a.sd.hypot(b.sd), degrees: a.degrees.min(b.degrees) }
    }

    /// What the spread stays below with a probability of 80 %: by Wilson and Hilferty's quantile of chi-squared (1931).
    fn bound(&self) -> f64 {
        let part = 2.0 / (9.0 * self.degrees);
        let quantile = (1.0 - part + BOUND_Z * part.sqrt()).max(0.05).powi(3);
        self.sd / quantile.sqrt()
    }

    /// The relative change, above 0, from which on `pairs` pairs that spread like this find it with [`PLANNED_POWER`]. `None`
    /// for fewer pairs than decide anything.
    pub fn found_from(&self, pairs: usize) -> Option<f64> {
        found_from(pairs).map(|spreads| (spreads * self.bound()).exp_m1())
    }

    /// The fewest pairs that find `change` so often; `None` if a thousand do not.
    pub fn pairs_for(&self, change: f64) -> Option<usize> {
        let finds = |pairs: usize| self.found_from(pairs).is_some_and(|found| found <= change);
        // More pairs find smaller changes, so that halving the range finds the fewest.
        let (mut too_few, mut enough) = (FEWEST_PAIRS - 1, MOST_PAIRS);
        if !finds(enough) {
            return None;
        }
        while enough - too_few > 1 {
            let middle = too_few.midpoint(enough);
            if finds(middle) { enough = middle } else { too_few = middle }
        }
        Some(enough)
    }
}

/// The same in spreads of a pair: the sum of the t quantiles of level and power over the root of the number of pairs. The signed
/// ranks need pi / 3 times as many pairs as t (Hodges and Lehmann 1956), and few pairs have levels further below 5 %, which one
/// pair less stands for. `None` for fewer pairs than decide anything.
pub fn found_from(pairs: usize) -> Option<f64> {
    if pairs < FEWEST_PAIRS {
        return None;
    }
    let degrees = pairs as u32 - 1;
    let quantiles = student_t_quantile(TWO_SIDED_95, degrees) + student_t_quantile(PLANNED_POWER, degrees);
    Some(quantiles * (std::f64::consts::FRAC_PI_3 / (pairs - 1) as f64).sqrt())
}
