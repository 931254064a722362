//! The sentinels of a sweep over time.

use plotters::prelude::*;

use super::PlotError;

/// A chart's width and height.
const SIZE: (u32, u32) = (720, 320);
/// More series than this are not told apart by a legend.
const LEGEND_SERIES: usize = 12;
/// Smallest half of the vertical range, in per cent, so that noise of nothing does not look like drift.
const SMALLEST_RANGE: f64 = 1.0;

/// The runs of a sentinel.
pub struct SentinelSeries<'a> {
    /// What the legend says.
    pub label: &'a str,
    /// Minutes since the first run, and change against it in per cent.
    pub points: Vec<(f64, f64)>,
}

/// The series in one chart: minutes from left to right, change against the first run upwards.
///
/// # Errors
/// [`PlotError`].
pub fn sentinels_svg(series: &[SentinelSeries<'_>]) -> Result<String, PlotError> {
    let mut svg = String::new();
    draw(&mut svg, series).map_err(|error| PlotError::new("sentinel", &*error))?;
    Ok(svg)
}

fn draw(svg: &mut String, series: &[SentinelSeries<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || series.iter().flat_map(|series| &series.points);
    let minutes = points().map(|(minutes, _)| *minutes).fold(f64::MIN_POSITIVE, f64::max);
    let change = points().map(|(_, percent)| percent.abs()).fold(SMALLEST_RANGE, f64::max) * 1.1;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..minutes, -change..change)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(222, 222, 222))
        .x_desc("minutes since the first sentinel of the epoch")
        .y_desc("change of the mean E2E, %")
        .draw()?;
    for (index, series) in series.iter().enumerate() {
        let style = Palette99::pick(index).stroke_width(2);
        let line = LineSeries::new(series.points.iter().copied(), style).point_size(3);
        let drawn = chart.draw_series(line)?;
        if index < LEGEND_SERIES {
            drawn.label(series.label).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
    }
    let position = SeriesLabelPosition::UpperLeft;
    chart.configure_series_labels().position(position).background_style(WHITE.mix(0.8)).draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_a_line_for_each_sentinel() {
        let series = [("a<b", 0.5), ("c", 3.0)].map(|(label, step)| SentinelSeries {
            label,
            points: (0..6).map(|run| (f64::from(run), f64::from(run) * step)).collect(),
        });
        let svg = sentinels_svg(&series).unwrap();
        assert_eq!(svg.matches("<circle").count(), 12, "a mark for each run: {svg}");
        assert!(svg.contains("a&lt;b") && svg.contains("</svg>"), "{svg}");
        assert!(sentinels_svg(&[]).unwrap().contains("</svg>"));
    }
}
