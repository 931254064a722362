//! Points beside each other: throughput against latency, workloads, quantizations, prefix hits.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::units::number;
use super::super::{PointEntry, Report};
use super::bars::{Bar, Words, by_point};
use super::{measured, value};
use crate::presentation::plot::{Axis, Chart, Grid, Marks, Series};
use crate::question::plan::Quantization;

/// All of them.
pub(super) fn charts(report: &Report) -> Vec<Chart> {
    let mut charts = vec![
        pareto(report, "pareto_itl", "ITL", "avg_itl_s"),
        pareto(report, "pareto_ttft", "TTFT", "p50_ttft_s"),
        latencies(report, "by_point_ttft", "TTFT", ["p50_ttft_s", "p99_ttft_s"]),
        latencies(report, "by_point_itl", "ITL", ["p50_itl_s", "p99_itl_s"]),
        rates(report),
    ];
    charts.extend(quantizations(report));
    charts.push(prefix_hits(report));
    charts
}

/// Throughput against a latency, and the points that no other one beats in both.
fn pareto(report: &Report, id: &'static str, name: &str, metric: &str) -> Chart {
    let place = |point: &PointEntry| Some((value(point, metric)? * 1e3, value(point, "output_tokens_per_s")?));
    let all: Vec<(String, (f64, f64))> =
        measured(report).filter_map(|(label, point)| Some((label, place(point)?))).collect();
    let statistic = if metric.starts_with("avg") { "mean" } else { "median" };
    let series = all.iter().map(|(label, place)| Series::new(label, vec![*place]));
    let best =
        |place: &(f64, f64)| !all.iter().any(|(_, other)| other.0 <= place.0 && other.1 >= place.1 && other != place);
    let row = |(label, place): &(String, (f64, f64))| {
        let is_best = if best(place) { "yes" } else { "no" };
        vec![label.clone(), number(Some(place.0)), number(Some(place.1)), is_best.to_owned()]
    };
    let headers =
        ["point".to_owned(), format!("{statistic} {name}, ms"), "output tokens/s".to_owned(), "unbeaten".to_owned()];
    Chart {
        id,
        title: format!("Throughput against {name}"),
        caption: "A dot is a point of the sweep: up and to the left is better. The table says which ones no other point beats in both."
            .to_owned(),
        x: Axis::log(&format!("{statistic} {name}, ms")),
        y: Axis::linear("output tokens/s"),
        marks: Marks::Dots,
        categories: Vec::new(),
        series: series.collect(),
        table: Grid { headers: headers.to_vec(), rows: all.iter().map(row).collect() },
    }
}

/// Workloads and other points side by side.
fn latencies(report: &Report, id: &'static str, name: &str, metrics: [&'static str; 2]) -> Chart {
    let title = format!("{name} of workloads and points, side by side");
    let words = Words {
        id,
        title: &title,
        caption: "Logarithmic, so that half of the length is not half of the time. A percentile of too few samples has no bar.",
        axis: Axis::log("ms"),
        marks: Marks::Bars,
    };
    let ms = |metric: &'static str| move |point: &PointEntry| value(point, metric).map(|s| s * 1e3);
    let (p50, p99) = (ms(metrics[0]), ms(metrics[1]));
    by_point(report, words, &[("median", &p50), ("99 %", &p99)])
}

fn rates(report: &Report) -> Chart {
    let words = Words {
        id: "by_point_rate",
        title: "Throughput of workloads and points, side by side",
        caption: "Output tokens over the whole measured window, its ramp-up and its end included.",
        axis: Axis::linear("output tokens/s"),
        marks: Marks::Bars,
    };
    by_point(report, words, &[("output", &|point| value(point, "output_tokens_per_s"))])
}

/// The points that were measured with more than one quantization.
fn quantizations(report: &Report) -> Vec<Chart> {
    let mut shapes: BTreeMap<String, Vec<(Quantization, &PointEntry)>> = BTreeMap::new();
    for (_, point) in measured(report) {
        let Some(quantization) = point.identity.quantization else { continue };
        shapes.entry(shape(point)).or_default().push((quantization, point));
    }
    shapes.retain(|_, points| points.iter().any(|(quantization, _)| *quantization != points[0].0));
    let chart = |(id, title, axis, metric, scale): (&'static str, &str, &str, &str, f64)| {
        let all = [Quantization::None, Quantization::Fp8, Quantization::Fp4, Quantization::Other];
        let series: Vec<Series> = all
            .into_iter()
            .map(|quantization| {
                let bar = |(place, points): (usize, &Vec<(Quantization, &PointEntry)>)| {
                    let (_, point) = points.iter().find(|(other, _)| *other == quantization)?;
                    Some((place as f64, value(point, metric)? * scale))
                };
                Series::new(quantization.as_str(), shapes.values().enumerate().filter_map(bar).collect())
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        let categories: Vec<String> = shapes.values().map(|points| lengths(points[0].1)).collect();
        let row = |(place, name): (usize, &String)| {
            let cell = |series: &Series| {
                number(series.points.iter().find(|point| point.0 == place as f64).map(|point| point.1))
            };
            [name.clone()].into_iter().chain(series.iter().map(cell)).collect()
        };
        let headers = series.iter().map(|series| format!("{} ({axis})", series.name));
        Chart {
            id,
            title: title.to_owned(),
            caption: "Points that differ in nothing but the quantization: input/output/shared prefix x prompts."
                .to_owned(),
            x: Axis::names("point"),
            y: Axis::linear(axis),
            marks: Marks::Bars,
            table: Grid {
                headers: ["point".to_owned()].into_iter().chain(headers).collect(),
                rows: categories.iter().enumerate().map(row).collect(),
            },
            categories,
            series,
        }
    };
    let kinds = [
        ("quantization_rate", "Quantizations side by side: throughput", "output tokens/s", "output_tokens_per_s", 1.0),
        ("quantization_itl", "Quantizations side by side: median ITL", "ms", "p50_itl_s", 1e3),
        ("quantization_ttft", "Quantizations side by side: median TTFT", "ms", "p50_ttft_s", 1e3),
    ];
    kinds.into_iter().map(chart).collect()
}

/// All that two points have to have in common, so that a difference is that of their quantizations.
fn shape(point: &PointEntry) -> String {
    let mut shape = json!(point.identity);
    for differs in ["name", "point", "epoch", "quantization"] {
        shape[differs] = Value::Null;
    }
    format!("{} prompts of {shape}", prompts(point))
}

fn lengths(point: &PointEntry) -> String {
    let tokens = |count: Option<u32>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let identity = &point.identity;
    let [input, output, prefix] = [identity.input_len, identity.output_len, identity.prefix_len].map(tokens);
    format!("{} {input}/{output}/{prefix} x {}", identity.workload.as_ref().unwrap_or(&identity.name), prompts(point))
}

/// Prompts of a run.
fn prompts(point: &PointEntry) -> u64 {
    point.num_prompts / point.num_valid.max(1)
}

/// What the design takes from the cache, and what the engine took.
fn prefix_hits(report: &Report) -> Chart {
    let words = Words {
        id: "prefix_hits",
        title: "Prompt tokens from the prefix cache",
        caption: "Expected by the design, in whole blocks of the cache, and as the engine counted them.",
        axis: Axis::linear("% of the prompt tokens"),
        marks: Marks::Bars,
    };
    let percent = |name: &'static str| move |point: &PointEntry| value(point, name).map(|share| share * 100.0);
    let (expected, got) = (percent("prefix_hit_rate_expected"), percent("prefix_hit_rate_measured"));
    let asked = measured(report).any(|(_, point)| {
        expected(point).is_some_and(|share| share > 0.0) || got(point).is_some_and(|share| share > 0.0)
    });
    let bars: [Bar<'_>; 2] = [("expected", &expected), ("measured", &got)];
    by_point(report, words, if asked { &bars } else { &[] })
}
