//! What the statistics need to know of a sample.

/// A sample that orders exactly and can be shown as a floating-point number in its own unit.
pub trait Sample: Copy + Ord {
    /// The nearest floating-point number.
    fn as_f64(self) -> f64;

    /// The mean; 0 without samples.
    fn mean(samples: &[Self]) -> f64;
}

impl Sample for i64 {
    fn as_f64(self) -> f64 {
        self as f64
    }

    fn mean(samples: &[Self]) -> f64 {
        let sum: i128 = samples.iter().map(|sample| i128::from(*sample)).sum();
        sum as f64 / samples.len().max(1) as f64
    }
}

impl Sample for u32 {
    fn as_f64(self) -> f64 {
        f64::from(self)
    }

    fn mean(samples: &[Self]) -> f64 {
        let sum: u64 = samples.iter().map(|sample| u64::from(*sample)).sum();
        sum as f64 / samples.len().max(1) as f64
    }
}
