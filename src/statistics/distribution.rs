//! What is kept of a set of samples: its mean and its percentiles.

use super::{Percentile, Sample};

/// Mean and nearest-rank percentiles of samples, in the samples' unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distribution<T> {
    /// Number of samples, at least 1.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest sample.
    pub min: T,
    /// Median.
    pub p50: T,
    /// 90th percentile.
    pub p90: T,
    /// 99th percentile.
    pub p99: T,
    /// Largest sample.
    pub max: T,
}

impl<T: Sample> Distribution<T> {
    /// Of ascending samples; `None` without any.
    pub fn of_sorted(ascending: &[T]) -> Option<Distribution<T>> {
        Some(Distribution {
            count: ascending.len() as u64,
            mean: T::mean(ascending),
            min: *ascending.first()?,
            p50: Percentile::P50.of_sorted(ascending)?,
            p90: Percentile::P90.of_sorted(ascending)?,
            p99: Percentile::P99.of_sorted(ascending)?,
            max: *ascending.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_large_times_is_exact() {
        // Their sum does not fit in 64 bits.
        let distribution = Distribution::of_sorted(&[i64::MAX - 2, i64::MAX - 1, i64::MAX]).unwrap();
        assert_eq!(distribution.mean, (i64::MAX - 1) as f64);
        assert_eq!((distribution.min, distribution.max), (i64::MAX - 2, i64::MAX));
        assert_eq!(Distribution::<i64>::of_sorted(&[]), None);
    }
}
