//! A comparison as a page: one file that needs nothing else.

use std::fmt::Write as _;

use super::{Comparison, Decision, table};
use crate::presentation::report::{PAGE_STYLE, escaped};

/// The whole page.
pub(super) fn html(comparison: &Comparison) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>A against B</title>\n\
         <style>\n{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>A against B</h1>\n"
    );
    let class = match (comparison.got_worse, comparison.is_decided() && comparison.is_whole()) {
        (true, _) => "bad",
        (false, true) => "good",
        (false, false) => "doubt",
    };
    let _ = writeln!(
        page,
        "<p class=\"verdict {class}\" id=\"verdict\">{}</p>\n<ul>",
        escaped(&table::conclusion(comparison))
    );
    for line in table::headline(comparison) {
        let _ = writeln!(page, "<li>{}</li>", escaped(&line));
    }
    for line in &comparison.remarks {
        let _ = writeln!(page, "<li class=\"doubt\">{}</li>", escaped(line));
    }
    page.push_str("</ul>\n<div class=\"wide\" role=\"region\" aria-label=\"Comparison\" tabindex=\"0\">\n<table id=\"comparison\">\n");
    page.push_str(
        "<caption>Times in seconds, rates per second. A change is B / A - 1; its interval is signed ranks over pairs (from \
         seven on), Student's t (five and six), or Mann and Whitney's ranks (saved results; below seven runs a side \
         Welch's on logarithms).</caption>\n<thead>\n<tr>",
    );
    for header in table::HEADERS {
        let _ = write!(page, "<th scope=\"col\" class=\"words\">{header}</th>");
    }
    page.push_str("</tr>\n</thead>\n<tbody>\n");
    let mut decisions = comparison.points.iter().flat_map(|point| {
        let of_slo = point.slo[0].iter().map(|_| None);
        point.metrics.iter().map(|metric| Some(metric.decision)).chain(of_slo)
    });
    for [name, metric, a, b, change, decision, note] in table::rows(comparison) {
        let class = match decisions.next().flatten() {
            Some(Decision::Faster | Decision::Equivalent) => "good",
            Some(Decision::Slower) => "bad",
            Some(Decision::Insufficient | Decision::Unverified) => "doubt",
            Some(Decision::NoDifference) => "soft",
            None if decision == "newly missed" => "bad",
            None => "soft",
        };
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"words\">{}</td><td>{a}</td><td>{b}</td><td class=\"number\">{change}</td>\
             <td class=\"words {class}\">{decision}</td><td class=\"words\">{}</td></tr>",
            escaped(&name),
            escaped(&metric),
            escaped(&note)
        );
    }
    page.push_str("</tbody>\n</table>\n</div>\n</main>\n</body>\n</html>\n");
    page
}
