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
pub(super) fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) => {
            let digits_before = value.abs().log10().floor() as i32 + 1;
            format!("{value:.*}", (3 - digits_before).clamp(0, 6) as usize)
        }
    }
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
    fn the_unit_fits_the_middle_of_the_column() {
        assert_eq!(time_unit([0.000_9, 0.012, 3.0]).name, "ms");
        assert_eq!(time_unit([2.5e-7, 4e-7]).name, "ns");
        assert_eq!(time_unit([]).name, "s");
    }
}
