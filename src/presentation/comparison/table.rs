//! A comparison as text.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, presets};

use super::{Comparison, Design, MetricComparison, PointComparison};
use crate::analysis::metrics::Metric;
use crate::base::printable::{json, markdown as markdown_text, printable, printable_lines};
use crate::presentation::report::{TableFormat, csv_text, markdown_lines, markdown_row, number};

/// What the columns are called.
pub(super) const HEADERS: [&str; 7] = ["point", "metric", "A", "B", "change (95 % interval)", "decision", "note"];

/// In a format, ending in a line break.
pub(super) fn render(comparison: &Comparison, format: TableFormat) -> String {
    match format {
        TableFormat::Table => terminal(comparison),
        TableFormat::Md => markdown(comparison),
        TableFormat::Csv => csv(comparison),
        // Strings, numbers and lists: nothing that JSON cannot.
        TableFormat::Json => {
            serde_json::to_string_pretty(comparison).map(|text| json(&text).into_owned() + "\n").unwrap_or_default()
        }
    }
}

/// What was compared, and how much of it is worse.
pub(super) fn headline(comparison: &Comparison) -> Vec<String> {
    let how = match comparison.design {
        Design::RandomPairs => "pairs of runs, in random order",
        Design::SavedResults => "two results that were not interleaved",
    };
    vec![
        format!("A: {}", comparison.a),
        format!("B: {}", comparison.b),
        format!("{how}; a change matters from {} on", percent(comparison.threshold)),
    ]
}

/// What it comes to.
pub(super) fn conclusion(comparison: &Comparison) -> String {
    if comparison.got_worse {
        let worse =
            comparison.points.iter().flat_map(|point| &point.metrics).filter(|metric| metric.is_worse()).count();
        let missed = comparison.points.iter().map(PointComparison::num_newly_missed).sum::<usize>();
        let slower = format!("slower in {worse} of the metrics by more than matters (Holm over all of them)");
        let missed = format!("objectives newly missed: {missed}");
        return format!("B is WORSE: {slower}; {missed}");
    }
    let found = match (comparison.is_decided(), comparison.design) {
        (true, Design::RandomPairs) => "nothing got worse",
        (true, Design::SavedResults) => "no objective is newly missed; differences are not decided",
        (false, Design::SavedResults) if comparison.undecided().is_none() => {
            "A and B stand side by side; differences are not decided"
        }
        (false, _) => "nothing could be decided",
    };
    let whole = if comparison.is_whole() { "" } else { "; INVALID or missing runs are left out" };
    format!("{found}{whole}")
}

/// A row for each metric of each point.
pub(super) fn rows(comparison: &Comparison) -> Vec<[String; 7]> {
    let of_point = |point: &PointComparison| {
        let name = match point.point_a == point.point_b {
            true => format!("{} {}", point.name, point.point_a),
            false => format!("{} {} / {}", point.name, point.point_a, point.point_b),
        };
        let metrics = point.metrics.iter().map(|metric| row(name.clone(), point, metric)).collect::<Vec<_>>();
        let slo = point.objectives().map(|(a, b, is_newly_missed)| {
            let met = |met: Option<bool>| match met {
                Some(true) => "kept",
                Some(false) => "missed",
                None => "not measured",
            };
            let decision = if is_newly_missed { "newly missed" } else { met(b.met) };
            let of = |value, is_met| format!("{} ({})", number(value), met(is_met));
            let (a_cell, b_cell) = (of(a.value, a.met), of(b.value, b.met));
            let is_lower_bound = Metric::named(&a.metric).is_some_and(Metric::higher_is_better);
            let metric = format!("{} {} {}", a.metric, if is_lower_bound { "at least" } else { "at most" }, a.bound);
            [name.clone(), metric, a_cell, b_cell, String::new(), decision.to_owned(), String::new()]
        });
        metrics.into_iter().chain(slo.collect::<Vec<_>>())
    };
    comparison.points.iter().flat_map(of_point).collect()
}

fn row(name: String, point: &PointComparison, metric: &MetricComparison) -> [String; 7] {
    let change = match (metric.ratio, metric.low, metric.high) {
        (Some(ratio), Some(low), Some(high)) => {
            format!("{} ({} .. {})", signed(ratio), signed(low), signed(high))
        }
        (Some(ratio), ..) => signed(ratio),
        (None, ..) => "-".to_owned(),
    };
    let mut notes: Vec<String> = metric.note.clone().into_iter().collect();
    if metric.is_equivalent && metric.decision != super::Decision::Equivalent {
        notes.push("within what matters".to_owned());
    }
    if metric.decision == super::Decision::NoDifference {
        notes.extend(metric.detectable.map(|effect| format!("{} would be seen in 80 % of the cases", percent(effect))));
    }
    if point.pairs_left_out > 0 {
        notes.push(format!("{} pairs left out", point.pairs_left_out));
    }
    let decision = match metric.decision {
        super::Decision::Slower if metric.p_holm.is_some_and(|p| p > super::LEVEL) => {
            format!("{} (alone; not after Holm)", metric.decision.as_str())
        }
        decision => decision.as_str().to_owned(),
    };
    [name, metric.metric.clone(), number(metric.a), number(metric.b), change, decision, notes.join("; ")]
}

fn signed(ratio: f64) -> String {
    format!("{:+.2} %", (ratio - 1.0) * 100.0)
}

fn percent(share: f64) -> String {
    format!("{:.3}", share * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned() + " %"
}

fn terminal(comparison: &Comparison) -> String {
    let mut grid = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    grid.load_style(style).set_content_arrangement(ContentArrangement::Disabled).set_header(HEADERS);
    let mut before = String::new();
    for mut row in rows(comparison) {
        // The name of a point once.
        if row[0] == before {
            row[0] = String::new();
        } else {
            before.clone_from(&row[0]);
        }
        grid.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in grid.column_iter_mut().skip(2).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = printable_lines(&headline(comparison).join("\n")).into_owned();
    let _ = writeln!(out, "\n{grid}");
    for remark in comparison.remarks.iter().chain([&conclusion(comparison)]) {
        let _ = writeln!(out, "{}", printable_lines(remark));
    }
    out
}

fn markdown(comparison: &Comparison) -> String {
    let mut out = markdown_lines(&headline(comparison)) + "\n\n" + &markdown_row(&HEADERS.map(str::to_owned));
    out += "| --- | --- | ---: | ---: | ---: | --- | --- |\n";
    for row in rows(comparison) {
        out += &markdown_row(&row);
    }
    out.push('\n');
    for remark in comparison.remarks.iter().chain([&conclusion(comparison)]) {
        let _ = writeln!(out, "- {}", markdown_text(remark));
    }
    out
}

fn csv(comparison: &Comparison) -> String {
    let mut out = ::csv::Writer::from_writer(Vec::new());
    let names = [
        "name",
        "point_a",
        "point_b",
        "pairs",
        "metric",
        "a",
        "b",
        "ratio",
        "low",
        "high",
        "p",
        "p_holm",
        "p_fdr",
        "detectable",
        "decision",
        "is_equivalent",
    ];
    // Writing to memory fails only for rows of unequal lengths.
    let _ = out.write_record(names);
    for point in &comparison.points {
        for metric in &point.metrics {
            let numbers = [metric.a, metric.b, metric.ratio, metric.low, metric.high, metric.p, metric.p_holm];
            let more = [metric.p_fdr, metric.detectable];
            let shown = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
            let mut row = [&point.name, &point.point_a, &point.point_b].map(|text| csv_text(text)).to_vec();
            row.extend([point.pairs.to_string(), metric.metric.clone()]);
            row.extend(numbers.into_iter().chain(more).map(shown));
            row.extend([metric.decision.as_str().to_owned(), metric.is_equivalent.to_string()]);
            let _ = out.write_record(row);
        }
    }
    out.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}
