//! Nearest-rank percentiles in exact integer arithmetic.

/// A percentile, in thousandths of a percent so that 99.9 is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percentile {
    thousandths: u32,
}

impl Percentile {
    /// The median.
    pub const P50: Percentile = Percentile { thousandths: 50_000 };
    /// 90 %.
    pub const P90: Percentile = Percentile { thousandths: 90_000 };
    /// 99 %.
    pub const P99: Percentile = Percentile { thousandths: 99_000 };
    /// 99.9 %.
    pub const P99_9: Percentile = Percentile { thousandths: 99_900 };

    /// 1-based nearest rank among `count` samples: the smallest rank with at least this share of them at or below it.
    pub fn rank(self, count: u64) -> u64 {
        let rank = (u128::from(count) * u128::from(self.thousandths)).div_ceil(100_000) as u64;
        rank.max(1)
    }

    /// The share as a number between 0 and 1.
    pub fn quantile(self) -> f64 {
        f64::from(self.thousandths) / 100_000.0
    }

    /// The value at the nearest rank of ascending samples; `None` without samples.
    pub fn of_sorted<T: Copy>(self, ascending: &[T]) -> Option<T> {
        ascending.get(self.rank(ascending.len() as u64) as usize - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_worked_out_by_hand() {
        let cases = [
            (Percentile::P50, [(1, 1), (2, 1), (99, 50), (100, 50), (101, 51)]),
            (Percentile::P90, [(1, 1), (2, 2), (99, 90), (100, 90), (101, 91)]),
            (Percentile::P99, [(1, 1), (2, 2), (99, 99), (100, 99), (101, 100)]),
            // In binary floating point 0.999 * 1000 is above 999.
            (Percentile::P99_9, [(1, 1), (999, 999), (1000, 999), (1001, 1000), (2000, 1998)]),
        ];
        for (percentile, ranks) in cases {
            for (count, rank) in ranks {
                assert_eq!(percentile.rank(count), rank, "{percentile:?} of {count}");
            }
        }
    }

    #[test]
    fn the_value_at_a_rank() {
        let hundred_and_one: Vec<i64> = (1..=101).collect();
        assert_eq!(Percentile::P99.of_sorted(&hundred_and_one), Some(100));
        assert_eq!(Percentile::P99.of_sorted(&hundred_and_one[..1]), Some(1));
        assert_eq!(Percentile::P50.of_sorted::<i64>(&[]), None);
    }
}
