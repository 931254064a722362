//! The table at the end of a command: a row per point.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, presets};

use super::charts::label;
use super::point::{MEAN_OF_RATES, NO_SUCH_NUMBER};
use super::uncertainty::in_flight;
use super::units::{bound, number, number_within, time_unit};
use super::{HiccupsEntry, NsSpread, PointEntry, Report, ResetCheckEntry, RunEntry, SentinelEntry};
use crate::analysis::conditions::WindowTelemetry;
use crate::analysis::metrics::{Metric, Series, Statistic, Total};
use crate::analysis::verdict::Status;
use crate::base::printable::{json, markdown as markdown_text, printable, printable_lines, spreadsheet_cell};

/// How a report is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TableFormat {
    /// For a terminal.
    #[default]
    Table,
    /// A Markdown table.
    Md,
    /// A row per point, all metrics, in seconds and tokens per second.
    Csv,
    /// The whole report.
    Json,
}

/// Headers, and a row of cells per point.
pub(super) struct Rows {
    pub headers: Vec<String>,
    pub points: Vec<Vec<String>>,
}

/// The report in a format, ending in a line break. `colored` puts escape sequences into [`TableFormat::Table`] only.
pub fn table(report: &Report, format: TableFormat, colored: bool) -> String {
    match format {
        TableFormat::Table => terminal(report, colored),
        TableFormat::Md => markdown(report),
        TableFormat::Csv => csv(report),
        // A report holds strings, numbers and maps with text keys: nothing that JSON cannot.
        TableFormat::Json => {
            serde_json::to_string_pretty(report).map(|text| json(&text).into_owned() + "\n").unwrap_or_default()
        }
    }
}

fn terminal(report: &Report, colored: bool) -> String {
    let rows = Rows::of(report);
    let mut grid = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    grid.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
    grid.set_header(&rows.headers);
    for row in &rows.points {
        grid.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in grid.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = printable_lines(&engine_lines(report).join("\n")).into_owned();
    let _ = writeln!(out, "\n{grid}");
    let paint = |style: Style, text: &str| match colored {
        true => format!("{style}{}{style:#}", printable_lines(text)),
        false => printable_lines(text).into_owned(),
    };
    let bad = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let doubtful = Style::new().fg_color(Some(AnsiColor::Yellow.into()));
    for line in faults(report) {
        let _ = writeln!(out, "{}", paint(bad, &line));
    }
    for line in warnings(report) {
        let _ = writeln!(out, "{}", paint(doubtful, &line));
    }
    for line in footnotes(report) {
        let _ = writeln!(out, "{}", printable_lines(&line));
    }
    out
}

fn markdown(report: &Report) -> String {
    let rows = Rows::of(report);
    let mut out = markdown_lines(&engine_lines(report)) + "\n\n" + &markdown_row(&rows.headers);
    let rules: Vec<String> =
        (0..rows.headers.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned()).collect();
    out += &markdown_row(&rules);
    for row in &rows.points {
        out += &markdown_row(row);
    }
    let remarks: Vec<String> = faults(report).into_iter().chain(warnings(report)).chain(footnotes(report)).collect();
    if !remarks.is_empty() {
        out.push('\n');
    }
    for remark in remarks {
        let _ = writeln!(out, "- {}", markdown_text(&remark));
    }
    out
}

/// A row of a Markdown table. Line ends in a cell, as headers have them, become spaces.
pub(crate) fn markdown_row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| markdown_text(&cell.replace('\n', " ")).into_owned()).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Lines of one paragraph in Markdown.
pub(crate) fn markdown_lines(lines: &[String]) -> String {
    lines.iter().map(|line| markdown_text(line)).collect::<Vec<_>>().join("  \n")
}

fn csv(report: &Report) -> String {
    let mut out = ::csv::Writer::from_writer(Vec::new());
    let metrics: Vec<String> = Metric::all().map(Metric::name).collect();
    let names = ["name", "point", "engine", "device", "model", "runs", "valid"].map(str::to_owned);
    let transport = ["transport_p50_ns", "transport_p99_ns", "transport_max_ns"].map(str::to_owned);
    // Writing to memory fails only for rows of unequal lengths.
    let _ = out.write_record(names.iter().chain(&metrics).chain(&transport));
    for point in &report.points {
        let identity = &point.identity;
        let mut row = vec![
            csv_text(&identity.name),
            csv_text(&identity.point),
            csv_text(&identity.engine),
            identity.device.map_or_else(String::new, |device| device.to_string()),
            csv_text(identity.model.as_deref().unwrap_or_default()),
            point.num_runs.to_string(),
            point.num_valid.to_string(),
        ];
        row.extend(point.values.0.iter().map(|(_, value)| value.map_or_else(String::new, |value| value.to_string())));
        let times = point.transport_ns.map(|times| [Some(times.p50), times.p99, Some(times.max)]);
        row.extend(times.unwrap_or_default().map(|ns| ns.map_or_else(String::new, |ns| ns.to_string())));
        let _ = out.write_record(row);
    }
    out.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// A text as a cell of a CSV table.
pub(crate) fn csv_text(text: &str) -> String {
    spreadsheet_cell(&printable(text)).into_owned()
}

impl Rows {
    /// The cells that a person reads.
    pub fn of(report: &Report) -> Rows {
        let mut headers = vec!["point".to_owned()];
        let mut points: Vec<Vec<String>> = report.points.iter().map(|point| vec![label(point)]).collect();
        let engines = engine_differences(report);
        let mut add = |header: String, cell: &dyn Fn(&PointEntry) -> String| {
            headers.push(header);
            for (row, point) in points.iter_mut().zip(&report.points) {
                row.push(cell(point));
            }
        };
        if !engines.is_empty() {
            add("engine".to_owned(), &|point| engines.get(&point.identity.engine_line()).cloned().unwrap_or_default());
        }
        // Not the rates per request: of a mean of rates a single burst can make a thousandfold.
        for (title, series) in [("TTFT", Series::Ttft), ("ITL", Series::Itl), ("TPOT", Series::TimePerOutputToken)] {
            let medians = report.points.iter().filter_map(|point| shown(point, series)[1]);
            let unit = time_unit(medians);
            add(format!("{title} {}\navg/p50/p99 {PLUS_MINUS}", unit.name), &|point| cell(point, series, unit.size_s));
        }
        add(format!("output\ntok/s {PLUS_MINUS}"), &|point| {
            let metric = Metric::Total(Total::OutputTokens);
            let error = point.instrument_error.get(metric);
            with_bound(number_within(point.values.get(metric), error), error)
        });
        add("hit rate %\ndesign/got".to_owned(), &|point| {
            let rates = [Total::PrefixHitRateExpected, Total::PrefixHitRateMeasured];
            joined(rates.map(|rate| point.values.get(Metric::Total(rate)).map(|share| share * 100.0)))
        });
        let transport_s = |ns: i64| ns as f64 * 1e-9;
        let medians = report.points.iter().filter_map(|point| point.transport_ns).map(|times| transport_s(times.p50));
        let unit = time_unit(medians);
        let unit_name = if report.points.iter().any(|point| point.transport_ns.is_some()) { unit.name } else { "ns" };
        add(format!("transport {unit_name}\np50/p99"), &|point| {
            let times = point.transport_ns;
            let shown = [times.map(|times| times.p50), times.and_then(|times| times.p99)];
            joined(shown.map(|ns| ns.map(|ns| transport_s(ns) / unit.size_s)))
        });
        add("verdict".to_owned(), &verdict);
        Rows { headers, points }
    }
}

fn shown(point: &PointEntry, series: Series) -> [Option<f64>; 3] {
    [Statistic::ALL[0], Statistic::ALL[1], Statistic::ALL[3]]
        .map(|statistic| point.values.get(Metric::Of(series, statistic)))
}

/// Between a number and the bound of its error by the instrument.
const PLUS_MINUS: &str = "±";

/// In place of the bound of a cell of which a number has none.
const UNKNOWN_BOUND: &str = "±?";

/// Average, median and p99 of a series in a unit, with the bound of their errors by the instrument.
fn cell(point: &PointEntry, series: Series, unit_size: f64) -> String {
    let metrics =
        [Statistic::ALL[0], Statistic::ALL[1], Statistic::ALL[3]].map(|statistic| Metric::Of(series, statistic));
    let values = metrics.map(|metric| point.values.get(metric).map(|value| value / unit_size));
    let bounds = metrics.map(|metric| point.instrument_error.get(metric).map(|error| error / unit_size));
    with_one_bound(values, bounds)
}

/// Numbers with one bound for all of them: the largest, and an unknown one if that of any shown number is not known.
fn with_one_bound(values: [Option<f64>; 3], bounds: [Option<f64>; 3]) -> String {
    let largest = bounds.into_iter().flatten().max_by(f64::total_cmp);
    let shown = values.map(|value| number_within(value, largest)).join("/");
    let has_no_bound = values.iter().zip(bounds).any(|(value, bound)| value.is_some() && bound.is_none());
    match largest {
        Some(_) if has_no_bound => format!("{shown} {UNKNOWN_BOUND}"),
        largest => with_bound(shown, largest),
    }
}

fn with_bound(shown: String, error: Option<f64>) -> String {
    error.map_or_else(|| shown.clone(), |error| format!("{shown} {PLUS_MINUS}{}", bound(error)))
}

fn joined<const N: usize>(values: [Option<f64>; N]) -> String {
    values.map(number).join("/")
}

/// The verdict of a point whose valid runs have no numbers in common.
const ENGINES_DIFFER: &str = "ENGINES DIFFER";

/// `valid 5/5`; what is not valid is written large.
pub(super) fn verdict(point: &PointEntry) -> String {
    let runs = point.num_runs + point.num_missing + point.num_damaged;
    let others = [
        (point.num_invalid, "INVALID"),
        (point.num_failed_runs, "FAILED"),
        (point.num_skipped, "SKIPPED"),
        (point.num_missing, "MISSING"),
        (point.num_damaged, "DAMAGED"),
    ];
    let mut bad: Vec<String> =
        others.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{name} {count}/{runs}")).collect();
    bad.extend(point.different_engines.as_ref().map(|_| ENGINES_DIFFER.to_owned()));
    if bad.is_empty() { format!("valid {}/{runs}", point.num_valid) } else { bad.join(", ") }
}

/// A line per engine that took part, in the order of execution.
pub(super) fn engine_lines(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let kinds = device_kinds(report);
    for point in &report.points {
        let kind = kinds.get(point.identity.point.as_str()).map(|kind| format!("on: {kind}"));
        let weights = point.weights.as_ref().map(|weights| format!("weights: {}", weights.in_words()));
        let line: Vec<String> = [Some(point.identity.engine_line()), kind, weights].into_iter().flatten().collect();
        let line = line.join(" | ");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        lines.push("no run has ended yet".to_owned());
    }
    lines
}

/// The accelerator's name, as the engine of each point gave it.
fn device_kinds(report: &Report) -> BTreeMap<&str, &str> {
    let named = report.runs.iter().filter_map(|run| {
        Some((run.identity.point.as_str(), run.engine_facts.as_ref()?.other.get("device_kind")?.as_str()?))
    });
    named.collect()
}

/// Of each engine's line the parts that not all engines have; none where all are alike.
fn engine_differences(report: &Report) -> BTreeMap<String, String> {
    let lines: BTreeSet<String> = report.points.iter().map(|point| point.identity.engine_line()).collect();
    if lines.len() < 2 {
        return BTreeMap::new();
    }
    let parts = lines.iter().map(|line| line.split(" | ").collect::<BTreeSet<_>>());
    let shared = parts.reduce(|shared, of_one| &shared & &of_one).unwrap_or_default();
    let own = |line: &String| line.split(" | ").filter(|part| !shared.contains(part)).collect::<Vec<_>>().join(" | ");
    lines.iter().map(|line| (line.clone(), own(line))).collect()
}

/// A line per run that is missing or damaged, per reason of one that is not valid, per point whose runs have different engines,
/// and per objective that a point misses or that cannot be judged.
pub(super) fn faults(report: &Report) -> Vec<String> {
    let mut lines = report.gaps();
    for run in report.runs.iter().filter(|run| run.status != Status::Valid) {
        for reason in &run.reasons {
            let (status, point) = (run.status.as_str().to_uppercase(), &run.identity.point);
            lines.push(format!("{status} {point} repeat {}: {reason}", run.repeat));
        }
    }
    for point in &report.points {
        let label = &point.identity.point;
        lines.extend(
            point.different_engines.iter().map(|differences| format!("{ENGINES_DIFFER} {label}: {differences}")),
        );
        lines.extend(point.unjudged_objectives().map(|objective| {
            let why = point.unjudged_because(objective);
            format!("objective not judged: {label} {} has no value: {why}", objective.metric)
        }));
        for missed in point.slo.iter().filter(|objective| objective.met == Some(false)) {
            let (name, value) = (&missed.metric, number(missed.value));
            lines.push(format!("objective missed: {label} {name} is {value}, its bound {}", missed.bound));
        }
    }
    lines.extend(report.reset_checks.iter().flat_map(ResetCheckEntry::faults));
    lines
}

/// The warnings of all points, each once, with the points that share it, and those of the sentinels.
pub(super) fn warnings(report: &Report) -> Vec<String> {
    let mut shared: Vec<(&String, Vec<&str>)> = Vec::new();
    for point in &report.points {
        // A fault, and no warning.
        for warning in point.warnings.iter().filter(|warning| Some(*warning) != point.different_engines.as_ref()) {
            match shared.iter_mut().find(|(known, _)| *known == warning) {
                Some((_, points)) => points.push(&point.identity.point),
                None => shared.push((warning, vec![&point.identity.point])),
            }
        }
    }
    let all = report.points.len();
    let line = |(warning, points): (&String, Vec<&str>)| {
        let place = if points.len() == all && all > 1 { "all points".to_owned() } else { points.join(", ") };
        format!("warning: {place}: {warning}")
    };
    let of_sentinels = report.sentinels.iter().filter_map(SentinelEntry::warning);
    shared.into_iter().map(line).chain(of_sentinels.map(|warning| format!("warning: {warning}"))).collect()
}

/// What the dashes in the table mean, and how much of the ITL is the instrument's.
pub(super) fn footnotes(report: &Report) -> Vec<String> {
    let withheld = |point: &PointEntry| {
        point.notes.values().any(|note| note.0.starts_with("too few samples"))
            || point.transport_ns.is_some_and(|times| times.p99.is_none())
    };
    let mut lines = Vec::new();
    if report.points.iter().any(withheld) {
        lines.push("-: a percentile of too few samples is not shown (p99 takes 299 over a point's runs)".to_owned());
    }
    let is_known = |point: &PointEntry| point.instrument_error.get(Metric::Total(Total::Elapsed)).is_some();
    if report.points.iter().any(is_known) {
        lines.push(format!(
            "{PLUS_MINUS}: timing error of the instrument (not run-to-run spread), from {} and the stamps of the runs; differences \
             below it are under the instrument's resolution",
            known_answers(report)
        ));
    }
    if Rows::of(report).points.iter().flatten().any(|cell| cell.ends_with(UNKNOWN_BOUND)) {
        lines.push(format!("{UNKNOWN_BOUND}: the timing error of at least one of these numbers is unknown"));
    }
    lines.extend(report.points.iter().flat_map(notes_on_rates));
    lines.extend(report.points.iter().filter_map(asked_hit_rate));
    lines.extend(scaled_workloads(report));
    lines.extend(marked_itls(report));
    lines.extend(stamp_bounds(report));
    lines.extend(telemetry_sources(report));
    lines.extend(report.reset_checks.iter().filter_map(ResetCheckEntry::footnote));
    lines.extend(engine_processes(report));
    lines.extend(report.unsealed());
    lines
}

/// Which known answers the bounds come from.
fn known_answers(report: &Report) -> &'static str {
    let budget = report.ruler().budget;
    let is_watched = |run: &RunEntry| budget.is_some_and(|budget| budget.is_watched(in_flight(&run.asked)));
    match report.runs.iter().all(is_watched) {
        true => "the known answers on this machine that the recorder watched for",
        false => "all known answers on this machine, stalls of the calibration included,",
    }
}

/// What has to be said of a point's rates: why the table has none, and which mean of rates a few requests make.
fn notes_on_rates(point: &PointEntry) -> Vec<String> {
    let rates = [Metric::Total(Total::OutputTokens), Metric::Of(Series::Tpot, Statistic::Average)];
    let said = rates.into_iter().filter_map(|metric| {
        let note = &point.notes.get(&metric.name())?.0;
        let is_said = note.contains(MEAN_OF_RATES) || note.contains(NO_SUCH_NUMBER);
        is_said.then(|| format!("{}: `{}`: {note}", point.identity.point, metric.name()))
    });
    said.collect()
}

/// Engines that an earlier command had loaded, and those whose process was not forked: a line for each, by epoch.
fn engine_processes(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let mut seen = Vec::new();
    for run in &report.runs {
        let (Some(epoch), Some(facts)) = (run.identity.epoch, &run.engine_facts) else { continue };
        if seen.contains(&epoch) {
            continue;
        }
        seen.push(epoch);
        if let Some(age_s) = facts.other.get("reused").and_then(|reused| reused["age_s"].as_f64()) {
            lines.push(format!(
                "engine {}: reused, an earlier command had loaded it {} s before",
                epoch + 1,
                number(Some(age_s))
            ));
        }
        let text = |name: &str| facts.other.get(name).and_then(|value| value.as_str());
        if let (Some("fresh"), Some(why)) = (text("process"), text("process_reason")) {
            lines.push(format!("engine {}: in a fresh process, not forked: {why}", epoch + 1));
        }
    }
    lines
}

/// Which sources the machine was sampled from, and which are not there: a line for each set of them.
fn telemetry_sources(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for telemetry in report.runs.iter().filter_map(|run| run.telemetry.as_ref()) {
        let WindowTelemetry { rate_hz, sources, missing, .. } = telemetry;
        let list = |parts: &[String]| if parts.is_empty() { "none".to_owned() } else { parts.join(", ") };
        let line = format!("telemetry at {rate_hz} Hz: {}; not there: {}", list(sources), list(missing));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// What was asked of a point whose hit rate whole blocks give only nearly.
fn asked_hit_rate(point: &PointEntry) -> Option<String> {
    let asked = point.identity.prefix_hit_rate_asked?;
    let expected = point.values.get(Metric::Total(Total::PrefixHitRateExpected))?;
    let percent = |share: f64| number(Some(share * 100.0));
    (asked != expected).then(|| {
        format!(
            "{}: a hit rate of {} % was asked, and whole blocks of the cache give {} %",
            point.identity.point,
            percent(asked),
            percent(expected)
        )
    })
}

/// The factors by which the lengths of workloads were multiplied.
fn scaled_workloads(report: &Report) -> Option<String> {
    let mut scaled: Vec<String> = Vec::new();
    for point in &report.points {
        let identity = &point.identity;
        if let (Some(workload), Some(scale)) = (&identity.workload, &identity.workload_scale) {
            let line = format!("{workload} x {scale}");
            if scale != "1/1" && !scaled.contains(&line) {
                scaled.push(line);
            }
        }
    }
    (!scaled.is_empty()).then(|| format!("lengths are not the named workloads' own, but scaled: {}", scaled.join(", ")))
}

/// How much earlier than their stamps tokens may have been visible: the worst of the points. `None` if one does not know.
fn stamp_bounds(report: &Report) -> Option<String> {
    let shown = report.points.iter().filter(|point| point.num_valid > 0);
    let gaps: Vec<NsSpread> = shown.map(|point| point.poll_gap_ns).collect::<Option<_>>()?;
    let us = |ns: i64| number(Some(ns as f64 * 1e-3));
    let all_us = us(gaps.iter().map(|gap| gap.max).max()?);
    let most: Option<Vec<i64>> = gaps.iter().map(|gap| gap.p99).collect();
    let most = most.and_then(|most_ns| most_ns.into_iter().max()).map(us);
    let most = most.map_or_else(String::new, |most_us| format!(", 99 % of a point's within {most_us} us"));
    Some(format!("stamps: every token within {all_us} us of becoming visible{most}"))
}

/// How many ITLs have a hiccup in them; `None` if none has.
fn marked_itls(report: &Report) -> Option<String> {
    let points: Vec<&HiccupsEntry> = report.points.iter().filter_map(|point| point.hiccups.as_ref()).collect();
    let known: Vec<&HiccupsEntry> = points.into_iter().filter(|entry| entry.itl_marked.is_some()).collect();
    let sum = |count: fn(&HiccupsEntry) -> Option<u64>| known.iter().filter_map(|entry| count(entry)).sum::<u64>();
    let (marked, all) = (sum(|entry| entry.itl_marked), sum(|entry| Some(entry.itl_count)));
    if marked == 0 {
        return None;
    }
    let percent = |part: u64, whole: u64| number(Some(part as f64 / whole as f64 * 100.0));
    let mut line = format!("hiccups: {marked} of {all} ITLs ({} %) have one in them", percent(marked, all));
    let (slow, slow_marked) = (sum(|entry| entry.itl_above_p99), sum(|entry| entry.itl_above_p99_marked));
    if slow > 0 {
        line += &format!(", and {slow_marked} of the {slow} above the p99 ({} %)", percent(slow_marked, slow));
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_of_a_cell_without_a_bound_leaves_the_cell_without_one() {
        let known = [Some(1.0), Some(2.0), Some(3.0)];
        assert_eq!(with_one_bound(known, [Some(0.04), Some(0.2), Some(0.1)]), "1.0/2.0/3.0 ±0.2");
        assert_eq!(with_one_bound([Some(333_866.0), Some(50.0), None], [None, Some(0.04), None]), "333866/50.0/- ±?");
        assert_eq!(with_one_bound([Some(1.0), Some(2.0), None], [Some(0.04), Some(0.2), None]), "1.0/2.0/- ±0.2");
        assert_eq!(with_one_bound(known, [None; 3]), "1.00/2.00/3.00");
    }
}
