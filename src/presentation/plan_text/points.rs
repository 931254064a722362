//! The points of an epoch as a table.

use std::fmt::Write;

use crate::question::plan::{Load, Point};

/// The points as lines of aligned columns.
pub(super) fn table(points: &[&Point]) -> Vec<String> {
    let header = ["point", "input", "output", "prefix", "prompts", "warm-up", "repeats", "load", "limits", "name"];
    let mut rows = vec![header.map(String::from)];
    rows.extend(points.iter().map(|point| row(point)));
    let widths: [usize; 10] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; 10]| {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Numbers to the right, words to the left; writing to a String cannot fail.
            let _ = if (1..=6).contains(&column) {
                write!(line, "  {cell:>width$}")
            } else {
                write!(line, "  {cell:<width$}")
            };
        }
        line
    };
    rows.iter().map(line).collect()
}

/// What whole blocks make of a hit rate that was asked.
pub(super) fn hit_rate(point: &Point) -> Option<String> {
    let rate = point.prefix_hit_rate?;
    let percent = |share: f64| (share * 1e4).round() / 1e2;
    let (asked, reachable) = (percent(rate.asked), percent(rate.reachable));
    let exactly = if asked == reachable { "" } else { ", the nearest that whole blocks give" };
    Some(format!(
        "  {}: hit rate {asked} % asked, {reachable} % by blocks of {}{exactly}",
        point.point, rate.block_size
    ))
}

fn row(point: &Point) -> [String; 10] {
    let Load::Closed { concurrency } = point.load;
    let prefix = match point.primed_prefixes() {
        0 | 1 => point.prefix_len.to_string(),
        prefixes => format!("{prefixes} x {}", point.prefix_len),
    };
    let limits = [("seqs", point.limits.max_num_seqs), ("tokens", point.limits.max_num_batched_tokens)];
    let limits: Vec<String> =
        limits.into_iter().filter_map(|(name, limit)| limit.map(|limit| format!("{name} {limit}"))).collect();
    [
        point.point.clone(),
        point.input_len.to_string(),
        point.output_len.to_string(),
        prefix,
        point.num_prompts.to_string(),
        point.warmup.to_string(),
        point.repeats.to_string(),
        concurrency.map_or_else(|| "all at once".to_owned(), |concurrency| format!("{concurrency} in flight")),
        if limits.is_empty() { "as built".to_owned() } else { limits.join(", ") },
        point.name.clone(),
    ]
}
