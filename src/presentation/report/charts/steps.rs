//! Steps against their batch, and ITLs over the life of a request.

use super::super::Report;
use super::super::picture::{Picture, Place};
use super::super::units::number;
use super::{MARKS, measured, pictures_of};
use crate::presentation::plot::{Axis, Chart, Grid, Marks, Series, scatter};

/// How long a step takes, against how much it computes.
pub(super) fn composition(report: &Report, pictures: &[Picture]) -> Chart {
    // A grid of columns by as many rows.
    let columns = ((MARKS / 2 / report.points.len().max(1)) as f64).sqrt().clamp(8.0, 48.0) as usize;
    let mut series = Vec::new();
    for (label, point) in measured(report) {
        let runs = pictures_of(pictures, point);
        type Pick = fn(&Picture) -> &[(f64, f64)];
        let kinds: [(&str, Pick); 2] =
            [("decode", |run| &run.decode_steps), ("with prefill", |run| &run.prefill_steps)];
        for (kind, pick) in kinds {
            let all: Vec<(f64, f64)> = runs.clone().flat_map(|run| pick(run).iter().copied()).collect();
            if !all.is_empty() {
                let points = scatter(&all, columns);
                let secondary = kind != "decode";
                series.push(Series { name: format!("{label}, {kind}"), group: label.clone(), secondary, points });
            }
        }
    }
    Chart {
        id: "step_time",
        title: "How long a step takes, against the tokens it computes".to_owned(),
        caption: "A dot is a step; of many that would lie on each other one is drawn, and the quickest and the slowest of each column \
                  always are. Steps with prefill compute prompt tokens, too."
            .to_owned(),
        x: Axis::log("tokens computed in the step"),
        y: Axis::log("step, ms"),
        marks: Marks::Dots,
        categories: Vec::new(),
        table: ranges(&series, "tokens", "ms"),
        series,
    }
}

/// A row for each series: how many points are drawn, and the ranges that they have.
pub(super) fn ranges(series: &[Series], x: &str, y: &str) -> Grid {
    let headers = [
        "series".to_owned(),
        "drawn".to_owned(),
        format!("{x}, from"),
        format!("{x}, to"),
        format!("{y}, lowest"),
        format!("{y}, highest"),
    ];
    let row = |series: &Series| {
        let known = || series.points.iter().filter(|point| point.1.is_finite());
        let least = |pick: fn(&(f64, f64)) -> f64| known().map(pick).reduce(f64::min);
        let most = |pick: fn(&(f64, f64)) -> f64| known().map(pick).reduce(f64::max);
        let ends = [least(|point| point.0), most(|point| point.0), least(|point| point.1), most(|point| point.1)];
        [series.name.clone(), known().count().to_string()].into_iter().chain(ends.map(number)).collect()
    };
    Grid { headers: headers.to_vec(), rows: series.iter().map(row).collect() }
}

/// ITLs by their place in the request.
pub(super) fn life(report: &Report, pictures: &[Picture]) -> Chart {
    let bins = (MARKS / 4 / report.points.len().max(1)).clamp(8, 128);
    let mut series = Vec::new();
    for (label, point) in measured(report) {
        let mut places: Vec<Place> = Vec::new();
        for run in pictures_of(pictures, point) {
            places.resize(places.len().max(run.places.len()), Place::default());
            places.iter_mut().zip(&run.places).for_each(|(sum, place)| *sum = sum.plus(*place));
        }
        if places.is_empty() {
            continue;
        }
        let wide = places.len().div_ceil(bins);
        let binned: Vec<(f64, Place)> = places
            .chunks(wide)
            .enumerate()
            // The first ITL ends with the second token event.
            .map(|(bin, places)| {
                (2.0 + (bin * wide) as f64, places.iter().copied().fold(Place::default(), Place::plus))
            })
            .filter(|(_, place)| place.count > 0)
            .collect();
        let ms = |ns: f64| ns / 1e6;
        let mean = binned.iter().map(|(at, place)| (*at, ms(place.sum_ns as f64 / place.count as f64))).collect();
        let most = binned.iter().map(|(at, place)| (*at, ms(place.max_ns as f64))).collect();
        let of = |kind: &str, secondary, points| Series {
            name: format!("{label}, {kind}"),
            group: label.clone(),
            secondary,
            points,
        };
        series.extend([of("mean", false, mean), of("longest", true, most)]);
    }
    Chart {
        id: "itl_life",
        title: "ITL over the life of a request".to_owned(),
        caption: "By which token event of its request an ITL ends with, over all requests and runs: the mean, and thinner the longest. \
                  Long requests are drawn in bins of several events, with the mean and the longest of the whole bin."
            .to_owned(),
        x: Axis::linear("token event of the request"),
        y: Axis::log("ITL, ms"),
        marks: Marks::Lines,
        categories: Vec::new(),
        table: ranges(&series, "event", "ms"),
        series,
    }
}
