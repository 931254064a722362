//! The trimmed mean and its interval.

use super::{TWO_SIDED_95, student_t_quantile};

/// A trimmed mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrimmedMean {
    /// Mean of what is left in the middle.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The mean of `samples` without the share `trim` at either end, with the interval of Tukey and McLaughlin (1963): the
/// winsorized variance, and Student's t with the number left, less one. `None` if fewer than two are left, or one of them
/// is not finite.
pub fn trimmed_mean(samples: &[f64], trim: f64) -> Option<TrimmedMean> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    let cut = (n as f64 * trim) as usize;
    let kept = sorted.get(cut..n.checked_sub(cut)?)?;
    let left = kept.len();
    if left < 2 || !kept.iter().all(|sample| sample.is_finite()) {
        return None;
    }
    let mean = kept.iter().sum::<f64>() / left as f64;
    // Winsorized: what was cut off counts as the nearest that was kept.
    let (lowest, highest) = (kept[0], kept[left - 1]);
    let winsorized = sorted.iter().map(|sample| sample.clamp(lowest, highest));
    let winsorized_mean = winsorized.clone().sum::<f64>() / n as f64;
    let squares = winsorized.map(|sample| (sample - winsorized_mean).powi(2)).sum::<f64>();
    let deviation = (squares / (n - 1) as f64).sqrt();
    let half = student_t_quantile(TWO_SIDED_95, (left - 1) as u32) * deviation
        / ((1.0 - 2.0 * cut as f64 / n as f64) * (n as f64).sqrt());
    Some(TrimmedMean { mean, low: mean - half, high: mean + half })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_made_sample() {
        // Of 1 to 10 with a share of 0.2, 3 to 8 are left: mean 5.5. Winsorized: 3 3 3 4 5 6 7 8 8 8, mean 5.5, squares
        // 3 * 6.25 + 2.25 + 0.25 + 0.25 + 2.25 + 3 * 6.25 = 42.5, deviation sqrt(42.5 / 9) = 2.17307. t(0.975; 5) is 2.570582.
        let samples: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        let found = trimmed_mean(&samples, 0.2).unwrap();
        let half = 2.570_582 * 2.173_067 / (0.6 * 10f64.sqrt());
        assert!((found.mean - 5.5).abs() < 1e-12);
        assert!((found.high - 5.5 - half).abs() < 1e-5 && (5.5 - found.low - half).abs() < 1e-5, "{found:?}");
    }

    #[test]
    fn an_outlier_of_any_size_does_not_move_it() {
        let mut samples: Vec<f64> = (1..=10).map(f64::from).collect();
        let before = trimmed_mean(&samples, 0.2);
        samples[9] = 1e9;
        assert_eq!(trimmed_mean(&samples, 0.2), before);
    }

    #[test]
    fn too_little_has_none() {
        assert_eq!(trimmed_mean(&[], 0.2), None);
        assert_eq!(trimmed_mean(&[1.0], 0.2), None);
        assert_eq!(trimmed_mean(&[f64::NAN, f64::NAN, f64::NAN], 0.0), None);
    }
}
