//! Thinning: fewer points than samples, and the extremes among them.

use crate::statistics::Percentile;

/// A point of a cumulative distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CdfPoint {
    /// The sample, in milliseconds.
    pub ms: f64,
    /// Share of the samples at or below it.
    pub share: f64,
    /// Share of the samples at or above it.
    pub share_above: f64,
}

/// Ranks of a grid per halving of what is left above: how dense it is in the tail.
const PER_HALVING: usize = 8;

/// The cumulative distribution of ascending samples in nanoseconds: at `body` evenly spaced shares, and above the median
/// at eight ranks for each halving of what is left, down to the largest sample, which is always there. So are the ranks of the
/// percentiles that tables show.
pub fn cdf(ascending_ns: &[i64], body: usize) -> Vec<CdfPoint> {
    let count = ascending_ns.len();
    let point = |rank: usize| CdfPoint {
        ms: ascending_ns[rank - 1] as f64 / 1e6,
        share: rank as f64 / count as f64,
        share_above: (count - rank + 1) as f64 / count as f64,
    };
    grid(count, body).into_iter().map(point).collect()
}

/// Ascending ranks from 1 to `count`.
fn grid(count: usize, body: usize) -> Vec<usize> {
    let even = body.min(count);
    let mut ranks: Vec<usize> = (1..=even).map(|part| (part * count).div_ceil(even)).collect();
    let mut left = count as f64 / 2.0;
    while left > 1.0 {
        ranks.push(count - left as usize);
        left *= 0.5_f64.powf(1.0 / PER_HALVING as f64);
    }
    ranks.extend((count > 0).then_some(1));
    let shown = [Percentile::P50, Percentile::P90, Percentile::P99, Percentile::P99_9];
    ranks.extend(shown.map(|percentile| percentile.rank(count as u64) as usize));
    ranks.retain(|rank| (1..=count).contains(rank));
    ranks.sort_unstable();
    ranks.dedup();
    ranks
}

/// A series over time in at most `bins` bins: of each its smallest and its largest value, in their order.
pub fn extremes(points: &[(f64, f64)], bins: usize) -> Vec<(f64, f64)> {
    if points.len() <= 2 * bins.max(1) {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for bin in points.chunks(points.len().div_ceil(bins.max(1))) {
        let low = bin.iter().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1)).map_or(0, |(place, _)| place);
        let high = bin.iter().enumerate().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).map_or(0, |(place, _)| place);
        kept.extend((low != high).then(|| bin[low.min(high)]));
        kept.push(bin[low.max(high)]);
    }
    kept
}

/// Dots in at most `columns` columns of equal width along the bottom: of each column its lowest and its highest dot, and
/// between them one for each of as many rows as there are columns.
pub fn scatter(points: &[(f64, f64)], columns: usize) -> Vec<(f64, f64)> {
    if points.len() <= columns {
        return points.to_vec();
    }
    let range = |pick: fn(&(f64, f64)) -> f64| {
        let all = || points.iter().map(pick);
        (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max))
    };
    let ((left, right), (low, high)) = (range(|point| point.0), range(|point| point.1));
    let part = |value: f64, from: f64, to: f64| {
        if to > from { ((value - from) / (to - from) * (columns - 1) as f64) as usize } else { 0 }
    };
    let mut cells = std::collections::BTreeMap::new();
    let mut ends: std::collections::BTreeMap<usize, [(f64, f64); 2]> = std::collections::BTreeMap::new();
    for point in points {
        let column = part(point.0, left, right);
        cells.entry((column, part(point.1, low, high))).or_insert(*point);
        let end = ends.entry(column).or_insert([*point; 2]);
        if point.1 < end[0].1 {
            end[0] = *point;
        }
        if point.1 > end[1].1 {
            end[1] = *point;
        }
    }
    let mut kept: Vec<(f64, f64)> = cells.into_values().chain(ends.into_values().flatten()).collect();
    kept.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    kept.dedup();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_keeps_its_tail() {
        let samples: Vec<i64> = (1..=1_000_000).map(|us| us * 1_000).collect();
        let curve = cdf(&samples, 64);
        assert!(curve.len() < 64 + PER_HALVING * 20 + 2, "{}", curve.len());
        let last = curve.last().unwrap();
        assert_eq!((last.ms, last.share, last.share_above), (1_000.0, 1.0, 1e-6));
        assert_eq!(curve[0].ms, 0.001);
        // Of the thousand largest samples there are dozens of points.
        assert!(curve.iter().filter(|point| point.share_above <= 1e-3).count() > 60);
        assert!(curve.windows(2).all(|pair| pair[0].share < pair[1].share));
        assert_eq!(cdf(&[], 64), []);
        assert_eq!(cdf(&[5_000_000], 64).len(), 1);
    }

    #[test]
    fn a_spike_between_many_points_stays() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|x| (f64::from(x), 1.0)).collect();
        points[4_321].1 = 99.0;
        points[8_765].1 = -7.0;
        for kept in [extremes(&points, 50), scatter(&points, 50)] {
            assert!(kept.len() <= 200, "{}", kept.len());
            assert!(kept.contains(&(4_321.0, 99.0)) && kept.contains(&(8_765.0, -7.0)), "{kept:?}");
            assert!(kept.is_sorted_by_key(|point| point.0));
        }
        assert_eq!(extremes(&points[..100], 50), points[..100]);
    }
}
