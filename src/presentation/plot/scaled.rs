//! An axis of any scale, for the drawing library.

use plotters::coord::ranged1d::{KeyPointHint, Ranged, ValueFormatter};

use super::{Axis, Scale};

/// An axis with its range.
#[derive(Clone)]
pub(super) struct Scaled {
    scale: Scale,
    low: f64,
    high: f64,
    names: usize,
}

impl Scaled {
    /// Around these values; any range will do for none.
    pub(super) fn around(axis: &Axis, names: usize, values: &[f64]) -> Scaled {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = match axis.scale {
            Scale::Names => (-0.5, names.max(1) as f64 - 0.5),
            _ if low > high => (1.0, 10.0),
            Scale::Log => (low / 1.2, high * 1.2),
            // What is drawn begins at 0, so that lengths can be compared.
            Scale::Linear if low == 0.0 && high == 0.0 => (0.0, 1.0),
            Scale::Linear => (low.min(0.0), high.max(0.0) + (high - low).abs() * 0.05),
        };
        Scaled { scale: axis.scale, low, high, names }
    }

    /// Where bars begin.
    pub(super) fn floor(&self) -> f64 {
        if self.scale == Scale::Log { self.low } else { 0.0 }
    }

    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
            _ => (value - self.low) / (self.high - self.low),
        }
    }

    fn decades(&self, within: &[f64]) -> Vec<f64> {
        let exponents = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = exponents.flat_map(|exponent| within.iter().map(move |digit| digit * 10_f64.powi(exponent)));
        all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }

    fn even(&self, most: usize) -> Vec<f64> {
        let wide = (self.high - self.low) / most.max(1) as f64;
        let unit = 10_f64.powf(wide.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * unit).into_iter().find(|step| *step >= wide);
        let step = step.unwrap_or(wide);
        let first = (self.low / step).ceil() as i64;
        (first..).map(|count| count as f64 * step).take_while(|tick| *tick <= self.high).take(most + 2).collect()
    }
}

impl Ranged for Scaled {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let length = f64::from(limit.1 - limit.0);
        limit.0 + (self.place(*value).clamp(-0.1, 1.1) * length).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let most = hint.max_num_points().clamp(2, 8);
        match self.scale {
            Scale::Names => (0..self.names).map(|index| index as f64).collect(),
            Scale::Linear => self.even(most),
            Scale::Log => {
                let finest = [&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0][..], &[1.0, 2.0, 5.0], &[1.0]];
                let fits = finest.iter().map(|digits| self.decades(digits)).find(|ticks| ticks.len() <= most);
                fits.unwrap_or_else(|| self.decades(&[1.0]))
            }
        }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scaled {
    fn format_ext(&self, value: &f64) -> String {
        match self.scale {
            // The key below the chart says what the numbers stand for.
            Scale::Names => format!("{}", value + 1.0),
            // The sum of a step and its multiples has a last digit too many.
            _ => format!("{}", format!("{value:.9}").parse::<f64>().unwrap_or(*value)),
        }
    }
}
