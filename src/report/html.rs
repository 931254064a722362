//! `report.html`: one file that needs nothing else, to look at.

use std::fmt::Write as _;

use super::table::{Rows, engine_lines, faults, footnotes, warnings};
use super::{PointEntry, Report, SentinelEntry};
use crate::plot::{PlotError, SentinelSeries, itl_cdf_svg, sentinels_svg};

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); white-space: pre-line; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
.bad { color: light-dark(#b00020, #ff7a85); font-weight: 600; }
.doubtful { color: light-dark(#7a5600, #e5b94d); }
figure { margin: 1.5rem 0; }
figure svg { max-width: 100%; height: auto; border-radius: 4px; }
";

/// The whole page.
///
/// # Errors
/// [`PlotError`].
pub(super) fn html(report: &Report) -> Result<String, PlotError> {
    let title = report.plan.as_ref().map_or("bench report", |plan| &plan.name);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        title = escaped(title)
    );
    paragraphs(&mut page, "engine", &engine_lines(report));
    if let Some(started_at) = &report.started_at {
        let _ = writeln!(page, "<p>began {}, bench {}</p>", escaped(started_at), escaped(&report.bench_version));
    }
    if let Some(instrument) = &report.instrument {
        let clock = &instrument.clock;
        let _ = writeln!(
            page,
            "<p>instrument: {} (resolution {} ns, a reading costs {} ns); recorder: {}</p>",
            escaped(&clock.name),
            clock.resolution_ns,
            clock.read_ns,
            escaped(&instrument.wait_strategy)
        );
        paragraphs(&mut page, "note", &instrument.not_permitted);
    }
    grid(&mut page, &Rows::of(report));
    paragraphs(&mut page, "bad", &faults(report));
    paragraphs(&mut page, "doubtful", &warnings(report));
    paragraphs(&mut page, "note", &footnotes(report));
    let sentinels: Vec<SentinelSeries<'_>> = report.sentinels.iter().filter_map(SentinelEntry::series).collect();
    if !sentinels.is_empty() {
        let svg = sentinels_svg(&sentinels)?;
        let _ = writeln!(page, "<h2>Sentinels: the same work through the sweep</h2>\n<figure>\n{svg}</figure>");
    }
    page += "<h2>ITL, cumulative</h2>\n";
    for point in &report.points {
        figure(&mut page, point)?;
    }
    page += "</body>\n</html>\n";
    Ok(page)
}

fn grid(page: &mut String, rows: &Rows) {
    let row = |cells: &[String], tag: &str| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.points.iter().map(|cells| row(cells, "td")).collect();
    let head = row(&rows.headers, "th");
    let _ = write!(
        page,
        "<div class=\"wide\">\n<table>\n<thead>\n{head}</thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    );
}

fn paragraphs(page: &mut String, class: &str, lines: &[String]) {
    for line in lines {
        let _ = writeln!(page, "<p class=\"{class}\">{}</p>", escaped(line));
    }
}

fn figure(page: &mut String, point: &PointEntry) -> Result<(), PlotError> {
    if point.itl_cdf.is_empty() {
        return Ok(());
    }
    let svg = itl_cdf_svg(&[point.curve()])?;
    let label = escaped(&point.identity.point);
    let _ = writeln!(page, "<figure>\n<figcaption>{label}</figcaption>\n{svg}</figure>");
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
