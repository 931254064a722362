//! A quotient of integers that compares exactly.

use crate::statistics::Sample;
use std::cmp::Ordering;

/// `numerator / denominator`, with a denominator above 0. Not reduced: 1/2 and 2/4 are equal.
#[derive(Clone, Copy, Debug)]
pub struct Fraction {
    numerator: i64,
    denominator: u64,
}

impl Fraction {
    /// The quotient; `None` for a denominator of 0.
    pub fn new(numerator: i64, denominator: u64) -> Option<Fraction> {
        (denominator > 0).then_some(Fraction { numerator, denominator })
    }

    /// Whether it is above 0.
    pub fn is_positive(self) -> bool {
        self.numerator > 0
    }

    /// The nearest floating-point number.
    pub fn as_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

impl Ord for Fraction {
    fn cmp(&self, other: &Self) -> Ordering {
        // |i64 * u64| stays below 2^127.
        let left = i128::from(self.numerator) * i128::from(other.denominator);
        let right = i128::from(other.numerator) * i128::from(self.denominator);
        left.cmp(&right)
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Fraction {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Fraction {}

impl Sample for Fraction {
    fn as_f64(self) -> f64 {
        Fraction::as_f64(self)
    }

    fn mean(samples: &[Self]) -> f64 {
        samples.iter().map(|sample| sample.as_f64()).sum::<f64>() / samples.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_where_floating_point_cannot() {
        let fraction = |numerator, denominator| Fraction::new(numerator, denominator).unwrap();
        let (low, high) = (fraction(i64::MAX - 1, 3), fraction(i64::MAX, 3));
        assert_eq!(low.as_f64(), high.as_f64());
        assert!(low < high);
        assert_eq!(fraction(1, 2), fraction(2, 4));
        assert!(fraction(-1, 3) < fraction(-1, 4));
        assert_eq!(Fraction::new(1, 0), None);
    }
}
