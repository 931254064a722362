//! The cumulative distribution of the inter-token latency.

use plotters::prelude::*;

/// Points of a curve: enough for every step that a chart of this width can show.
const CURVE_POINTS: usize = 256;

/// A chart's width and height.
const SIZE: (u32, u32) = (720, 320);

/// More curves than this are not told apart by a legend.
const LEGEND_CURVES: usize = 12;

/// A chart could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the {chart} chart could not be drawn: {cause}")]
pub struct PlotError {
    chart: &'static str,
    cause: String,
}

impl PlotError {
    pub(super) fn new(chart: &'static str, cause: &dyn std::error::Error) -> PlotError {
        PlotError { chart, cause: cause.to_string() }
    }
}

/// A point of a cumulative distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CdfPoint {
    /// The sample, in milliseconds.
    pub ms: f64,
    /// Share of the samples at or below it.
    pub share: f64,
}

/// A named cumulative distribution.
pub struct Curve<'a> {
    /// What the legend says.
    pub label: &'a str,
    /// Ascending points.
    pub points: &'a [CdfPoint],
}

/// The cumulative distribution of ascending samples in nanoseconds, at evenly spaced shares and at the largest sample.
pub fn cdf(ascending_ns: &[i64]) -> Vec<CdfPoint> {
    let count = ascending_ns.len();
    let points = CURVE_POINTS.min(count);
    (1..=points)
        .map(|point| {
            let rank = (point * count).div_ceil(points);
            CdfPoint { ms: ascending_ns[rank - 1] as f64 / 1e6, share: rank as f64 / count as f64 }
        })
        .collect()
}

/// The curves in one chart. The axis is logarithmic, because gaps of several kinds of steps lie factors apart.
///
/// # Errors
/// [`PlotError`].
pub fn itl_cdf_svg(curves: &[Curve<'_>]) -> Result<String, PlotError> {
    let mut svg = String::new();
    draw(&mut svg, curves).map_err(|error| PlotError::new("ITL", &*error))?;
    Ok(svg)
}

fn draw(svg: &mut String, curves: &[Curve<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(ms_range(curves).log_scale(), 0.0..1.0)?;
    let mesh_color = RGBColor(222, 222, 222);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(mesh_color)
        .x_desc("ITL, ms")
        .y_desc("share of gaps")
        .x_label_formatter(&|ms| format!("{ms}"))
        .draw()?;
    for (index, curve) in curves.iter().enumerate() {
        let style = Palette99::pick(index).stroke_width(2);
        let line = LineSeries::new(staircase(curve.points), style);
        let drawn = chart.draw_series(line)?;
        if curves.len() > 1 && index < LEGEND_CURVES {
            drawn.label(curve.label).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
    }
    if curves.len() > 1 {
        let position = SeriesLabelPosition::LowerRight;
        chart.configure_series_labels().position(position).background_style(WHITE.mix(0.8)).draw()?;
    }
    area.present()?;
    Ok(())
}

/// A distribution rises at its samples and is level between them.
fn staircase(points: &[CdfPoint]) -> impl Iterator<Item = (f64, f64)> + '_ {
    let mut share_before = 0.0;
    points.iter().filter(|point| point.ms > 0.0).flat_map(move |point| {
        let rise = [(point.ms, share_before), (point.ms, point.share)];
        share_before = point.share;
        rise
    })
}

fn ms_range(curves: &[Curve<'_>]) -> std::ops::Range<f64> {
    let samples = || curves.iter().flat_map(|curve| curve.points).map(|point| point.ms).filter(|ms| *ms > 0.0);
    let low = samples().fold(f64::INFINITY, f64::min);
    let high = samples().fold(0.0, f64::max);
    // Some room around the curve, also around a single value; any range will do for a chart without samples.
    if low <= high { low / 1.2..high * 1.2 } else { 1.0..10.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_ends_at_the_largest_sample() {
        let samples: Vec<i64> = (1..=1_000).map(|ms| ms * 1_000_000).collect();
        let curve = cdf(&samples);
        assert_eq!(curve.len(), CURVE_POINTS);
        assert_eq!(curve.last(), Some(&CdfPoint { ms: 1_000.0, share: 1.0 }));
        assert!(curve.windows(2).all(|pair| pair[0].share < pair[1].share));
        assert_eq!(cdf(&[]), []);
    }

    #[test]
    fn draws_what_there_is() {
        let points = [CdfPoint { ms: 5.0, share: 0.5 }, CdfPoint { ms: 8.0, share: 1.0 }];
        let one = itl_cdf_svg(&[Curve { label: "a", points: &points }]).unwrap();
        let two = itl_cdf_svg(&[Curve { label: "a<b", points: &points }, Curve { label: "c", points: &[] }]).unwrap();
        let none = itl_cdf_svg(&[]).unwrap();
        assert!(one.contains("<polyline") && two.contains("a&lt;b"), "{two}");
        assert!(none.contains("</svg>"));
    }
}
