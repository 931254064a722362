//! `report.html`: one file that needs nothing else, to look at.
//!
//! What the first screen says stands in the page as text and tables; scripts only draw the charts, each of which has its
//! numbers in a table beside it.

mod answer;
mod figures;
mod slowest;

use std::fmt::Write as _;

use super::charts::Section;
use super::table::{engine_lines, faults, footnotes, warnings};
use super::{PointEntry, Report};
use crate::analysis::verdict::Status;
use crate::base::printable::printable_lines;
use crate::statistics::FEW_RUNS;

/// How pages look.
pub(crate) const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const LIBRARY: &str = include_str!("../../../../third_party/echarts/echarts.common.min.js");

/// Nothing is loaded from anywhere: the browser itself would refuse it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:";

/// The whole page.
pub(super) fn html(report: &Report, sections: &[Section]) -> String {
    let title = escaped(report.plan.as_ref().map_or("bench report", |plan| &plan.name));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#answer\">To the numbers</a>\n<main>\n\
         <header>\n<h1>{title}</h1>\n"
    );
    verdict(&mut page, report);
    measured(&mut page, report);
    page += "</header>\n";
    answer::section(&mut page, report);
    doubts(&mut page, report);
    contents(&mut page, sections);
    slowest::section(&mut page, report);
    figures::sections(&mut page, report, sections);
    page += "</main>\n<span id=\"ink\" hidden></span>\n";
    figures::data(&mut page, sections);
    let _ = write!(page, "<script>{LIBRARY}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

/// One sentence on whether the numbers are those that were asked for.
fn verdict(page: &mut String, report: &Report) {
    let runs = report.runs.len();
    let with = |status| report.runs.iter().filter(|run| run.status == status).count();
    let (valid, others) = (with(Status::Valid), [Status::Invalid, Status::Failed, Status::Skipped]);
    let missed =
        report.points.iter().flat_map(|point| &point.slo).filter(|objective| objective.met == Some(false)).count();
    let gaps = [(report.num_missing(), "missing"), (report.damaged.len() as u64, "damaged")];
    let gaps: Vec<String> =
        gaps.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let (class, mut words) = if !gaps.is_empty() {
        let planned = report.coverage.as_ref().map_or(0, |coverage| coverage.planned);
        let words = format!("INCOMPLETE: of {planned} planned runs {}; {valid} are valid.", gaps.join(", "));
        ("bad", words)
    } else if runs == 0 {
        ("doubt", "No run has ended yet.".to_owned())
    } else if valid == runs {
        ("good", format!("VALID: all {runs} runs delivered what was asked of them."))
    } else {
        let parts = others.into_iter().filter(|status| with(*status) > 0);
        let parts: Vec<String> = parts.map(|status| format!("{} {}", with(status), status.as_str())).collect();
        let words = format!("INVALID: of {runs} runs {}. They are left out of the numbers below.", parts.join(", "));
        ("bad", words)
    };
    let differ = report.points.iter().filter(|point| point.different_engines.is_some()).count();
    let unjudged = report.points.iter().map(|point| point.unjudged_objectives().count()).sum::<usize>();
    let more = [
        (differ, "points have runs of different engines, and no numbers"),
        (unjudged, "objectives are not judged"),
        (missed, "objectives are missed"),
    ];
    for (count, what) in more.iter().filter(|(count, _)| *count > 0) {
        let _ = write!(words, " {count} {what}.");
    }
    let class = if class == "good" && differ + unjudged > 0 { "bad" } else { class };
    let _ = writeln!(page, "<p class=\"verdict {class}\" id=\"verdict\">{}</p>", escaped(&words));
}

/// What was measured, on what, with what.
fn measured(page: &mut String, report: &Report) {
    page.push_str("<dl class=\"facts\">\n");
    let mut fact = |name: &str, text: &str| {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(text));
    };
    for line in engine_lines(report) {
        fact("measured", line.strip_prefix("engine: ").unwrap_or(&line));
    }
    let host = |name: &str| report.environment.pointer(&format!("/host/{name}")).and_then(serde_json::Value::as_str);
    let machine: Vec<&str> = ["cpu_model", "cpu", "hostname", "name", "kernel"].into_iter().filter_map(host).collect();
    if !machine.is_empty() {
        fact("on", &machine.join(", "));
    }
    if let Some(started_at) = &report.started_at {
        fact("began", &format!("{started_at}, bench {}", report.bench_version));
    }
    if let Some(instrument) = &report.instrument {
        let clock = &instrument.clock;
        let text = format!(
            "{} (resolution {} ns, a reading costs {} ns); recorder: {}",
            clock.name, clock.resolution_ns, clock.read_ns, instrument.wait_strategy
        );
        fact("instrument", &text);
    }
    page.push_str("</dl>\n");
}

/// What not to trust, the worst first.
fn doubts(page: &mut String, report: &Report) {
    let mut lines: Vec<(&str, String)> = faults(report).into_iter().map(|line| ("bad", line)).collect();
    lines.extend(warnings(report).into_iter().map(|line| ("doubt", line)));
    lines.extend(few_runs(report).into_iter().map(|line| ("doubt", line)));
    let instrument = report.instrument.as_ref();
    lines.extend(instrument.iter().flat_map(|it| &it.not_permitted).map(|line| ("doubt", line.clone())));
    if instrument.is_some_and(|it| it.error_budget.is_none()) {
        let line = "the instrument's own error was not measured, so that no number has its ±: see `bench calibrate`";
        lines.push(("doubt", line.to_owned()));
    }
    page.push_str("<section id=\"doubts\" aria-labelledby=\"doubts-title\">\n<h2 id=\"doubts-title\">What not to trust</h2>\n<ul>\n");
    if lines.is_empty() {
        page.push_str("<li>Nothing was found that speaks against these numbers.</li>\n");
    }
    for (class, line) in lines {
        let _ = writeln!(page, "<li class=\"{class}\">{}</li>", escaped(&line));
    }
    for line in footnotes(report) {
        let _ = writeln!(page, "<li>{}</li>", escaped(&line));
    }
    page.push_str("</ul>\n</section>\n");
}

/// Points whose intervals come from too few runs.
fn few_runs(report: &Report) -> Option<String> {
    let few = |point: &&PointEntry| point.num_valid > 0 && (point.num_valid as usize) < FEW_RUNS;
    let count = report.points.iter().filter(few).count();
    (count > 0).then(|| {
        let all = report.points.len();
        format!("few runs: {count} of {all} points have under {FEW_RUNS} valid runs. Decide nothing by their intervals; raise `repeats`")
    })
}

fn contents(page: &mut String, sections: &[Section]) {
    page.push_str("<nav aria-label=\"Sections\">\n<ul>\n<li><a href=\"#slowest\">The slowest</a></li>\n");
    for section in sections {
        let _ = writeln!(page, "<li><a href=\"#{}\">{}</a></li>", figures::anchor(section), section.title);
    }
    page.push_str("</ul>\n</nav>\n");
}

/// Text as it stands in a page, of one line or several.
pub(crate) fn escaped(text: &str) -> String {
    let text = printable_lines(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
