//! A chart as SVG text.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::scaled::Scaled;
use super::{Chart, Marks};
use crate::base::printable::printable_lines;

/// Width of a chart, and height of what is drawn above its legend.
const WIDTH: u32 = 720;
const HEIGHT: u32 = 360;

/// Legend: entries in a row, its height, and the most that are told apart.
const LEGEND_COLUMNS: usize = 2;
const LEGEND_ROW: u32 = 18;
const LEGEND_ENTRIES: usize = 16;

/// A chart could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the chart `{chart}` could not be drawn: {problem}")]
pub struct PlotError {
    /// Its id.
    pub chart: &'static str,
    /// What the drawing library said.
    pub problem: String,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Context<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Scaled, Scaled>>;

/// The chart, on white.
///
/// # Errors
/// [`PlotError`].
pub fn svg(chart: &Chart) -> Result<String, PlotError> {
    let mut text = String::new();
    draw(&mut text, chart).map_err(|error| PlotError { chart: chart.id, problem: error.to_string() })?;
    // Control characters, which XML does not take, can only stand in the names of the chart.
    Ok(printable_lines(&text).into_owned())
}

fn draw(text: &mut String, chart: &Chart) -> Drawn {
    let keys = keys(chart);
    let legend_height = keys.len().div_ceil(LEGEND_COLUMNS) as u32 * LEGEND_ROW;
    let whole = SVGBackend::with_string(text, (WIDTH, HEIGHT + legend_height)).into_drawing_area();
    whole.fill(&WHITE)?;
    let (upper, legend) = whole.split_vertically(HEIGHT);
    let all: Vec<(f64, f64)> = chart.series.iter().flat_map(|series| series.shown(chart)).collect();
    let (across, mut up): (Vec<f64>, Vec<f64>) = all.into_iter().unzip();
    if chart.marks == Marks::Stacked {
        up = tops(chart);
    }
    let x = Scaled::around(&chart.x, chart.categories.len(), &across);
    let y = Scaled::around(&chart.y, 0, &up);
    let mut context = ChartBuilder::on(&upper)
        .margin(12)
        .caption(&chart.title, ("sans-serif", 16))
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y.clone())?;
    mesh(&mut context, chart)?;
    match chart.marks {
        Marks::Bars | Marks::Stacked => bars(&mut context, chart, y.floor())?,
        _ => curves(&mut context, chart)?,
    }
    draw_keys(&legend, &keys)?;
    whole.present()?;
    Ok(())
}

fn mesh(context: &mut Context<'_, '_>, chart: &Chart) -> Drawn {
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(222, 222, 222))
        .x_desc(&chart.x.label)
        .y_desc(&chart.y.label)
        .draw()?;
    Ok(())
}

fn curves(context: &mut Context<'_, '_>, chart: &Chart) -> Drawn {
    for (index, series) in chart.series.iter().enumerate() {
        let color = color(chart, index);
        if chart.marks == Marks::Dots {
            let dots = series.shown(chart).map(|point| Circle::new(point, 2, color.mix(0.6).filled()));
            context.draw_series(dots)?;
            continue;
        }
        let style = color.stroke_width(if series.secondary { 1 } else { 2 });
        for piece in series.points.split(|point| !chart.x.scale.has_place(point.0) || !chart.y.scale.has_place(point.1))
        {
            context.draw_series(LineSeries::new(line(piece, chart.marks), style))?;
        }
    }
    Ok(())
}

/// The corners of a line; of steps, level up to each point.
fn line(points: &[(f64, f64)], marks: Marks) -> Vec<(f64, f64)> {
    let mut before = None;
    let corners = points.iter().flat_map(|point| {
        let corner = before.replace(point.1).filter(|_| marks == Marks::Steps).map(|y| (point.0, y));
        corner.into_iter().chain([*point])
    });
    corners.collect()
}

fn bars(context: &mut Context<'_, '_>, chart: &Chart, floor: f64) -> Drawn {
    let stacked = chart.marks == Marks::Stacked;
    let beside = if stacked { 1 } else { chart.series.len() };
    let width = 0.8 / beside as f64;
    let mut tops = vec![floor; chart.categories.len()];
    for (index, series) in chart.series.iter().enumerate() {
        let offset = if stacked { -0.4 } else { -0.4 + index as f64 * width };
        for (x, value) in series.shown(chart) {
            let Some(top) = tops.get_mut(x as usize) else { continue };
            let from = if stacked { *top } else { floor };
            let to = if stacked { from + value } else { value };
            let corners = [(x + offset, from), (x + offset + width, to)];
            context.draw_series([Rectangle::new(corners, color(chart, index).filled())])?;
            *top = if stacked { to } else { *top };
        }
    }
    Ok(())
}

/// The heights of the stacks.
fn tops(chart: &Chart) -> Vec<f64> {
    let mut tops = vec![0.0; chart.categories.len()];
    for (x, value) in chart.series.iter().flat_map(|series| series.shown(chart)) {
        if let Some(top) = tops.get_mut(x as usize) {
            *top += value;
        }
    }
    tops
}

/// What a color or a number of the chart stands for: the series, if there are several, and the names along the bottom.
fn keys(chart: &Chart) -> Vec<(Option<RGBColor>, String)> {
    let several = if chart.series.len() > 1 { chart.series.as_slice() } else { &[] };
    let series = several.iter().take(LEGEND_ENTRIES).enumerate();
    let series = series.map(|(index, series)| (Some(color(chart, index)), series.name.clone()));
    let names = chart.categories.iter().enumerate().map(|(index, name)| (None, format!("{}: {name}", index + 1)));
    series.chain(names).collect()
}

fn draw_keys(area: &Area<'_>, keys: &[(Option<RGBColor>, String)]) -> Drawn {
    for (index, (color, name)) in keys.iter().enumerate() {
        let x = 64 + (index % LEGEND_COLUMNS) as i32 * (WIDTH as i32 - 64) / LEGEND_COLUMNS as i32;
        let y = (index / LEGEND_COLUMNS) as i32 * LEGEND_ROW as i32;
        if let Some(color) = color {
            area.draw(&Rectangle::new([(x, y + 4), (x + 14, y + 10)], color.filled()))?;
        }
        area.draw(&Text::new(name.clone(), (x + 20, y), ("sans-serif", 12)))?;
    }
    Ok(())
}

/// The colors of the page, in its order.
const COLORS: [RGBColor; 10] = [
    RGBColor(0x0b, 0x6e, 0xb8),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x8f, 0x6b),
    RGBColor(0xb8, 0x5c, 0x9b),
    RGBColor(0x9a, 0x7b, 0x00),
    RGBColor(0x3f, 0x9f, 0xcc),
    RGBColor(0xb0, 0x30, 0x30),
    RGBColor(0x6a, 0x51, 0xa3),
    RGBColor(0x55, 0x6b, 0x2f),
    RGBColor(0x6b, 0x6b, 0x6b),
];

/// The color of a series, which it shares with its group; each kind of bar has its own.
fn color(chart: &Chart, index: usize) -> RGBColor {
    let place = match chart.marks {
        Marks::Bars | Marks::Stacked => index,
        _ => {
            let mut groups: Vec<&str> =
                chart.series.iter().take(index + 1).map(|series| series.group.as_str()).collect();
            let own = groups.last().copied();
            let first = groups.iter().position(|group| Some(*group) == own).unwrap_or(index);
            groups.truncate(first);
            groups.sort_unstable();
            groups.dedup();
            groups.len()
        }
    };
    COLORS[place % COLORS.len()]
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Grid, Rasterizer, Series, png};
    use super::*;

    fn chart(marks: Marks, series: Vec<Series>) -> Chart {
        let (x, categories) = match marks {
            Marks::Bars | Marks::Stacked => (Axis::names("point"), vec!["a".to_owned(), "b".to_owned()]),
            _ => (Axis::log("ms"), Vec::new()),
        };
        let (title, caption, y) = ("a < b".to_owned(), String::new(), Axis::linear("share"));
        Chart { id: "test", title, caption, x, y, marks, categories, series, table: Grid::default() }
    }

    #[test]
    fn every_kind_of_chart_is_drawn_and_rasterized() {
        let rasterizer = Rasterizer::new();
        for marks in [Marks::Lines, Marks::Steps, Marks::Dots, Marks::Bars, Marks::Stacked] {
            let points = vec![(0.0, 0.5), (1.0, 1.0), (2.0, f64::NAN)];
            let one = chart(marks, vec![Series::new("s<1", points.clone()), Series::new("two", points)]);
            let text = svg(&one).unwrap();
            assert!(text.contains("a &lt; b") && text.contains("s&lt;1"), "{text}");
            assert!(text.contains("ms") || text.contains("point"), "{text}");
            let image = png(&rasterizer, &one, &text).unwrap();
            assert_eq!(&image[..8], b"\x89PNG\r\n\x1a\n");
            assert!(image.len() > 8_000, "the letters are drawn: {} bytes", image.len());
        }
    }

    #[test]
    fn a_chart_without_points_is_empty_and_still_a_chart() {
        let nothing = chart(Marks::Lines, vec![Series::new("none", vec![(0.0, 1.0), (5.0, f64::NAN)])]);
        assert!(nothing.is_empty(), "0 has no place on a logarithmic axis");
        assert!(svg(&nothing).unwrap().contains("</svg>"));
    }
}
