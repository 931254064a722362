//! Both rings under a peer that writes whatever it likes into their memory: the recorder counts or refuses it, and what it
//! recorded can be evaluated.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bench::machine::device::WaitStrategy;
use bench::measurement::load::ClosedLoop;
use bench::measurement::recorder::{Live, PhasePlan, Recorder, RecorderOptions, Tape};
use bench::measurement::ring::protocol::{EVENT_STREAM, REQUEST_STREAM};
use bench::measurement::ring::{RawRecord, RingMemory};
use bench::measurement::timeline::{Phase, RequestEvent, Timeline};
use bench::presentation::report::{Ruler, RunEntry};

use crate::sketch;

const CAPACITY: u32 = 64;
const RECORD_BYTES: usize = size_of::<RawRecord>();
const REQUESTS: usize = 4;

/// The first byte says what the peer overwrites: how many 9-byte patches (offset in units of 8 bytes, content) follow for
/// each ring. The rest are records that the engine pushes.
pub fn run(input: &[u8], _folder: &Path) {
    let Some((&patches, input)) = input.split_first() else { return };
    let patches_bytes = usize::from(patches % 8) * 9;
    let Some((patches, records)) = input.split_at_checked(patches_bytes) else { return };
    let events = RingMemory::create(EVENT_STREAM, CAPACITY).unwrap();
    let requests = RingMemory::create(REQUEST_STREAM, CAPACITY).unwrap();
    let (consumer, mut engine) = (events.consumer(None).unwrap(), events.producer(None).unwrap());
    let issuer = requests.producer(None).unwrap();
    let records: Vec<RawRecord> =
        records.chunks_exact(RECORD_BYTES).take(CAPACITY as usize).map(bytemuck::pod_read_unaligned).collect();
    let _ = engine.push(&records);
    for (index, patch) in patches.chunks_exact(9).enumerate() {
        let memory = if index % 2 == 0 { &events } else { &requests };
        File::from(memory.as_fd().try_clone_to_owned().unwrap())
            .write_all_at(&patch[1..], u64::from(patch[0]) * 8)
            .unwrap();
    }
    let staged = vec![RequestEvent::planned(Phase::Measure, 8, 8, 0); REQUESTS];
    let mut recorder = Recorder::new(
        consumer,
        issuer,
        Tape::with_capacity(staged, 64, 64),
        RecorderOptions { wait: WaitStrategy::Spin, stepped: records.len() % 2 == 1, async_scheduling: false },
        Arc::new(Live::default()),
        Arc::new(AtomicBool::new(true)), // it ends where the records do
    );
    let plan = PhasePlan { phase: Phase::Measure, load: ClosedLoop::new(0, REQUESTS as u32, Some(2)), count: 4 };
    let _ = recorder.run(&mut [plan]);
    let tape = recorder.into_parts().2;
    evaluate(tape);
}

fn evaluate(tape: Tape) {
    let mut run = sketch::run_record("p", 0);
    run.counters = tape.counters;
    let (requests, tokens, steps, hiccups) = (tape.requests, tape.tokens, tape.steps, tape.hiccups);
    let timeline = Timeline { run, requests, tokens, steps, hiccups, telemetry: Vec::new() };
    RunEntry::of(&timeline, Ruler::UNKNOWN);
}
