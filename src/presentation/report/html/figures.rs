//! The charts of the page: a figure for each, its numbers in a table, and the data that the script draws from.

use std::fmt::Write as _;

use serde_json::json;

use super::super::Report;
use super::super::charts::{OVER_TIME, Section, label};
use super::escaped;
use crate::presentation::plot::{Chart, Grid};

/// Points that are drawn before a reader picks others.
const DRAWN_AT_FIRST: usize = 8;

/// The link target of a section.
pub(super) fn anchor(section: &Section) -> String {
    section.title.to_lowercase().replace(' ', "-")
}

/// What picks points, and all figures.
pub(super) fn sections(page: &mut String, report: &Report, sections: &[Section]) {
    page.push_str("<noscript><p class=\"doubt\">The charts need JavaScript. Each has its numbers in a table, and is beside this page as SVG and PNG.</p></noscript>\n");
    picker(page, report);
    for section in sections {
        let anchor = anchor(section);
        let title = section.title;
        let _ = writeln!(
            page,
            "<section id=\"{anchor}\" aria-labelledby=\"{anchor}-title\">\n<h2 id=\"{anchor}-title\">{title}</h2>\n<div class=\"charts\">"
        );
        for chart in &section.charts {
            figure(page, chart);
        }
        page.push_str("</div>\n</section>\n");
    }
}

fn picker(page: &mut String, report: &Report) {
    if report.points.len() < 2 {
        return;
    }
    page.push_str("<fieldset id=\"points\">\n<legend>Points drawn in the charts</legend>\n");
    for (place, point) in report.points.iter().enumerate() {
        let label = escaped(&label(point));
        let checked = if place < DRAWN_AT_FIRST { " checked" } else { "" };
        let _ = writeln!(page, "<label><input type=\"checkbox\" value=\"{label}\"{checked}> {label}</label>");
    }
    page.push_str("<div class=\"tools\"><button type=\"button\" data-pick=\"all\">All</button><button type=\"button\" data-pick=\"none\">None</button></div>\n</fieldset>\n");
}

fn figure(page: &mut String, chart: &Chart) {
    let (id, title) = (chart.id, escaped(&chart.title));
    let names: Vec<&str> = chart.series.iter().take(DRAWN_AT_FIRST).map(|series| series.name.as_str()).collect();
    let more = chart.series.len().saturating_sub(DRAWN_AT_FIRST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let spoken = format!(
        "{}. {} against {}, for {}{more}. Its numbers are in the table below.",
        chart.title,
        chart.y.label,
        chart.x.label,
        names.join("; ")
    );
    let _ = write!(
        page,
        "<figure>\n<h3>{title}</h3>\n<div class=\"chart\" id=\"{id}\" role=\"img\" aria-label=\"{}\"></div>\n\
         <div class=\"tools\" role=\"group\" aria-label=\"Zoom: {title}\" hidden>\
         <button type=\"button\" data-zoom=\"0.5\">Zoom in</button><button type=\"button\" data-zoom=\"2\">Zoom out</button>\
         <button type=\"button\" data-zoom=\"0\">Whole</button></div>\n<figcaption>{}</figcaption>\n",
        escaped(&spoken),
        escaped(&chart.caption)
    );
    grid(page, &chart.title, &chart.table);
    page.push_str("</figure>\n");
}

fn grid(page: &mut String, title: &str, grid: &Grid) {
    let title = escaped(title);
    let _ = write!(
        page,
        "<details>\n<summary>Numbers of this chart</summary>\n<div class=\"wide\" role=\"region\" aria-label=\"Numbers: {title}\" tabindex=\"0\">\n\
         <table>\n<caption>{title}</caption>\n<thead>\n<tr>"
    );
    for header in &grid.headers {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escaped(header));
    }
    page.push_str("</tr>\n</thead>\n<tbody>\n");
    for row in &grid.rows {
        page.push_str("<tr>");
        for (place, cell) in row.iter().enumerate() {
            let (open, close) = if place == 0 { ("<th scope=\"row\">", "</th>") } else { ("<td>", "</td>") };
            let _ = write!(page, "{open}{}{close}", escaped(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n</details>\n");
}

/// The block of data. `<` is written as JSON's escape of it, so that nothing in a name can end the block.
pub(super) fn data(page: &mut String, sections: &[Section]) {
    let charts: Vec<serde_json::Value> = sections
        .iter()
        .flat_map(|section| section.charts.iter().map(move |chart| (section.title == OVER_TIME, chart)))
        .map(|(over_time, chart)| {
            let mut chart = json!(chart);
            chart["over_time"] = over_time.into();
            chart
        })
        .collect();
    let text = serde_json::to_string(&charts).unwrap_or_default();
    let text = crate::base::printable::json(&text).replace('<', "\\u003c");
    let _ = writeln!(page, "<script type=\"application/json\" id=\"chart-data\">{text}</script>");
}
