//! Charts with a bar, or a group of bars, for each point.

use super::super::units::number;
use super::super::{PointEntry, Report};
use super::{measured, value};
use crate::analysis::causes::{Cause, Tail};
use crate::analysis::metrics::Metric;
use crate::presentation::plot::{Axis, Chart, Grid, Marks, Series};

/// What a bar is called, and how long it is.
pub(super) type Bar<'a> = (&'a str, &'a dyn Fn(&PointEntry) -> Option<f64>);

/// What a chart of bars says of itself.
pub(super) struct Words<'a> {
    pub id: &'static str,
    pub title: &'a str,
    pub caption: &'a str,
    pub axis: Axis,
    pub marks: Marks,
}

/// Bars of every point with valid runs.
pub(super) fn by_point(report: &Report, words: Words<'_>, bars: &[Bar<'_>]) -> Chart {
    let points: Vec<(String, &PointEntry)> = measured(report).collect();
    let series = bars.iter().map(|(name, length)| {
        let lengths = points.iter().enumerate().filter_map(|(place, (_, point))| Some((place as f64, length(point)?)));
        Series::new(name, lengths.collect())
    });
    let row = |(label, point): &(String, &PointEntry)| {
        [label.clone()].into_iter().chain(bars.iter().map(|(_, length)| number(length(point)))).collect()
    };
    let headers: Vec<String> = bars.iter().map(|(name, _)| format!("{name} ({})", words.axis.label)).collect();
    Chart {
        id: words.id,
        title: words.title.to_owned(),
        caption: words.caption.to_owned(),
        x: Axis::names("point"),
        y: words.axis,
        marks: words.marks,
        categories: points.iter().map(|(label, _)| label.clone()).collect(),
        series: series.collect(),
        table: Grid {
            headers: ["point".to_owned()].into_iter().chain(headers).collect(),
            rows: points.iter().map(row).collect(),
        },
    }
}

/// Where a request's time goes.
pub(super) fn split(report: &Report) -> Chart {
    let words = Words {
        id: "split",
        title: "Queue, prefill and decode of a request",
        caption: "Means, by the engine's own stamps: in the queue, from there to the first token, and from that to the last.",
        axis: Axis::linear("ms"),
        marks: Marks::Stacked,
    };
    let ms = |name: &'static str| move |point: &PointEntry| value(point, name).map(|s| s * 1e3);
    let (queue, prefill, decode) = (ms("avg_queue_s"), ms("avg_prefill_s"), ms("avg_decode_s"));
    by_point(report, words, &[("queue", &queue), ("prefill", &prefill), ("decode", &decode)])
}

/// What the slow tail comes from.
pub(super) fn causes(report: &Report, id: &'static str, name: &str) -> Chart {
    let tail = |point: &PointEntry| -> Option<Tail> {
        if id == "itl_causes" { point.causes.itl.clone() } else { point.causes.ttft.clone() }
    };
    let title = format!("What the slowest {name}s come from");
    let words = Words {
        id,
        title: &title,
        caption: "Shares of the latencies at or above the 99th percentile of their run, by cause. A cause is named when it makes at \
                  least half of what a latency has above the median of its run.",
        axis: Axis::linear("% of the tail"),
        marks: Marks::Stacked,
    };
    let share = |cause: Cause| {
        move |point: &PointEntry| {
            let causes = tail(point)?.causes?;
            causes.iter().find(|part| part.cause == cause).map(|part| part.share * 100.0)
        }
    };
    let shares: Vec<_> = Cause::ALL.into_iter().map(|cause| (cause.in_words(), share(cause))).collect();
    let there = shares.iter().filter(|(_, share)| measured(report).any(|(_, point)| share(point).is_some()));
    let bars: Vec<Bar<'_>> = there.map(|(name, share)| (*name, share as &dyn Fn(&PointEntry) -> Option<f64>)).collect();
    by_point(report, words, &bars)
}

/// The instrument's error beside what it measures.
pub(super) fn error_budget(report: &Report) -> Chart {
    let words = Words {
        id: "error_budget",
        title: "Error budget: how wrong a number can be",
        caption: "Logarithmic. The instrument's bound comes from known answers on this machine and the runs' own stamps, transport from every \
                  token; the interval is what runs differ by. A difference between two points below these is none.",
        axis: Axis::log("us"),
        marks: Marks::Bars,
    };
    let bound = |name: &'static str| {
        move |point: &PointEntry| point.instrument_error.get(Metric::named(name)?).map(|error_s| error_s * 1e6)
    };
    let (ttft, itl) = (bound("avg_ttft_s"), bound("avg_itl_s"));
    let transport = |point: &PointEntry| point.transport_ns?.p99.map(|p99_ns| p99_ns as f64 / 1e3);
    let interval = |point: &PointEntry| {
        let interval = point.intervals.get("avg_itl_s").copied().flatten()?;
        Some((interval.high? - interval.low?) / 2.0 * 1e6)
    };
    let bars: [Bar<'_>; 4] = [
        ("instrument, TTFT", &ttft),
        ("instrument, ITL", &itl),
        ("transport, 99 % of tokens", &transport),
        ("mean ITL, half of its 95 % interval", &interval),
    ];
    by_point(report, words, &bars)
}
