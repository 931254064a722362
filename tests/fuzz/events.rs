//! An event log as CSV: evaluated and printed, or refused.

use std::path::Path;

use bench::report::{self, TableFormat};

pub fn run(input: &[u8], folder: &Path) {
    let path = folder.join("events.csv");
    std::fs::write(&path, input).unwrap();
    if let Ok(report) = report::from_csv(&path) {
        for format in [TableFormat::Table, TableFormat::Json, TableFormat::Md, TableFormat::Csv] {
            report::table(&report, format, false);
        }
    }
}
