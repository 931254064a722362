//! A run without an engine process: a recorder over real rings, and a thread that does what an engine would.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use bench::machine::device::WaitStrategy;
use bench::measurement::load::ClosedLoop;
use bench::measurement::recorder::{Live, PhasePlan, Recorder, RecorderError, RecorderOptions, Tape};
use bench::measurement::ring::protocol::{
    EVENT_STREAM, EndRecord, EndedRecord, FinishRecord, GrantRecord, REQUEST_STREAM, StepRecord, SubmitRecord,
    TokensRecord,
};
use bench::measurement::ring::{Consumer, Producer, RawRecord, RingMemory};
use bench::measurement::timeline::{Counters, Phase, RequestEvent};
use bytemuck::Zeroable;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Requests of priming, warm-up and measurement.
const REQUESTS: [(Phase, u32); 3] = [(Phase::Prime, 1), (Phase::Warmup, 64), (Phase::Measure, 8_000)];
const CONCURRENCY: u32 = 32;
const TOKENS: u32 = 8;
/// Far more than the requests in flight can give before they are refilled.
const CAPACITY: u32 = 1 << 14;
/// Every so many steps the engine pauses for long enough that a recorder that may sleep does so.
const STEPS_TO_A_PAUSE: u32 = 128;
const PAUSE: Duration = Duration::from_millis(1);

/// A run that is ready to begin.
pub struct Rehearsal {
    recorder: Recorder,
    phases: Vec<PhasePlan>,
    engine: JoinHandle<u32>,
    /// Both rings use its number.
    _wake: Option<EventFd>,
}

impl Rehearsal {
    /// Starts the engine's thread, which waits for the first request.
    pub fn begin(wait: WaitStrategy, stepped: bool) -> Rehearsal {
        let events = RingMemory::create(EVENT_STREAM, CAPACITY).unwrap();
        let requests = RingMemory::create(REQUEST_STREAM, CAPACITY).unwrap();
        let wake = wait.sleeps().then(|| EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        let engine = Engine {
            requests: requests.consumer(None).unwrap(),
            events: events.producer(wake.as_ref().map(AsFd::as_fd)).unwrap(),
            under_way: Vec::new(),
            grants: if stepped { 0 } else { u32::MAX },
            steps: 0,
        };
        let count: u32 = REQUESTS.iter().map(|(_, count)| count).sum();
        let staged = REQUESTS.iter().flat_map(|(phase, count)| {
            std::iter::repeat_n(RequestEvent::planned(*phase, 8, TOKENS, 0), *count as usize)
        });
        let room = (count * TOKENS) as usize;
        let recorder = Recorder::new(
            events.consumer(wake.as_ref().map(AsFd::as_fd)).unwrap(),
            requests.producer(None).unwrap(),
            Tape::with_capacity(staged.collect(), room, room),
            RecorderOptions { wait, stepped, async_scheduling: false },
            Arc::new(Live::default()),
            Arc::new(AtomicBool::new(false)),
        );
        let mut phases = Vec::new();
        let mut first = 0;
        for (phase, count) in REQUESTS {
            phases.push(PhasePlan { phase, load: ClosedLoop::new(first, count, Some(CONCURRENCY)), count });
            first += count;
        }
        Rehearsal { recorder, phases, engine: std::thread::spawn(move || engine.serve()), _wake: wake }
    }

    /// Records the run on the calling thread.
    pub fn run(&mut self) -> Result<(), RecorderError> {
        self.recorder.run(&mut self.phases)
    }

    /// Asserts that all of the run was recorded.
    pub fn check(self) {
        let steps = self.engine.join().unwrap();
        let (_, _, tape) = self.recorder.into_parts();
        let requests: u32 = REQUESTS.iter().map(|(_, count)| count).sum();
        assert!(tape.requests.iter().all(RequestEvent::finished));
        assert_eq!(tape.tokens.len(), (requests * TOKENS) as usize);
        assert_eq!(tape.steps.len(), steps as usize);
        assert!(steps > REQUESTS[2].1 / CONCURRENCY * TOKENS, "{steps}");
        assert_eq!(tape.counters, Counters::default());
    }
}

/// Gives each request one token a step.
struct Engine {
    requests: Consumer,
    events: Producer,
    /// Handles, and the tokens that each still gets.
    under_way: Vec<(u32, u32)>,
    grants: u32,
    steps: u32,
}

impl Engine {
    /// Serves one run; returns its steps.
    fn serve(mut self) -> u32 {
        while !self.take_requests() {
            if self.under_way.is_empty() || self.grants == 0 {
                std::thread::yield_now();
                continue;
            }
            self.step();
            if self.steps.is_multiple_of(STEPS_TO_A_PAUSE) {
                std::thread::sleep(PAUSE);
            }
        }
        self.push(&[RawRecord::of(&EndedRecord { kind: EndedRecord::KIND, ..EndedRecord::zeroed() })]);
        self.steps
    }

    /// Whether the run is to end.
    fn take_requests(&mut self) -> bool {
        let mut is_over = false;
        while let Some(batch) = self.requests.pop(1).unwrap() {
            for record in batch.records {
                match record.kind() {
                    SubmitRecord::KIND => self.under_way.push((record.view::<SubmitRecord>().request, TOKENS)),
                    GrantRecord::KIND => self.grants += 1,
                    EndRecord::KIND => is_over = true,
                    kind => panic!("a request record of kind {kind}"),
                }
            }
        }
        is_over
    }

    fn step(&mut self) {
        let step = self.steps;
        self.steps += 1;
        self.grants -= u32::from(self.grants != u32::MAX);
        let mut tokens = Vec::new();
        for slots in self.under_way.chunks_mut(8) {
            let mut record = TokensRecord { kind: TokensRecord::KIND, step, ..TokensRecord::zeroed() };
            for (at, (request, left)) in slots.iter_mut().enumerate() {
                (record.request[at], record.tokens[at]) = (*request, 1);
                record.count += 1;
                *left -= 1;
            }
            tokens.push(RawRecord::of(&record));
        }
        self.push(&tokens);
        let mut rest = vec![RawRecord::of(&StepRecord { kind: StepRecord::KIND, step, ..StepRecord::zeroed() })];
        let finished = self.under_way.extract_if(.., |(_, left)| *left == 0).map(|(request, _)| {
            RawRecord::of(&FinishRecord { kind: FinishRecord::KIND, count: 2, request, ..FinishRecord::zeroed() })
        });
        rest.extend(finished);
        self.push(&rest);
    }

    fn push(&mut self, records: &[RawRecord]) {
        assert!(self.events.push(records), "the ring is full");
    }
}
