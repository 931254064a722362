//! Numbers for people: three significant digits, in a unit that a whole column shares.

/// A unit of time that a column is shown in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    /// Its name.
    pub name: &'static str,
    /// Its size, in seconds.
    pub size_s: f64,
}

const UNITS: [Unit; 4] = [
    Unit { name: "s", size_s: 1.0 },
    Unit { name: "ms", size_s: 1e-3 },
    Unit { name: "us", size_s: 1e-6 },
    Unit { name: "ns", size_s: 1e-9 },
];

/// The largest unit in which the median of the values is at least 1; seconds without values above 0.
pub(super) fn time_unit(values_s: impl IntoIterator<Item = f64>) -> Unit {
    let mut values: Vec<f64> = values_s.into_iter().filter(|value| *value > 0.0).collect();
    values.sort_unstable_by(f64::total_cmp);
    let Some(median) = values.get(values.len() / 2) else { return UNITS[0] };
    UNITS.into_iter().find(|unit| *median >= unit.size_s).unwrap_or(UNITS[3])
}

/// A number with at least three significant digits, and no more than the eye can use; `-` for none.
pub(crate) fn number(value: Option<f64>) -> String {
    number_within(value, None)
}

/// The same without digits that are finer than `error`: they would show differences that the instrument cannot see.
pub(super) fn number_within(value: Option<f64>, error: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) => {
            let digits_before = value.abs().log10().floor() as i32 + 1;
            let seen = error.filter(|error| *error > 0.0).map_or(6, |error| -error.log10().floor() as i32);
            let digits = (3 - digits_before).min(seen).clamp(0, 6);
            format!("{value:.*}", digits as usize)
        }
    }
}

/// An error bound: one significant digit, rounded up, as a bound must be.
pub(super) fn bound(error: f64) -> String {
    if error <= 0.0 {
        return "0".to_owned();
    }
    let unit = 10f64.powf(error.log10().floor());
    let digits = (-error.log10().floor()).clamp(0.0, 9.0) as usize;
    // A bound that is a whole number of units must not become the next one because of its last bit.
    format!("{:.digits$}", (error / unit - 1e-9).ceil() * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        let shown = [1234.5, 123.45, 12.345, 1.2345, 0.12345, 0.0, -12.345].map(|value| number(Some(value)));
        assert_eq!(shown, ["1234", "123", "12.3", "1.23", "0.123", "0", "-12.3"]);
        assert_eq!(number(None), "-");
    }

    #[test]
    fn digits_finer_than_the_error_are_not_shown() {
        let shown = [(1.2345, 0.004), (1.2345, 0.04), (1.2345, 2.0), (123.4, 0.000_1)]
            .map(|(value, error)| number_within(Some(value), Some(error)));
        assert_eq!(shown, ["1.23", "1.23", "1", "123"]);
        assert_eq!(number_within(Some(0.012_345), Some(0.02)), "0.01");
    }

    #[test]
    fn a_bound_is_rounded_up() {
        assert_eq!([0.000_123, 0.002, 1.1, 30.0, 0.0].map(bound), ["0.0002", "0.002", "2", "30", "0"]);
    }

    #[test]
    fn the_unit_fits_the_middle_of_the_column() {
        assert_eq!(time_unit([0.000_9, 0.012, 3.0]).name, "ms");
        assert_eq!(time_unit([2.5e-7, 4e-7]).name, "ns");
        assert_eq!(time_unit([]).name, "s");
    }
}
