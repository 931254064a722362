//! A chart as data: what the page draws with its library, and [`super::svg`] and [`super::png`] as files.

use serde::Serialize;

/// A chart of one or more series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chart {
    /// Unique in a report, and safe in a file name: `itl_cdf`.
    pub id: &'static str,
    /// What it shows.
    pub title: String,
    /// How to read it, and what was thinned.
    pub caption: String,
    /// Along the bottom.
    pub x: Axis,
    /// Up the side.
    pub y: Axis,
    /// How a series is drawn.
    pub marks: Marks,
    /// What the whole numbers along the bottom stand for; empty for an axis of numbers.
    pub categories: Vec<String>,
    /// The series; those of one group are picked together.
    pub series: Vec<Series>,
    /// The same in numbers, for those who do not see the chart.
    #[serde(skip)]
    pub table: Grid,
}

/// An axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Axis {
    /// Quantity and unit.
    pub label: String,
    /// How values are laid out.
    pub scale: Scale,
}

/// How values are laid out on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithms; values of 0 and less have no place.
    Log,
    /// Names, side by side.
    Names,
}

/// How the series of a chart are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Marks {
    /// A line through the points.
    Lines,
    /// A line that is level up to each point.
    Steps,
    /// A dot for each point.
    Dots,
    /// A bar for each point, those of several series beside each other.
    Bars,
    /// The same on top of each other.
    Stacked,
}

/// One series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// What it is picked by: a point's label, or a name of its own.
    pub group: String,
    /// Whether it is drawn thinner, beside a main one.
    pub secondary: bool,
    /// Ascending, where they make a line. A line is broken at a point without a value (NaN, null in JSON).
    pub points: Vec<(f64, f64)>,
}

/// A table: a row per series or name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// Names of the columns, the first one that of the rows.
    pub headers: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

impl Axis {
    /// Of values that are laid out evenly.
    pub fn linear(label: &str) -> Axis {
        Axis { label: label.to_owned(), scale: Scale::Linear }
    }

    /// Of values that are laid out by their logarithms.
    pub fn log(label: &str) -> Axis {
        Axis { label: label.to_owned(), scale: Scale::Log }
    }

    /// Of names.
    pub fn names(label: &str) -> Axis {
        Axis { label: label.to_owned(), scale: Scale::Names }
    }
}

impl Series {
    /// A main series that is picked by its own name.
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Series {
        Series { name: name.to_owned(), group: name.to_owned(), secondary: false, points }
    }

    /// The points that have a place on the axes.
    pub(super) fn shown(&self, chart: &Chart) -> impl Iterator<Item = (f64, f64)> + '_ {
        let (x, y) = (chart.x.scale, chart.y.scale);
        self.points.iter().copied().filter(move |(a, b)| x.has_place(*a) && y.has_place(*b))
    }
}

impl Scale {
    /// Whether a value can be drawn.
    pub(super) fn has_place(self, value: f64) -> bool {
        value.is_finite() && (self != Scale::Log || value > 0.0)
    }
}

impl Chart {
    /// Whether there is anything to draw.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.shown(self).next().is_none())
    }
}
