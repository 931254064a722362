//! How many token events a second the recorder takes, with all that it does for each.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytemuck::Zeroable;

use super::CalibrationError;
use super::pair::{GIVE_UP_NS, on_both};
use crate::machine::device::{Placement, WaitStrategy};
use crate::measurement::load::ClosedLoop;
use crate::measurement::recorder::{Live, PhasePlan, Recorder, RecorderOptions, Tape};
use crate::measurement::ring::protocol::{
    EVENT_STREAM, EndedRecord, FinishRecord, REQUEST_STREAM, TOKENS_PER_RECORD, TokensRecord,
};
use crate::measurement::ring::{Consumer, Producer, RawRecord, RingMemory, clock_ns};
use crate::measurement::timeline::{Phase, RequestEvent};

/// Token events in all; 32 bytes each in the recorder's memory.
const EVENTS: usize = 4_000_000;
const CAPACITY: u32 = 1 << 16;
/// Records of a step: a batch of 64.
const BATCH: usize = 8;

/// Token events a second, from the first to the last, with a producer that pushes whenever there is room.
pub(super) fn recorder_events_per_s(placement: &Placement) -> Result<f64, CalibrationError> {
    let (events, requests) = (RingMemory::create(EVENT_STREAM, CAPACITY)?, RingMemory::create(REQUEST_STREAM, 64)?);
    let (mut tokens, mut submits) = (events.producer(None)?, requests.consumer(None)?);
    let staged = vec![RequestEvent::planned(Phase::Measure, 1, EVENTS as u32, 0)];
    let mut recorder = Recorder::new(
        events.consumer(None)?,
        requests.producer(None)?,
        Tape::with_capacity(staged, EVENTS, 16),
        RecorderOptions { wait: WaitStrategy::Spin, stepped: false, async_scheduling: false },
        Arc::new(Live::default()),
        Arc::new(AtomicBool::new(false)),
    );
    let mut phases = [PhasePlan { phase: Phase::Measure, load: ClosedLoop::new(0, 1, None), count: 1 }];
    let (_, recorded) = on_both(placement, || act_as_engine(&mut tokens, &mut submits), || recorder.run(&mut phases))?;
    let tape = recorder.into_parts().2;
    let times = tape.tokens.first().zip(tape.tokens.last());
    match (recorded, times) {
        (Ok(()), Some((first, last))) if tape.tokens.len() == EVENTS && last.received_ns > first.received_ns => {
            Ok(EVENTS as f64 / ((last.received_ns - first.received_ns) as f64 / 1e9))
        }
        (recorded, _) => {
            let problem = format!("{} of {EVENTS} token events were recorded ({recorded:?})", tape.tokens.len());
            Err(CalibrationError::Answer { concurrency: 1, problem })
        }
    }
}

/// Pushes all tokens of the one request once it is submitted, its finish, and the end when that is asked for.
fn act_as_engine(tokens: &mut Producer, submits: &mut Consumer) {
    let give_up_ns = clock_ns() + GIVE_UP_NS;
    let record = TokensRecord {
        kind: TokensRecord::KIND,
        count: TOKENS_PER_RECORD as u8,
        tokens: [1; TOKENS_PER_RECORD as usize],
        ..Zeroable::zeroed()
    };
    let batch = [RawRecord::of(&record); BATCH];
    let mut push = |records: &[RawRecord]| while !tokens.push(records) && clock_ns() < give_up_ns {};
    let mut wait_for = |count: usize| {
        let mut seen = 0;
        while seen < count && clock_ns() < give_up_ns {
            // A broken ring shows as records that never come, and the recorder says why.
            seen += submits.pop(100).ok().flatten().map_or(0, |batch| batch.records.len());
        }
    };
    wait_for(1);
    for _ in 0..EVENTS / (BATCH * TOKENS_PER_RECORD as usize) {
        push(&batch);
    }
    push(&[RawRecord::of(&FinishRecord { kind: FinishRecord::KIND, ..Zeroable::zeroed() })]);
    wait_for(1);
    push(&[RawRecord::of(&EndedRecord { kind: EndedRecord::KIND, ..Zeroable::zeroed() })]);
}
