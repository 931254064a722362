//! A stored run: files with arbitrary bytes, and sound files with arbitrary events. What can be read is reported and exported.

use std::path::Path;

use bench::measurement::results::write_session;
use bench::measurement::ring::Hiccup;
use bench::measurement::timeline::store;
use bench::measurement::timeline::{RequestEvent, StepEvent, Timeline, TokenEvent};
use bench::presentation::report::{self, TableFormat};
use bytemuck::Pod;

use crate::sketch;

pub fn run(input: &[u8], folder: &Path) {
    let Some((how, input)) = input.split_first() else { return };
    let timeline = if how % 2 == 0 { with_events(input) } else { sketch::timeline(&[]) };
    store::write_run(folder, &timeline).unwrap();
    let run = store::run_folder(folder, &timeline.run.point.point, timeline.run.repeat);
    if how % 2 == 1 {
        overwrite(&run, input);
    }
    if store::read_run(&run).is_err() {
        return;
    }
    if !store::runs_folder(folder).join("session.json").exists() {
        write_session(folder, &sketch::session(&[&timeline.run.point.point])).unwrap();
    }
    let report = report::read(folder).unwrap();
    for format in [TableFormat::Table, TableFormat::Json] {
        report::table(&report, format, false);
    }
    // A file system that is full is no finding.
    let _ = report::export_csv(folder);
}

/// Two bytes of length and the record, then the events.
fn overwrite(run: &Path, input: &[u8]) {
    let Some((length, rest)) = input.split_at_checked(2) else { return };
    let (record, events) = rest.split_at(usize::from(u16::from_le_bytes([length[0], length[1]])).min(rest.len()));
    for (name, content) in [("timeline.json", record), ("timeline.bin", events)] {
        if !content.is_empty() {
            std::fs::write(run.join(name), content).unwrap();
        }
    }
}

/// A timeline whose events are these bytes: three counts, then requests, tokens, steps and hiccups.
fn with_events(input: &[u8]) -> Timeline {
    let mut timeline = sketch::timeline(&[]);
    let Some((counts, mut rest)) = input.split_at_checked(3) else { return timeline };
    timeline.requests = take::<RequestEvent>(&mut rest, counts[0]);
    timeline.tokens = take::<TokenEvent>(&mut rest, counts[1]);
    timeline.steps = take::<StepEvent>(&mut rest, counts[2]);
    timeline.hiccups = take::<Hiccup>(&mut rest, u8::MAX);
    timeline
}

fn take<T: Pod>(bytes: &mut &[u8], most: u8) -> Vec<T> {
    let whole = (bytes.len() / size_of::<T>()).min(usize::from(most));
    let (taken, rest) = bytes.split_at(whole * size_of::<T>());
    *bytes = rest;
    taken.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}
