//! Latency distributions: the whole, and the tail on a logarithmic scale.

use super::super::Report;
use super::super::entry::has_percentile;
use super::super::units::number;
use super::{MARKS, measured};
use crate::presentation::plot::{Axis, CdfPoint, Chart, Grid, Marks, Series};
use crate::statistics::Percentile;

const THINNED: &str = "Drawn from evenly spaced shares, and above the median from eight ranks for each halving of what is left: the \
                       largest sample is always there. Table and verdict come from all samples.";

/// Those of TTFT and ITL.
pub(super) fn charts(report: &Report) -> Vec<Chart> {
    type Pick = fn(&super::PointEntry) -> &[CdfPoint];
    let kinds: [(&str, [&'static str; 2], Pick); 2] = [
        ("TTFT", ["ttft_cdf", "ttft_tail"], |point| &point.curves.ttft),
        ("ITL", ["itl_cdf", "itl_tail"], |point| &point.curves.itl),
    ];
    let pair = |(name, ids, pick): (&str, [&'static str; 2], Pick)| {
        [whole(report, name, ids[0], pick), tail(report, name, ids[1], pick)]
    };
    kinds.into_iter().flat_map(pair).collect()
}

/// Of the points of a curve so many that all curves together stay within bounds; the slowest sample is always one.
fn drawn(report: &Report, curve: &[CdfPoint]) -> Vec<CdfPoint> {
    let most = (MARKS / report.points.len().max(1)).max(16);
    let apart = curve.len().div_ceil(most).max(1);
    // From the end, so that the last one is kept.
    let mut kept: Vec<CdfPoint> = curve.iter().rev().step_by(apart).copied().collect();
    kept.reverse();
    kept
}

fn whole(report: &Report, name: &str, id: &'static str, pick: fn(&super::PointEntry) -> &[CdfPoint]) -> Chart {
    let series = measured(report).map(|(label, point)| {
        let mut points: Vec<(f64, f64)> =
            drawn(report, pick(point)).iter().map(|point| (point.ms, point.share)).collect();
        // It rises from 0 at the smallest sample.
        if let Some(first) = points.first() {
            points.insert(0, (first.0, 0.0));
        }
        Series::new(&label, points)
    });
    Chart {
        id,
        title: format!("{name}: share of the samples at or below"),
        caption: format!("The further to the left, the faster. {THINNED}"),
        x: Axis::log(&format!("{name}, ms")),
        y: Axis::linear("share of samples"),
        marks: Marks::Steps,
        categories: Vec::new(),
        series: series.collect(),
        table: table(report, name, pick),
    }
}

fn tail(report: &Report, name: &str, id: &'static str, pick: fn(&super::PointEntry) -> &[CdfPoint]) -> Chart {
    let series = measured(report).map(|(label, point)| {
        Series::new(&label, drawn(report, pick(point)).iter().map(|point| (point.ms, point.share_above)).collect())
    });
    Chart {
        id,
        title: format!("{name}: share of the samples at or above, the tail"),
        caption: format!(
            "0.01 is where the slowest 1 % begin; each line ends at its slowest sample. Logarithmic on both axes. {THINNED}"
        ),
        x: Axis::log(&format!("{name}, ms")),
        y: Axis::log("share of samples"),
        marks: Marks::Lines,
        categories: Vec::new(),
        series: series.collect(),
        table: table(report, name, pick),
    }
}

/// Percentiles and the slowest sample of the curves, which hold the ranks of all of them. A percentile of too few samples is not shown.
fn table(report: &Report, name: &str, pick: fn(&super::PointEntry) -> &[CdfPoint]) -> Grid {
    let percentiles = [Percentile::P50, Percentile::P90, Percentile::P99, Percentile::P99_9];
    let headers = ["point", "50 %", "90 %", "99 %", "99.9 %", "slowest"];
    let row = |(label, point): (String, &super::PointEntry)| {
        let curve = pick(point);
        let slowest = curve.last();
        // The slowest sample alone lies at or above itself.
        let samples = slowest.map_or(0, |slowest| (1.0 / slowest.share_above).round() as u64);
        let at = |percentile: Percentile| {
            let found = curve.iter().find(|point| point.share >= percentile.quantile());
            found.filter(|_| has_percentile(percentile, samples)).map(|point| point.ms)
        };
        let shown = percentiles.map(at).into_iter().chain([slowest.map(|slowest| slowest.ms)]);
        [label].into_iter().chain(shown.map(number)).collect()
    };
    let headers = headers.iter().enumerate().map(|(place, header)| match place {
        0 => (*header).to_owned(),
        _ => format!("{name} {header}, ms"),
    });
    Grid { headers: headers.collect(), rows: measured(report).map(row).collect() }
}
