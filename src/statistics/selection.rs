//! The n-th smallest of numbers that can be counted and are too many to be kept.

/// The smallest number with more than `rank` numbers at or below it, by halving between the ends. `at_most` counts the numbers
/// at or below a value.
pub(super) fn nth_of(rank: usize, (smallest, largest): (f64, f64), at_most: impl Fn(f64) -> usize) -> f64 {
    let (mut low, mut high) = (place(smallest), place(largest));
    while low < high {
        let middle = low + ((high as i128 - low as i128) / 2) as i64;
        if at_most(value(middle)) > rank {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    value(high)
}

/// The place of a number among all numbers: the bits, with those of negative numbers turned over.
fn place(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

fn value(place: i64) -> f64 {
    f64::from_bits((place ^ (((place >> 63) as u64) >> 1) as i64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_order_of_their_numbers() {
        let numbers = [f64::MIN, -1.5, -1.0, -1e-300, 0.0, 1e-300, 1.0, 1.5, f64::MAX];
        assert!(numbers.windows(2).all(|pair| place(pair[0]) < place(pair[1])));
        assert!(numbers.iter().all(|number| value(place(*number)) == *number));
        let at_most = |value: f64| numbers.iter().filter(|number| **number <= value).count();
        let found: Vec<f64> = (0..numbers.len()).map(|rank| nth_of(rank, (f64::MIN, f64::MAX), at_most)).collect();
        assert_eq!(found, numbers);
    }
}
