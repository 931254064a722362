//! Whether the begin of a series that should be steady differs from the rest of it: gated MSER-5.

use super::student_t_quantile;

/// Values that are averaged before the rule looks at them.
const BATCH: usize = 5;
/// Fewer batches than this leave the rule too little to choose from.
const FEWEST_BATCHES: usize = 10;
/// Fewer runs than this have no spread to hold a difference against.
const FEWEST_RUNS: usize = 3;
/// Two-sided 99 % point for the difference over runs.
const TWO_SIDED_99: f64 = 0.995;
/// Smallest difference that counts, in logarithms.
const SMALLEST_EFFECT: f64 = 0.01;
/// Sums of squares that differ by less than this part of the largest one do so by rounding.
const ROUNDING: f64 = 1e-12;

/// The begin that differs most from the rest, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmCut {
    /// Values before the cut.
    pub candidate: usize,
    /// Mean over runs of ln(mean before / mean after).
    pub effect: f64,
    /// Half of its 99 % interval.
    pub half: f64,
}

impl WarmCut {
    /// Whether the difference is above a per cent and above what varies from run to run. Without this gate the rule cuts
    /// every second steady series.
    pub fn is_accepted(&self) -> bool {
        self.effect.abs() > SMALLEST_EFFECT && self.effect.abs() > self.half
    }
}

/// The cut that MSER-5 (Hoad, Robinson & Davies 2010) proposes for the average of aligned series, one from each run. It says
/// something, and cuts nothing. `None` if it proposes none, and for fewer than three runs, 50 values, or values not above 0.
pub fn warm_cut(series: &[Vec<f64>]) -> Option<WarmCut> {
    let values = series.iter().map(Vec::len).min()?;
    let is_usable = series.iter().flatten().all(|value| *value > 0.0 && value.is_finite());
    if series.len() < FEWEST_RUNS || values / BATCH < FEWEST_BATCHES || !is_usable {
        return None;
    }
    let runs = series.len() as f64;
    let average = |index: usize| series.iter().map(|run| run[index]).sum::<f64>() / runs;
    let batches: Vec<f64> =
        (0..values / BATCH).map(|batch| mean((0..BATCH).map(|value| average(batch * BATCH + value)))).collect();
    let candidate = BATCH * best_truncation(&batches);
    if candidate == 0 {
        return None;
    }
    let effects: Vec<f64> = series
        .iter()
        .map(|run| {
            let (before, after) = run[..values].split_at(candidate);
            (mean(before.iter().copied()) / mean(after.iter().copied())).ln()
        })
        .collect();
    let effect = mean(effects.iter().copied());
    let variance = effects.iter().map(|one| (one - effect).powi(2)).sum::<f64>() / (runs - 1.0);
    let half = student_t_quantile(TWO_SIDED_99, series.len() as u32 - 1) * (variance / runs).sqrt();
    Some(WarmCut { candidate, effect, half })
}

/// The number of batches, at most half of them, without which the standard error of the mean is smallest.
fn best_truncation(batches: &[f64]) -> usize {
    let error = |cut: usize| {
        let kept = &batches[cut..];
        let mean = mean(kept.iter().copied());
        kept.iter().map(|batch| (batch - mean).powi(2)).sum::<f64>() / (kept.len() as f64).powi(2)
    };
    let errors: Vec<f64> = (0..=batches.len() / 2).map(error).collect();
    let rounding = ROUNDING * errors.iter().copied().fold(0.0, f64::max);
    let mut best = 0;
    for cut in 1..errors.len() {
        if errors[cut] < errors[best] - rounding {
            best = cut;
        }
    }
    best
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
