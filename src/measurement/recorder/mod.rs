//! The recorder: one pinned thread that hands requests to the engine and stamps what comes back.
//!
//! It is also the issuer. A closed loop's next request is due the instant a finish is seen, and the thread that sees it
//! submits it; a second thread would need a core, or a wake-up that costs more than the transport being measured.
//! On this path nothing is allocated, locked or logged, and the only system call is the clock (the wake-up of an engine
//! or a recorder that sleeps excepted, which a spinning one never does).

mod live;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use live::{Live, LiveTotals};

use crate::machine::device::WaitStrategy;
use crate::measurement::load::ClosedLoop;
use crate::measurement::ring::protocol::{
    ABSENT_NS, EndRecord, EndedRecord, FinishRecord, GrantRecord, StepRecord, SubmitRecord, TokensRecord, UNKNOWN_COUNT,
};
use crate::measurement::ring::{Consumer, Producer, RawRecord, RingError, clock_ns};
use crate::measurement::timeline::{ABSENT, Counters, Hiccup, Phase, RequestEvent, StepEvent, TokenEvent};

/// Looks at the ring between two looks at the stop flag, or before a sleep; about 100 us.
const LOOKS: u32 = 2_000;
/// Batches that are recorded after the stop, at most: those of a full ring. An engine that goes on pushing fills it for ever.
const LAST_BATCHES: u32 = 256;
/// How long a recorder sleeps at most, until it looks at the stop flag again.
const SLEEP_MS: u32 = 20;
/// A recorder that looks all the time looks every 50 ns or so. From this gap on it counts as a hiccup of its core.
pub const HICCUP_NS: u64 = 5_000;
/// Hiccups that are kept of one run; a minute on a busy virtual machine has 24,000.
const MAX_HICCUPS: usize = 1 << 17;

/// Why recording ended.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The ring is broken.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The request ring found no room, which its capacity should have made impossible.
    #[error("the request ring is full: the engine does not take requests any more")]
    RequestRingFull,
    /// Someone else set the stop flag.
    #[error("stopped")]
    Stopped,
}

/// One phase of a run: requests that follow each other in the staged order.
#[derive(Clone, Debug)]
pub struct PhasePlan {
    /// Which part of the run.
    pub phase: Phase,
    /// Which of its requests is due when.
    pub load: ClosedLoop,
    /// How many requests it has.
    pub count: u32,
}

/// Memory for the events of one run, taken and touched before the run.
#[derive(Debug)]
pub struct Tape {
    /// All staged requests.
    pub requests: Vec<RequestEvent>,
    /// Token events as they arrived.
    pub tokens: Vec<TokenEvent>,
    /// Steps as they arrived.
    pub steps: Vec<StepEvent>,
    /// What went wrong on the way.
    pub counters: Counters,
    /// Times in which a recorder that looks all the time did not look; filled when the recording is over.
    pub hiccups: Vec<Hiccup>,
    /// How many there were, in `hiccups` or beyond its room; `None` if the recorder slept.
    pub num_hiccups: Option<u64>,
}

impl Tape {
    /// Room for `tokens` token events and `steps` steps. The pages are touched here, not on the recording path.
    pub fn with_capacity(requests: Vec<RequestEvent>, tokens: usize, steps: usize) -> Tape {
        Tape {
            requests,
            tokens: touched(tokens),
            steps: touched(steps),
            counters: Counters::default(),
            hiccups: Vec::new(),
            num_hiccups: None,
        }
    }
}

fn touched<T: bytemuck::Zeroable + Clone>(capacity: usize) -> Vec<T> {
    let mut room = Vec::with_capacity(capacity);
    room.resize(capacity, T::zeroed());
    room.clear();
    room
}

/// Records one run.
pub struct Recorder {
    events: Consumer,
    requests: Producer,
    tape: Tape,
    wait: WaitStrategy,
    /// Looks without a record until the wait strategy has its say.
    looks: u32,
    stepped: bool,
    async_scheduling: bool,
    live: Arc<Live>,
    stop: Arc<AtomicBool>,
    /// Batches that are still recorded once `stop` is set.
    last_batches: u32,
    outstanding: u32,
    ended: bool,
    submits: Vec<RawRecord>,
    has_token: Vec<bool>,
}

/// What a recorder needs to know of the run.
#[derive(Clone, Copy, Debug)]
pub struct RecorderOptions {
    /// How it waits.
    pub wait: WaitStrategy,
    /// Whether the harness grants every step.
    pub stepped: bool,
    /// Whether the engine schedules ahead, so that a token may follow its request's finish.
    pub async_scheduling: bool,
}

impl Recorder {
    /// A recorder over both rings. `stop` ends it at the latest a few milliseconds after it was set, also while records come.
    pub fn new(
        mut events: Consumer,
        requests: Producer,
        tape: Tape,
        options: RecorderOptions,
        live: Arc<Live>,
        stop: Arc<AtomicBool>,
    ) -> Recorder {
        events.watch_hiccups(HICCUP_NS, if options.wait == WaitStrategy::Spin { MAX_HICCUPS } else { 0 });
        let submits = Vec::with_capacity(tape.requests.len());
        let has_token = vec![false; tape.requests.len()];
        Recorder {
            events,
            requests,
            tape,
            wait: options.wait,
            looks: if options.wait == WaitStrategy::Sleep { 1 } else { LOOKS },
            stepped: options.stepped,
            async_scheduling: options.async_scheduling,
            live,
            stop,
            last_batches: LAST_BATCHES,
            outstanding: 0,
            ended: false,
            submits,
            has_token,
        }
    }

    /// Runs the phases one after the other, then ends the run and records what is left of it.
    pub fn run(&mut self, phases: &mut [PhasePlan]) -> Result<(), RecorderError> {
        for phase in phases {
            self.run_phase(phase)?;
        }
        self.end()
    }

    /// Gives back the rings and what was recorded.
    pub fn into_parts(self) -> (Consumer, Producer, Tape) {
        let mut tape = self.tape;
        tape.counters.ring_dropped = self.events.dropped();
        if self.wait == WaitStrategy::Spin {
            let (hiccups, count) = self.events.hiccups();
            tape.hiccups = hiccups.to_vec();
            tape.num_hiccups = Some(count as u64);
        }
        (self.events, self.requests, tape)
    }

    fn run_phase(&mut self, phase: &mut PhasePlan) -> Result<(), RecorderError> {
        if phase.count == 0 {
            return Ok(());
        }
        self.live.enter(phase.phase);
        let due = phase.load.start();
        self.submit(due, None)?;
        self.grant()?;
        while self.outstanding > 0 {
            self.take_batch(Some(&mut phase.load))?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), RecorderError> {
        let end = EndRecord { kind: EndRecord::KIND, ..bytemuck::Zeroable::zeroed() };
        if !self.requests.push(&[RawRecord::of(&end)]) {
            return Err(RecorderError::RequestRingFull);
        }
        while !self.ended {
            self.take_batch(None)?;
        }
        Ok(())
    }

    /// Publishes the handles of `due` together, so that the engine sees all or none of them in a step. Without a time at
    /// which they were due, they are due now: once their records are made, which is no part of their latency.
    fn submit(&mut self, due: std::ops::Range<u32>, scheduled_ns: Option<u64>) -> Result<(), RecorderError> {
        self.submits.clear();
        for request in due.clone() {
            let record = SubmitRecord { kind: SubmitRecord::KIND, request, ..bytemuck::Zeroable::zeroed() };
            self.submits.push(RawRecord::of(&record));
        }
        let submitted_ns = clock_ns();
        if !self.requests.push(&self.submits) {
            return Err(RecorderError::RequestRingFull);
        }
        for request in due {
            let event = &mut self.tape.requests[request as usize];
            event.scheduled_ns = scheduled_ns.unwrap_or(submitted_ns);
            event.submitted_ns = submitted_ns;
            self.outstanding += 1;
        }
        Ok(())
    }

    /// Where the harness drives the engine: allows the next step.
    fn grant(&mut self) -> Result<(), RecorderError> {
        if !self.stepped {
            return Ok(());
        }
        let grant = GrantRecord { kind: GrantRecord::KIND, steps: 1, ..bytemuck::Zeroable::zeroed() };
        if self.requests.push(&[RawRecord::of(&grant)]) { Ok(()) } else { Err(RecorderError::RequestRingFull) }
    }

    /// Waits a bounded time for records, and records them.
    fn take_batch(&mut self, mut load: Option<&mut ClosedLoop>) -> Result<(), RecorderError> {
        let batch = self.events.pop(self.looks)?;
        // Partner: the session's store as it gives up on the run. Nothing is read through it: relaxed is enough.
        if self.stop.load(Ordering::Relaxed) {
            if batch.is_none() || self.last_batches == 0 {
                return Err(RecorderError::Stopped);
            }
            self.last_batches -= 1;
        }
        let Some(batch) = batch else {
            if self.wait.sleeps() {
                self.events.wait(SLEEP_MS)?;
            }
            return Ok(());
        };
        let received_ns = batch.received_ns;
        let poll_gap_ns = batch.poll_gap_ns();
        let mut finished = 0;
        let mut steps = 0;
        for record in batch.records {
            match record.kind() {
                TokensRecord::KIND => {
                    let seen = (received_ns, poll_gap_ns);
                    let (record, ahead) = (record.view(), self.async_scheduling);
                    record_tokens(&mut self.tape, &mut self.has_token, record, seen, ahead, &self.live);
                }
                StepRecord::KIND => {
                    record_step(&mut self.tape, record.view(), &self.live);
                    steps += 1;
                }
                FinishRecord::KIND => finished += record_finish(&mut self.tape, record.view(), received_ns),
                EndedRecord::KIND => self.ended = true,
                _ => self.tape.counters.malformed += 1,
            }
        }
        self.live.batch();
        for _ in 0..finished {
            self.outstanding = self.outstanding.saturating_sub(1);
            if let Some(request) = load.as_mut().and_then(|load| load.finished()) {
                self.submit(request..request + 1, Some(received_ns))?;
            }
        }
        for _ in 0..steps {
            self.grant()?;
        }
        Ok(())
    }
}

/// The request that a handle stands for, if it was submitted.
fn submitted(tape: &mut Tape, handle: u32) -> Option<&mut RequestEvent> {
    tape.requests.get_mut(handle as usize).filter(|request| request.submitted_ns != ABSENT)
}

fn record_tokens(
    tape: &mut Tape,
    has_token: &mut [bool],
    record: &TokensRecord,
    (received_ns, poll_gap_ns): (u64, u32),
    async_scheduling: bool,
    live: &Live,
) {
    let slots = record.count as usize;
    if slots == 0 || slots > record.request.len() {
        tape.counters.malformed += 1;
        return;
    }
    for (&request, &count) in record.request.iter().zip(&record.tokens).take(slots) {
        let Some(event) = submitted(tape, request).filter(|_| count > 0) else {
            tape.counters.unexplained += 1;
            continue;
        };
        if event.finished() {
            // Under async scheduling the engine may sample once more before it learns that a request is done.
            let counter = if async_scheduling { &mut tape.counters.discarded } else { &mut tape.counters.unexplained };
            *counter += 1;
            continue;
        }
        live.tokens(u64::from(count));
        if !std::mem::replace(&mut has_token[request as usize], true) {
            live.first_token(received_ns.saturating_sub(event.scheduled_ns));
        }
        let token = TokenEvent {
            received_ns,
            emitted_ns: record.emitted_ns,
            request,
            step: record.step,
            count: u32::from(count),
            poll_gap_ns,
        };
        push_within(&mut tape.tokens, token, &mut tape.counters.recorder_overflow);
    }
}

fn record_step(tape: &mut Tape, record: &StepRecord, live: &Live) {
    let tokens = u64::from(record.prefill_tokens) + u64::from(record.decode_tokens);
    live.step(record.ended_ns.saturating_sub(record.started_ns), tokens);
    let tapped_ns = tape.tokens.last().filter(|token| token.step == record.step).map_or(ABSENT, |t| t.emitted_ns);
    let step = StepEvent {
        started_ns: record.started_ns,
        ended_ns: record.ended_ns,
        tapped_ns,
        step: record.step,
        prefill_requests: u32::from(record.prefill_requests),
        prefill_tokens: record.prefill_tokens,
        decode_requests: u32::from(record.decode_requests),
        decode_tokens: record.decode_tokens,
        running: u32::from(record.running),
        waiting: record.waiting,
        kv_cache_usage_ppm: record.kv_cache_usage_ppm,
        preemptions: u32::from(record.preemptions),
        token_events: record.token_events,
        tap_push_ns: record.tap_push_ns,
        involuntary_switches: u32::from(record.flags),
    };
    push_within(&mut tape.steps, step, &mut tape.counters.recorder_overflow);
}

/// 1 if the record ends a request that was under way, else 0.
fn record_finish(tape: &mut Tape, record: &FinishRecord, received_ns: u64) -> u32 {
    let Some(event) = submitted(tape, record.request).filter(|event| !event.finished()) else {
        tape.counters.unexplained += 1;
        return 0;
    };
    event.finish_emitted_ns = record.emitted_ns;
    event.finish_received_ns = received_ns;
    event.engine_queued_ns = record.queued_ns;
    event.engine_scheduled_ns = record.scheduled_ns;
    event.engine_first_token_ns = record.first_token_ns;
    event.engine_last_token_ns = record.last_token_ns;
    event.prompt_tokens = record.prompt_tokens;
    event.output_tokens = record.output_tokens;
    event.cached_tokens = record.cached_tokens;
    event.preemptions = u32::from(record.flags);
    event.finish_reason = record.count;
    1
}

/// Pushes without ever growing: what finds no room is counted.
fn push_within<T>(events: &mut Vec<T>, event: T, overflow: &mut u64) {
    if events.len() < events.capacity() {
        events.push(event);
    } else {
        *overflow += 1;
    }
}

// The timeline uses the protocol's values for what the engine did not give.
const _: () = assert!(ABSENT == ABSENT_NS && UNKNOWN_COUNT == u32::MAX);
