//! The slowest ITLs and TTFTs, and what made them slow.

use std::fmt::Write as _;

use super::super::Report;
use super::super::charts::label;
use super::super::units::number;
use super::escaped;
use crate::analysis::causes::{Slow, Tail};

/// Latencies of a kind that the page lists; the summary has more.
const LISTED: usize = 12;

/// The section with both tables.
pub(super) fn section(page: &mut String, report: &Report) {
    page.push_str(
        "<section id=\"slowest\" aria-labelledby=\"slowest-title\">\n<h2 id=\"slowest-title\">The slowest, and why</h2>\n\
         <p>The tail is what lies at or above the 99th percentile of its run. A cause is named when it makes at least half of what a \
         latency has above the median of its run; otherwise it is unexplained. Of the latencies that one step ended only the slowest \
         is listed.</p>\n",
    );
    let itls = report.points.iter().filter_map(|point| Some((label(point), point.causes.itl.as_ref()?)));
    table(page, "ITL", &itls.collect::<Vec<_>>());
    let ttfts = report.points.iter().filter_map(|point| Some((label(point), point.causes.ttft.as_ref()?)));
    table(page, "TTFT", &ttfts.collect::<Vec<_>>());
    page.push_str("</section>\n");
}

fn table(page: &mut String, name: &str, tails: &[(String, &Tail)]) {
    let mut all: Vec<(&str, &Slow)> =
        tails.iter().flat_map(|(label, tail)| tail.slowest.iter().map(move |slow| (label.as_str(), slow))).collect();
    // By how many times the excess is of what is usual: points differ in their medians.
    let factor = |slow: &Slow| slow.latency_s / (slow.latency_s - slow.excess_s).max(1e-9);
    all.sort_by(|a, b| factor(b.1).total_cmp(&factor(a.1)));
    if all.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "<h3>{name}</h3>\n<div class=\"wide\" role=\"region\" aria-label=\"The slowest {name}s\" tabindex=\"0\">\n<table>\n\
         <caption>The slowest {name}s, those first that are the most times the median of their run. More of them are in \
         summary_report.json, under causes.</caption>\n<thead>\n<tr><th scope=\"col\">point</th><th scope=\"col\">{name}, ms</th>\
         <th scope=\"col\">times the median</th><th scope=\"col\" class=\"words\">cause</th><th scope=\"col\" class=\"words\">step, and what shared it</th>\
         <th scope=\"col\">run, request</th><th scope=\"col\">at, s</th></tr>\n</thead>\n<tbody>"
    );
    for (label, slow) in all.iter().take(LISTED) {
        let cause = slow.cause.map_or("not known: no steps were recorded", |cause| cause.in_words());
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"words\">{cause}</td><td class=\"words long\">{}</td>\
             <td>{}, {}</td><td>{}</td></tr>",
            escaped(label),
            number(Some(slow.latency_s * 1e3)),
            number(Some(factor(slow))),
            escaped(&circumstances(slow)),
            slow.repeat,
            slow.request,
            number(Some(slow.at_s)),
        );
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
}

/// The step and what it held, in words.
fn circumstances(slow: &Slow) -> String {
    let mut parts: Vec<String> = slow.step.map(|step| format!("step {step}")).into_iter().collect();
    let mut add = |count: Option<u64>, words: &str| {
        parts.extend(count.filter(|count| *count > 0).map(|count| format!("{count} {words}")))
    };
    add(slow.steps.filter(|steps| *steps > 1).map(u64::from), "steps waited");
    add(slow.prefill_tokens, "prompt tokens");
    add(slow.own_prefill_tokens.map(u64::from), "of its own");
    add(slow.decode_requests.map(u64::from), "in decode");
    add(slow.preemptions.map(u64::from), "preemptions");
    add(slow.involuntary_switches.map(u64::from), "times off its core");
    let mut time = |seconds: Option<f64>, words: &str| {
        parts.extend(
            seconds
                .filter(|seconds| *seconds >= 1e-4)
                .map(|seconds| format!("{} ms {words}", number(Some(seconds * 1e3)))),
        );
    };
    time(slow.queue_s, "in the queue");
    time(slow.between_steps_s, "between steps");
    time(slow.recorder_s, "on the way to the recorder");
    if slow.from_this_step > 1 {
        parts.push(format!("ended {} of the tail", slow.from_this_step));
    }
    parts.join(", ")
}
