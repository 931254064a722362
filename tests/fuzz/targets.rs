//! Coverage-guided fuzzing with libFuzzer of everything that reads what others wrote. `make fuzz` builds it with coverage
//! and runs each target for its share of FUZZ_SECONDS; `BENCH_FUZZ=TARGET` selects the target of one process.
//!
//! A panic, a hang or an allocation beyond the limit that `make fuzz` sets ends the process and leaves the input in a file
//! `crash-*` or `timeout-*`, which is then the argument that repeats it.

#![no_main]

mod config;
mod events;
mod messages;
mod rings;
mod stored_run;

#[allow(dead_code)] // shared with the report's tests, which use all of it
#[path = "../report/sketch.rs"]
mod sketch;

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// Name of a target, and what it does with one input in a folder of its own.
type Target = (&'static str, fn(&[u8], &Path));

const TARGETS: [Target; 5] = [
    ("config", config::run),
    ("events", events::run),
    ("messages", messages::run),
    ("rings", rings::run),
    ("stored_run", stored_run::run),
];

static TARGET: LazyLock<fn(&[u8], &Path)> = LazyLock::new(|| {
    let wanted = std::env::var("BENCH_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names = TARGETS.map(|(name, _)| name).join(", ");
    found.unwrap_or_else(|| panic!("BENCH_FUZZ=`{wanted}` is none of {names}")).1
});

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fuzz_target!(|input: &[u8]| TARGET(input, FOLDER.path()));
