//! What a person sees, the raw figures, and the limits.

use bench::machine::device::{HostFacts, Placement};
use bench::measurement::calibration::{Cores, Times};
use serde_json::{Value, json};

use super::measure::Measured;

/// A record every 3 us takes at most so many times as long as the raw line.
const MOST_LINES: f64 = 2.0;
/// A record every millisecond, percentiles.
const MOST_SLOW_P50_NS: i64 = 500;
const MOST_SLOW_P99_NS: i64 = 25_000;
/// Records a second, in batches.
const LEAST_PER_S: f64 = 20e6;

/// A Markdown table with the machine it was measured on.
pub fn render(measured: &[Measured], placement: &Placement) -> String {
    let cores = Cores::of(placement);
    let processor = HostFacts::read().cpu_model.unwrap_or_else(|| "an unnamed processor".to_owned());
    let mut text = format!("{processor}, from core {} to core {}\n\n", cores.engine, cores.recorder);
    text += "| one way | waits | every 3 us: p50 | p99 | times the line | every 1 ms: p50 | p99 | one a call | 64 a call |\n";
    text += "|---|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for one in measured {
        let lines = one.times(&measured[0]).map(|times| format!("{times:.1}"));
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            one.way.name,
            if one.way.spins { "spins" } else { "sleeps" },
            in_words(one.fast()),
            lines.unwrap_or_default(),
            in_words(one.slow()),
            millions(one.single_per_s()),
            millions(one.batched_per_s()),
        );
    }
    text
}

/// Two cells.
fn in_words(times: Option<Times>) -> String {
    let us = |ns: i64| if ns < 1_000 { format!("{ns} ns") } else { format!("{:.1} us", ns as f64 / 1e3) };
    times.map_or("- | -".to_owned(), |times| format!("{} | {}", us(times.p50), us(times.p99)))
}

fn millions(per_s: Option<f64>) -> String {
    per_s.map_or("-".to_owned(), |per_s| format!("{:.2} M/s", per_s / 1e6))
}

/// The raw figures.
pub fn json(measured: &[Measured], placement: &Placement) -> String {
    let ways: Vec<Value> = measured
        .iter()
        .map(|one| {
            json!({
                "name": one.way.name, "spins": one.way.spins, "gap_3us_ns": one.fast(), "gap_1ms_ns": one.slow(),
                "times_the_line": one.times(&measured[0]),
                "records_per_s": one.single_per_s(), "records_per_s_in_batches_of_64": one.batched_per_s(),
            })
        })
        .collect();
    let all = json!({ "host": HostFacts::read(), "cores": Cores::of(placement), "one_way": ways });
    format!("{all:#}\n")
}

/// The limits that the ring, which is the second way, does not keep.
pub fn missed(measured: &[Measured]) -> Vec<String> {
    let [line, ring, ..] = measured else { return vec!["nothing was measured".to_owned()] };
    let (Some(lines), Some(slow), Some(per_s)) = (ring.times(line), ring.slow(), ring.batched_per_s()) else {
        return vec!["nothing was measured".to_owned()];
    };
    [
        (lines <= MOST_LINES, format!("{lines:.2} times the raw line, at most {MOST_LINES}")),
        (slow.p50 <= MOST_SLOW_P50_NS, format!("p50 {} ns every 1 ms, at most {MOST_SLOW_P50_NS}", slow.p50)),
        (slow.p99 <= MOST_SLOW_P99_NS, format!("p99 {} ns every 1 ms, at most {MOST_SLOW_P99_NS}", slow.p99)),
        (per_s >= LEAST_PER_S, format!("{:.1} million records/s, at least {}", per_s / 1e6, LEAST_PER_S / 1e6)),
    ]
    .into_iter()
    .filter_map(|(kept, limit)| (!kept).then_some(limit))
    .collect()
}
