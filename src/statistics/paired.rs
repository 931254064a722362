//! The effect between two arms that were measured in pairs.

use super::signed_ranks::WalshAverages;
use super::student_t::two_sided_p;
use super::{TWO_SIDED_95, student_t_quantile};

/// The level of every decision.
pub const LEVEL: f64 = 0.05;

/// Fewer pairs than this decide nothing.
pub const FEWEST_PAIRS: usize = 5;

/// From as many pairs on the signed-rank interval is used, which one wild pair cannot move; with fewer it would be the whole
/// range.
pub(super) const SIGNED_RANK_FROM: usize = 7;

/// Power at which the detectable effect is given.
const POWER: f64 = 0.8;

/// How an effect was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairedMethod {
    /// Student's t over the differences.
    PairedT,
    /// Hodges and Lehmann's estimate, with interval and test of Wilcoxon's signed ranks, exact up to 100 pairs.
    SignedRank,
}

/// The effect of B against A, as a ratio of B to A.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedEffect {
    /// How it was found.
    pub method: PairedMethod,
    /// Number of pairs.
    pub pairs: usize,
    /// B / A.
    pub ratio: f64,
    /// Ends of its interval, 95 % at least.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Two-sided p-value of no effect: at most 0.05 exactly where the interval leaves 1 out.
    pub p: f64,
    /// The relative effect, above 0, that as many pairs would have found in 80 % of the cases.
    pub detectable: f64,
}

/// The effect in the logarithms of B / A, a value for each pair. `None` for fewer than [`FEWEST_PAIRS`].
pub fn paired_effect(log_ratios: &[f64]) -> Option<PairedEffect> {
    match log_ratios.len() {
        ..FEWEST_PAIRS => None,
        FEWEST_PAIRS..SIGNED_RANK_FROM => Some(paired_t(log_ratios)),
        _ => Some(signed_rank(log_ratios)),
    }
}

/// Whether as many pairs can reject one of `tests` at [`LEVEL`] after Holm's correction: pairs of one sign have signed ranks of
/// p = 2^(1 - pairs), and Student's t has no least p.
pub fn can_hold(pairs: usize, tests: usize) -> bool {
    match pairs {
        ..FEWEST_PAIRS => false,
        FEWEST_PAIRS..SIGNED_RANK_FROM => true,
        _ => 0.5f64.powi(pairs as i32 - 1) * tests as f64 <= LEVEL,
    }
}

/// The fewest pairs whose signed ranks [`can_hold`] against `tests`.
pub fn pairs_against(tests: usize) -> usize {
    (SIGNED_RANK_FROM..).find(|pairs| can_hold(*pairs, tests)).unwrap_or(SIGNED_RANK_FROM)
}

fn paired_t(log_ratios: &[f64]) -> PairedEffect {
    let pairs = log_ratios.len();
    let mean = log_ratios.iter().sum::<f64>() / pairs as f64;
    let squares: f64 = log_ratios.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (pairs - 1) as f64 / pairs as f64).sqrt();
    let degrees = pairs as u32 - 1;
    let half = student_t_quantile(TWO_SIDED_95, degrees) * error;
    let p = match (error > 0.0, mean == 0.0) {
        (true, _) => two_sided_p(mean / error, degrees),
        (false, true) => 1.0,
        (false, false) => 0.0,
    };
    effect(PairedMethod::PairedT, pairs, mean, (mean - half, mean + half), p)
}

fn signed_rank(log_ratios: &[f64]) -> PairedEffect {
    let averages = WalshAverages::of(log_ratios);
    effect(PairedMethod::SignedRank, log_ratios.len(), averages.median(), averages.interval(), averages.p())
}

fn effect(method: PairedMethod, pairs: usize, estimate: f64, (low, high): (f64, f64), p: f64) -> PairedEffect {
    let degrees = pairs as u32 - 1;
    let (t, t_power) = (student_t_quantile(TWO_SIDED_95, degrees), student_t_quantile(POWER, degrees));
    let detectable = (0.5 * (high - low) * (t + t_power) / t).exp_m1();
    PairedEffect { method, pairs, ratio: estimate.exp(), low: low.exp(), high: high.exp(), p, detectable }
}
