//! The sentinels of a sweep: the same work again and again.

use super::super::units::number;
use super::super::{Report, SentinelEntry};
use crate::presentation::plot::{Axis, Chart, Grid, Marks, Series};

/// A line for the sentinels of each epoch; empty without any.
pub(super) fn chart(report: &Report) -> Chart {
    let lines = || report.sentinels.iter().filter(|sentinel| !sentinel.changes().is_empty());
    Chart {
        id: "sentinels",
        title: "Sentinels: the same work through the sweep".to_owned(),
        caption: "Change of the mean E2E against the first sentinel of the epoch. What rises or falls from left to right is not the \
                  workload."
            .to_owned(),
        x: Axis::linear("minutes since the first sentinel of the epoch"),
        y: Axis::linear("change of the mean E2E, %"),
        marks: Marks::Lines,
        categories: Vec::new(),
        series: lines().map(|sentinel| Series::new(&sentinel.point, sentinel.changes())).collect(),
        table: Grid {
            headers: ["sentinel", "runs", "later half against earlier, %", "drift"].map(str::to_owned).to_vec(),
            rows: lines().map(row).collect(),
        },
    }
}

fn row(sentinel: &SentinelEntry) -> Vec<String> {
    let drift = match (&sentinel.drift, &sentinel.note) {
        (Some(found), _) => format!("{} (z = {:.2})", if found.flagged { "yes" } else { "not shown" }, found.z),
        (None, note) => note.clone().unwrap_or_default(),
    };
    let change = number(sentinel.change.map(|change| change * 100.0));
    vec![sentinel.point.clone(), sentinel.runs.len().to_string(), change, drift]
}
