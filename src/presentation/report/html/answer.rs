//! The answer: a row for each point, each number with its error and its interval.

use std::fmt::Write as _;

use super::super::charts::label;
use super::super::table::verdict;
use super::super::units::{Unit, bound, number_within, time_unit};
use super::super::{PointEntry, Report};
use super::escaped;
use crate::analysis::metrics::Metric;

/// Columns of the table: the group's title, the metric, and what it is called within the group.
const COLUMNS: [(&str, &str, &str); 8] = [
    ("TTFT", "p50_ttft_s", "median"),
    ("TTFT", "p99_ttft_s", "99 %"),
    ("ITL", "avg_itl_s", "mean"),
    ("ITL", "p99_itl_s", "99 %"),
    ("TPOT", "p50_time_per_output_token_s", "median"),
    ("output, tokens/s", "output_tokens_per_s", "whole window"),
    ("hit rate, %", "prefix_hit_rate_expected", "design"),
    ("hit rate, %", "prefix_hit_rate_measured", "engine"),
];

/// A column with the unit that its numbers are shown in.
struct Column {
    metric: Metric,
    name: &'static str,
    title: String,
    unit_size: f64,
}

/// The section with the table.
pub(super) fn section(page: &mut String, report: &Report) {
    page.push_str(
        "<section id=\"answer\" aria-labelledby=\"answer-title\">\n<h2 id=\"answer-title\">The answer</h2>\n",
    );
    page.push_str("<div class=\"wide\" role=\"region\" aria-labelledby=\"answer-title\" tabindex=\"0\">\n<table>\n");
    page.push_str(
        "<caption>A row for each point, over its valid runs. ±: timing error of the instrument. Below it the 95 % \
         interval over runs, where there is one.</caption>\n",
    );
    let columns = columns(report);
    head(page, &columns);
    page.push_str("<tbody>\n");
    for (place, point) in report.points.iter().enumerate() {
        row(page, &columns, place, point);
    }
    page.push_str("</tbody>\n</table>\n</div>\n</section>\n");
}

fn columns(report: &Report) -> Vec<Column> {
    let column = |(group, name, title): (&str, &'static str, &str)| {
        let metric = Metric::named(name)?;
        let Unit { name: unit, size_s } = unit(report, group);
        let (unit_size, group) = match group {
            "TTFT" | "ITL" | "TPOT" => (size_s, format!("{group}, {unit}")),
            "hit rate, %" => (0.01, group.to_owned()),
            _ => (1.0, group.to_owned()),
        };
        Some((group, Column { metric, name, title: title.to_owned(), unit_size }))
    };
    COLUMNS
        .into_iter()
        .filter_map(column)
        .map(|(group, mut column)| {
            column.title = format!("{group}\n{}", column.title);
            column
        })
        .collect()
}

/// The unit that a group of latencies shares.
fn unit(report: &Report, group: &str) -> Unit {
    let of_group = COLUMNS.iter().filter(|column| column.0 == group).filter_map(|column| Metric::named(column.1));
    let values: Vec<f64> =
        of_group.flat_map(|metric| report.points.iter().filter_map(move |point| point.values.get(metric))).collect();
    time_unit(values)
}

fn head(page: &mut String, columns: &[Column]) {
    let titles: Vec<(&str, &str)> = columns.iter().filter_map(|column| column.title.split_once('\n')).collect();
    page.push_str("<thead>\n<tr><th scope=\"col\" rowspan=\"2\">point</th>");
    for group in titles.chunk_by(|a, b| a.0 == b.0) {
        let _ = write!(page, "<th scope=\"colgroup\" colspan=\"{}\">{}</th>", group.len(), escaped(group[0].0));
    }
    page.push_str("<th scope=\"col\" rowspan=\"2\">verdict</th></tr>\n<tr>");
    for (_, title) in titles {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escaped(title));
    }
    page.push_str("</tr>\n</thead>\n");
}

fn row(page: &mut String, columns: &[Column], place: usize, point: &PointEntry) {
    let _ = write!(page, "<tr><th scope=\"row\">{}</th>", escaped(&label(point)));
    for column in columns {
        cell(page, column, place, point);
    }
    let words = verdict(point);
    let class = if words.starts_with("valid") { "good" } else { "bad" };
    let _ = writeln!(page, "<td class=\"words {class}\">{}</td></tr>", escaped(&words));
}

/// A number with its whole value for programs, its error, and its interval.
fn cell(page: &mut String, column: &Column, place: usize, point: &PointEntry) {
    let Column { metric, name, unit_size, .. } = column;
    let Some(value) = point.values.get(*metric) else {
        let note = point.notes.get(*name).map_or("not measured", |note| &note.0);
        let _ = write!(page, "<td>-<small>{}</small></td>", escaped(note));
        return;
    };
    let error = point.instrument_error.get(*metric).map(|error| error / unit_size);
    let shown = |value: f64| number_within(Some(value / unit_size), error);
    let _ = write!(
        page,
        "<td class=\"number\"><data data-point=\"{place}\" data-metric=\"{name}\" value=\"{value}\">{}</data>",
        shown(value)
    );
    if let Some(error) = error {
        let _ = write!(page, " ±{}", bound(error));
    }
    let interval = point.intervals.get(*name).copied().flatten();
    if let Some(interval) = interval.filter(|interval| interval.low.is_some() || interval.high.is_some()) {
        let end = |value: Option<f64>| value.map_or("open".to_owned(), shown);
        let _ = write!(page, "<small>{} to {}</small>", end(interval.low), end(interval.high));
    }
    page.push_str("</td>");
}
