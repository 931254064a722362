//! What happened over the time of the whole measurement, all runs on one axis.

use super::super::Report;
use super::super::picture::Picture;
use super::steps::ranges;
use super::{measured, pictures_of};
use crate::presentation::plot::{Axis, Chart, Marks, Series};

const AXIS: &str = "time since the first run's first submit, s";

/// Tokens per second, and what the machine said of itself.
pub(super) fn charts(report: &Report, pictures: &[Picture]) -> Vec<Chart> {
    let Some(zero_ns) = pictures.iter().map(|picture| picture.window.first_submit_ns).min() else { return Vec::new() };
    let zero_s = zero_ns as f64 / 1e9;
    [throughput(report, pictures, zero_s)].into_iter().chain(telemetry(pictures, zero_s)).collect()
}

fn throughput(report: &Report, pictures: &[Picture], zero_s: f64) -> Chart {
    let series: Vec<Series> = measured(report)
        .map(|(label, point)| {
            let mut points = Vec::new();
            for run in pictures_of(pictures, point) {
                let width_s = run.window.elapsed_ns() as f64 / 1e9 / run.tokens.len() as f64;
                let begin_s = run.window.first_submit_ns as f64 / 1e9 - zero_s;
                let rate =
                    |(bin, tokens): (usize, &u64)| (begin_s + (bin as f64 + 0.5) * width_s, *tokens as f64 / width_s);
                points.extend(run.tokens.iter().enumerate().map(rate).filter(|(_, rate)| rate.is_finite()));
                points.push((begin_s + run.window.elapsed_ns() as f64 / 1e9, f64::NAN));
            }
            Series::new(&label, points)
        })
        .collect();
    Chart {
        id: "throughput",
        title: "Output tokens per second over time".to_owned(),
        caption: "All valid runs in the order of execution. Each run is cut into equal parts, and a point is the tokens received in a part \
                  over its length: shorter dips and peaks are averaged, and stand in the latency charts."
            .to_owned(),
        x: Axis::linear(AXIS),
        y: Axis::linear("output tokens/s"),
        marks: Marks::Lines,
        categories: Vec::new(),
        table: ranges(&series, "s", "tokens/s"),
        series,
    }
}

/// A chart for each quantity that has a source.
fn telemetry(pictures: &[Picture], zero_s: f64) -> Vec<Chart> {
    const KINDS: [(&str, &str); 7] = [
        ("telemetry_power", "Power, W"),
        ("telemetry_clock", "Clock, MHz"),
        ("telemetry_temperature", "Temperature, °C"),
        ("telemetry_memory", "Memory in use, GB"),
        ("telemetry_busy", "Busy, %"),
        ("telemetry_pressure", "Waiting for the machine, %"),
        ("telemetry_stolen", "Taken by the hypervisor, cores"),
    ];
    let mut ordered: Vec<&Picture> = pictures.iter().collect();
    ordered.sort_by_key(|picture| picture.window.first_submit_ns);
    let chart = |(id, quantity): (&'static str, &str)| {
        let mut series: Vec<Series> = Vec::new();
        for track in ordered.iter().flat_map(|picture| &picture.telemetry).filter(|track| track.quantity == quantity) {
            let name =
                if track.part.is_empty() { track.device.clone() } else { format!("{}, {}", track.device, track.part) };
            let points = track.points.iter().map(|(at_s, value)| (at_s - zero_s, *value));
            let place = series.iter().position(|series| series.name == name).unwrap_or_else(|| {
                series.push(Series::new(&name, Vec::new()));
                series.len() - 1
            });
            let end_s = track.points.last().map_or(0.0, |point| point.0) - zero_s;
            series[place].points.extend(points.chain([(end_s, f64::NAN)]));
        }
        Chart {
            id,
            title: quantity.to_owned(),
            caption: "What the machine said of itself beside the valid runs. Of many samples the lowest and the highest of each part of \
                      a run are drawn."
                .to_owned(),
            x: Axis::linear(AXIS),
            y: Axis::linear(quantity),
            marks: Marks::Lines,
            categories: Vec::new(),
            table: ranges(&series, "s", quantity),
            series,
        }
    };
    KINDS.into_iter().map(chart).collect()
}
