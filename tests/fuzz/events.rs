//! An event log as CSV: evaluated and printed, or refused.

use std::borrow::Cow;
use std::path::Path;

use bench::presentation::report::{self, TableFormat};

/// First line of an input whose rows are repeated, with another number in place of each `RUN`.
const MANY: &[u8] = b"many\n";
const RUNS: u32 = 50;
/// Longest input that is repeated: what it grows to is still read within a second.
const MOST_BYTES: usize = 2_048;

pub fn run(input: &[u8], folder: &Path) {
    let path = folder.join("events.csv");
    std::fs::write(&path, with_runs(input)).unwrap();
    if let Ok(report) = report::from_csv(&path) {
        for format in [TableFormat::Table, TableFormat::Json, TableFormat::Md, TableFormat::Csv] {
            report::table(&report, format, false);
        }
    }
}

/// The rows of many runs, made from those of a few.
fn with_runs(input: &[u8]) -> Cow<'_, [u8]> {
    let Some(text) = input
        .strip_prefix(MANY)
        .filter(|text| text.len() <= MOST_BYTES)
        .and_then(|text| std::str::from_utf8(text).ok())
    else {
        return Cow::Borrowed(input);
    };
    let (header, rows) = text.split_once('\n').unwrap_or((text, ""));
    let runs = (0..RUNS).map(|run| rows.replace("RUN", &run.to_string()));
    Cow::Owned([format!("{header}\n")].into_iter().chain(runs).collect::<String>().into_bytes())
}
