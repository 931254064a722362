//! Records that no sound engine pushes are counted by the recorder, and never followed.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bench::machine::device::WaitStrategy;
use bench::measurement::load::ClosedLoop;
use bench::measurement::recorder::{Live, PhasePlan, Recorder, RecorderError, RecorderOptions, Tape};
use bench::measurement::ring::protocol::{
    EVENT_STREAM, EndedRecord, FinishRecord, REQUEST_STREAM, StepRecord, TokensRecord,
};
use bench::measurement::ring::{RawRecord, RingMemory};
use bench::measurement::timeline::{Counters, Phase, RequestEvent};
use bytemuck::Zeroable;

/// Runs a recorder with one request, and another that is staged and never submitted, over records that lie in the ring
/// already; `spoil` may then spoil the ring. Gives what it said, and its tape.
fn record(records: &[RawRecord], spoil: impl FnOnce(&RingMemory)) -> (Result<(), RecorderError>, Tape) {
    let events = RingMemory::create(EVENT_STREAM, 64).unwrap();
    let requests = RingMemory::create(REQUEST_STREAM, 64).unwrap();
    let (consumer, mut engine) = (events.consumer(None).unwrap(), events.producer(None).unwrap());
    assert!(engine.push(records));
    spoil(&events);
    let staged = vec![RequestEvent::planned(Phase::Measure, 8, 8, 0); 2];
    let mut recorder = Recorder::new(
        consumer,
        requests.producer(None).unwrap(),
        Tape::with_capacity(staged, 16, 16),
        RecorderOptions { wait: WaitStrategy::Spin, stepped: false, async_scheduling: false },
        Arc::new(Live::default()),
        Arc::new(AtomicBool::new(false)),
    );
    let plan = PhasePlan { phase: Phase::Measure, load: ClosedLoop::new(0, 1, None), count: 1 };
    let result = recorder.run(&mut [plan]);
    (result, recorder.into_parts().2)
}

fn tokens(count: u8, request: u32, tokens: u16) -> RawRecord {
    let kind = TokensRecord::KIND;
    RawRecord::of(&TokensRecord { kind, count, request: [request; 8], tokens: [tokens; 8], ..TokensRecord::zeroed() })
}

fn finish(request: u32) -> RawRecord {
    RawRecord::of(&FinishRecord { kind: FinishRecord::KIND, count: 2, request, ..FinishRecord::zeroed() })
}

fn of_kind(kind: u8) -> RawRecord {
    RawRecord::of(&EndedRecord { kind, count: 1, ..EndedRecord::zeroed() })
}

/// Records `odd` between a sound token and the finish; the sound ones must come out as if it were not there.
fn counted(odd: RawRecord) -> Counters {
    let (result, tape) = record(&[tokens(1, 0, 3), odd, finish(0), of_kind(EndedRecord::KIND)], |_| ());
    result.unwrap();
    assert_eq!(tape.tokens.iter().map(|event| (event.request, event.count)).collect::<Vec<_>>(), [(0, 3)]);
    assert!(tape.requests[0].finished() && !tape.requests[1].finished());
    assert!(tape.steps.is_empty());
    tape.counters
}

#[test]
fn a_record_of_unknown_kind_is_malformed() {
    let known = [TokensRecord::KIND, StepRecord::KIND, FinishRecord::KIND, EndedRecord::KIND];
    for kind in (0..=u8::MAX).filter(|kind| !known.contains(kind)) {
        assert_eq!(counted(of_kind(kind)), Counters { malformed: 1, ..Counters::default() }, "kind {kind}");
    }
}

#[test]
fn a_count_of_slots_that_a_record_does_not_have_is_malformed() {
    for count in [0, 9, 255] {
        assert_eq!(counted(tokens(count, 0, 1)), Counters { malformed: 1, ..Counters::default() }, "count {count}");
    }
}

#[test]
fn a_handle_that_stands_for_no_submitted_request_is_unexplained() {
    // Staged and not submitted; the first that is not staged; the largest.
    for handle in [1, 2, u32::MAX] {
        assert_eq!(counted(tokens(8, handle, 1)), Counters { unexplained: 8, ..Counters::default() }, "{handle}");
        assert_eq!(counted(finish(handle)), Counters { unexplained: 1, ..Counters::default() }, "{handle}");
    }
}

#[test]
fn an_event_without_tokens_is_unexplained() {
    assert_eq!(counted(tokens(1, 0, 0)), Counters { unexplained: 1, ..Counters::default() });
}

#[test]
fn recorder_is_stopped_while_the_engine_goes_on_pushing() {
    const CAPACITY: u32 = 64;
    let events = RingMemory::create(EVENT_STREAM, CAPACITY).unwrap();
    let requests = RingMemory::create(REQUEST_STREAM, CAPACITY).unwrap();
    let (consumer, mut engine) = (events.consumer(None).unwrap(), events.producer(None).unwrap());
    let mut recorder = Recorder::new(
        consumer,
        requests.producer(None).unwrap(),
        Tape::with_capacity(vec![RequestEvent::planned(Phase::Measure, 8, 8, 0)], 16, 16),
        RecorderOptions { wait: WaitStrategy::Spin, stepped: false, async_scheduling: false },
        Arc::new(Live::default()),
        Arc::new(AtomicBool::new(true)),
    );
    let plan = PhasePlan { phase: Phase::Measure, load: ClosedLoop::new(0, 1, None), count: 1 };
    let is_over = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = engine.push(&[of_kind(77)]); // false while the ring is full
            }
        });
        let result = recorder.run(&mut [plan]);
        is_over.store(true, Ordering::Relaxed);
        result
    });
    assert!(matches!(result, Err(RecorderError::Stopped)), "{result:?}");
    let recorded = recorder.into_parts().2.counters.malformed;
    assert!(recorded <= 256 * u64::from(CAPACITY), "{recorded} records after the stop");
}

#[test]
fn a_ring_that_broke_ends_the_recording() {
    let (result, tape) = record(&[tokens(1, 0, 3)], |events| {
        let file = std::fs::File::from(std::os::fd::AsFd::as_fd(events).try_clone_to_owned().unwrap());
        file.write_all_at(&u64::MAX.to_ne_bytes(), 128).unwrap(); // the producer's index
    });
    assert!(matches!(result, Err(RecorderError::Ring(_))), "{result:?}");
    assert!(tape.tokens.is_empty());
}
