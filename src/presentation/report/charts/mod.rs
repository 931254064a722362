//! The charts of a report: one source for the page and for the files.

mod bars;
mod distribution;
mod sentinels;
mod steps;
mod sweep;
mod time;

use super::picture::Picture;
use super::{PointEntry, Report};
use crate::analysis::metrics::Metric;
use crate::presentation::plot::Chart;

/// Most points of a chart's line or dots, over all runs or points together: what keeps the page small, whatever was measured.
const MARKS: usize = 20_000;

/// Title of the charts that share their axis of time.
pub(super) const OVER_TIME: &str = "Over time";

/// Charts that belong together.
pub(super) struct Section {
    pub title: &'static str,
    pub charts: Vec<Chart>,
}

/// All charts that have anything to show, and the ids of those that have not.
pub(super) fn sections(report: &Report, pictures: &[Picture]) -> (Vec<Section>, Vec<&'static str>) {
    let section = |title, charts: Vec<Chart>| Section { title, charts };
    let mut all = vec![
        section("Latency distributions", distribution::charts(report)),
        section(
            "Where the time goes",
            vec![
                bars::split(report),
                bars::causes(report, "itl_causes", "ITL"),
                bars::causes(report, "ttft_causes", "TTFT"),
                steps::composition(report, pictures),
                steps::life(report, pictures),
            ],
        ),
        section("The sweep", sweep::charts(report)),
        section("Drift", vec![sentinels::chart(report)]),
        section(OVER_TIME, time::charts(report, pictures)),
        section("The instrument", vec![bars::error_budget(report)]),
    ];
    let of_empty =
        |section: &Section| section.charts.iter().filter(|chart| chart.is_empty()).map(|chart| chart.id).collect();
    let empty = all.iter().flat_map(|section| -> Vec<&'static str> { of_empty(section) }).collect();
    for section in &mut all {
        section.charts.retain(|chart| !chart.is_empty());
    }
    all.retain(|section| !section.charts.is_empty());
    (all, empty)
}

/// How many points a run may have over its time.
pub(super) fn bins_per_run(runs: usize) -> usize {
    (MARKS / 2 / runs.max(1)).clamp(8, 200)
}

/// The label of a point as the table has it.
pub(super) fn label(point: &PointEntry) -> String {
    let identity = &point.identity;
    if identity.name == identity.point {
        identity.name.clone()
    } else {
        format!("{} {}", identity.name, identity.point)
    }
}

/// Points that have numbers, each with its label.
fn measured(report: &Report) -> impl Iterator<Item = (String, &PointEntry)> {
    report.points.iter().filter(|point| point.num_valid > 0).map(|point| (label(point), point))
}

/// The pictures of a point's runs.
fn pictures_of<'a>(pictures: &'a [Picture], point: &PointEntry) -> impl Iterator<Item = &'a Picture> + Clone {
    let (name, label) = (point.identity.name.clone(), point.identity.point.clone());
    pictures.iter().filter(move |picture| picture.name == name && picture.point == label)
}

/// The metric of a name that the program itself gives.
fn value(point: &PointEntry, name: &str) -> Option<f64> {
    point.values.get(Metric::named(name)?)
}
