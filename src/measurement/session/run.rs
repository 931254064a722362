//! One run on a loaded engine: reset -> stage -> prime -> warm up -> measure -> drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use super::run_queue::RunQueue;
use super::watchdog::{TICK, Watchdog};
use super::{Ended, Engine, RunRequests, SessionError, Sidecar, SidecarOptions, Window};
use crate::machine::device::Placement;
use crate::measurement::load::ClosedLoop;
use crate::measurement::recorder::{Live, LiveTotals, PhasePlan, Recorder, RecorderError, RecorderOptions, Tape};
use crate::measurement::timeline::Phase;
use crate::measurement::timeline::run_name;
use crate::question::plan::{Drive, Load, Point};

/// Steps to have room for, beyond those that follow from the lengths.
const SPARE_STEPS: usize = 4096;

/// What was recorded of one run, complete or not.
pub struct RunRecording {
    /// All events.
    pub tape: Tape,
    /// Why the run ended early, if it did.
    pub failure: Option<SessionError>,
    /// What the engine process said at the end.
    pub ended: Option<Ended>,
    /// Whether the prefix cache was emptied before the run.
    pub cache_reset: bool,
    /// Step of the wall clock against CLOCK_MONOTONIC over the run, in nanoseconds.
    pub clock_step_ns: i64,
    /// What was noticed on the way.
    pub warnings: Vec<String>,
}

/// How the user may stop a run.
pub trait Interrupts {
    /// Returns when the user wants to leave now, without finishing the run.
    fn leave_now(&mut self) -> impl Future<Output = ()>;
    /// Returns when the user wants to leave: what is not a run, a load perhaps, is not finished.
    fn leave(&mut self) -> impl Future<Output = ()>;
}

/// Whoever watches a run that is thrown away: the first interrupt ends it.
pub(super) struct Throwaway<'a, O>(pub(super) &'a mut O);

impl<O: Progress> Progress for Throwaway<'_, O> {
    fn tick(&mut self, totals: &LiveTotals) {
        self.0.tick(totals);
    }
}

impl<O: Interrupts> Interrupts for Throwaway<'_, O> {
    async fn leave_now(&mut self) {
        self.0.leave().await;
    }

    async fn leave(&mut self) {
        self.0.leave().await;
    }
}

/// Where the progress of a run goes.
pub trait Progress {
    /// Called a few times a second with the totals so far.
    fn tick(&mut self, totals: &LiveTotals);
}

/// Carries out `point` as its repeat `repeat`, with the prompts of the planned one: those of a run that is measured anew are
/// those of before. An error here means that the run never began; a run that broke off comes
/// back with its failure and what was recorded until then.
pub async fn execute(
    sidecar: &mut Sidecar,
    engine: &mut Engine,
    options: &SidecarOptions,
    point: &Point,
    (planned, repeat): (u32, u32),
    observer: &mut (impl Progress + Interrupts),
) -> Result<RunRecording, SessionError> {
    let Prepared { cache_reset, requests, tape, offset_before, window } = tokio::select! {
        biased;
        () = observer.leave_now() => return Err(SessionError::Interrupted),
        prepared = prepare(engine, point, planned, repeat) => prepared?,
    };
    let recorder_options = RecorderOptions {
        wait: options.placement.wait_strategy,
        stepped: point.drive == Drive::Stepped,
        async_scheduling: engine.facts().async_scheduling,
    };
    let (phases, placement) = (phases(&requests, point.load), &options.placement);
    let thread = RecorderThread::start(window, tape, recorder_options, phases, placement)?;
    let watchdog = Watchdog::new(engine.pid(), engine.pace(), step_tokens(point, engine), options.stall_limit);
    let threads = [("the engine", engine.pid()), ("the recorder", thread.id)];
    let run_queue = RunQueue::begin(&threads, placement.recorder_core.is_none());
    let watched = watch(thread, sidecar, engine, (watchdog, run_queue), observer).await;
    let mut ended = watched.ended;
    let mut failure = watched.failure;
    if let Some(window) = watched.window.filter(|_| failure.is_none()) {
        match engine.ended(window, ended.take(), sidecar).await {
            Ok(said) => ended = Some(said),
            Err(err) => failure = Some(err),
        }
    }
    Ok(RunRecording {
        tape: watched.tape,
        failure,
        ended,
        cache_reset,
        clock_step_ns: wall_clock_offset_ns() - offset_before,
        warnings: watched.warnings,
    })
}

/// A run that has begun, and of which nothing was submitted yet.
struct Prepared {
    cache_reset: bool,
    requests: RunRequests,
    tape: Tape,
    offset_before: i64,
    window: Window,
}

async fn prepare(engine: &mut Engine, point: &Point, planned: u32, repeat: u32) -> Result<Prepared, SessionError> {
    let cache_reset = engine.reset().await?;
    let requests = RunRequests::generate(point, planned, engine.facts().vocab_size);
    engine.stage(&requests.specs, &salt(point, repeat)).await?;
    let tape =
        Tape::with_capacity(requests.events.clone(), requests.max_token_events(), step_capacity(&requests, engine));
    let offset_before = wall_clock_offset_ns();
    let run_name = run_name(&point.name, &point.point, repeat);
    let window = engine.begin(&run_name, point.limits, point.drive).await?;
    Ok(Prepared { cache_reset, requests, tape, offset_before, window })
}

/// Unique for each run of an engine, so that no run is answered from another's prefix cache.
fn salt(point: &Point, repeat: u32) -> String {
    use sha2::{Digest, Sha256};
    let digest =
        Sha256::digest(format!("{}|{}|{repeat}|{}", point.name, point.point, crate::measurement::ring::clock_ns()));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn phases(requests: &RunRequests, load: Load) -> Vec<PhasePlan> {
    let Load::Closed { concurrency } = load;
    let mut first = 0;
    let mut phases = Vec::new();
    for (phase, count) in requests.counts {
        phases.push(PhasePlan { phase, load: ClosedLoop::new(first, count, concurrency), count });
        first += count;
    }
    phases
}

/// Steps that the run can take: each wave of a full batch decodes its longest request, and prefill takes a step for
/// each budget of tokens; doubled for preemptions. Never more than one step for each token computed.
fn step_capacity(requests: &RunRequests, engine: &Engine) -> usize {
    let facts = engine.facts();
    let prompt_tokens: usize = requests.specs.iter().map(|spec| spec.prompt.len()).sum();
    let prefill_steps = prompt_tokens / (facts.max_num_batched_tokens as usize).max(1) + requests.specs.len();
    let bound = 2 * (requests.max_token_events() + prefill_steps);
    bound.min(requests.max_token_events() + prompt_tokens) + SPARE_STEPS
}

/// Most tokens that a step of this point can have.
fn step_tokens(point: &Point, engine: &Engine) -> u64 {
    let Load::Closed { concurrency } = point.load;
    let prompts = u64::from(concurrency.unwrap_or(point.num_prompts)) * u64::from(point.input_len);
    prompts.min(engine.facts().max_num_batched_tokens.into())
}

/// Wall clock minus CLOCK_MONOTONIC: it changes when somebody sets the clock.
fn wall_clock_offset_ns() -> i64 {
    let ns = |clock| clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec());
    ns(ClockId::CLOCK_REALTIME) - ns(ClockId::CLOCK_MONOTONIC)
}

type RecorderOutcome = (Recorder, Result<(), RecorderError>);

/// The recorder on its pinned thread.
struct RecorderThread {
    done: oneshot::Receiver<RecorderOutcome>,
    live: Arc<Live>,
    stop: Arc<AtomicBool>,
    pinning: Option<String>,
    /// Of the thread, as the kernel numbers threads.
    id: u32,
}

impl RecorderThread {
    fn start(
        window: Window,
        tape: Tape,
        options: RecorderOptions,
        mut phases: Vec<PhasePlan>,
        placement: &Placement,
    ) -> Result<RecorderThread, SessionError> {
        let (send, done) = oneshot::channel();
        let live = Arc::new(Live::default());
        let stop = Arc::new(AtomicBool::new(false));
        let mut recorder =
            Recorder::new(window.events, window.requests, tape, options, Arc::clone(&live), Arc::clone(&stop));
        let (tell_pinning, pinning) = std::sync::mpsc::channel();
        let placement = placement.clone();
        let started = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            // A priority that is not permitted was found out before, and stands in the session's record.
            let seat = placement.seat_recorder();
            // The other side waits for this word, so that pinning is over before anything is measured.
            let id = nix::unistd::gettid().as_raw().unsigned_abs();
            let _ = tell_pinning.send((seat.not_pinned, id));
            let result = recorder.run(&mut phases);
            let _ = send.send((recorder, result)); // nobody listens only if the session itself is gone
        });
        started.map_err(SessionError::io("starting the recorder's thread"))?;
        let (pinning, id) = pinning.recv().unwrap_or_default();
        Ok(RecorderThread { done, live, stop, pinning, id })
    }
}

struct Watched {
    tape: Tape,
    window: Option<Window>,
    failure: Option<SessionError>,
    ended: Option<Ended>,
    warnings: Vec<String>,
}

/// Waits for the recorder, and stops it when the engine fails or falls silent, or when the user wants to leave.
async fn watch(
    mut thread: RecorderThread,
    sidecar: &mut Sidecar,
    engine: &mut Engine,
    (mut watchdog, mut run_queue): (Watchdog, RunQueue),
    observer: &mut (impl Progress + Interrupts),
) -> Watched {
    let mut failure = None;
    let mut ended = None;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut thread.done => break outcome,
            sign = engine.next_sign(), if ended.is_none() && failure.is_none() => match sign {
                Ok(Some(said)) => ended = Some(said),
                Ok(None) => {
                    // First, so that a recorder that spins on the sidecar's core does not keep it from saying why.
                    thread.stop.store(true, Ordering::Relaxed); // partner: the recorder's load between two batches
                    failure = Some(sidecar.why_gone(engine.pid()).await);
                }
                Err(err) => failure = Some(err),
            },
            () = observer.leave_now(), if failure.is_none() => failure = Some(SessionError::Interrupted),
            _ = ticks.tick() => {
                let totals = thread.live.totals();
                observer.tick(&totals);
                run_queue.look();
                if failure.is_none() {
                    failure = watchdog.look(&totals);
                }
            }
        }
        if failure.is_some() {
            thread.stop.store(true, Ordering::Relaxed); // partner: the recorder's load between two batches
        }
    };
    engine.keep_pace(watchdog.pace());
    run_queue.look();
    let warnings = thread.pinning.into_iter().chain(run_queue.warnings()).collect();
    match outcome {
        Ok((recorder, result)) => {
            let (events, requests, tape) = recorder.into_parts();
            let failure = failure.or_else(|| result.err().map(SessionError::from));
            Watched { tape, window: Some(Window { events, requests }), failure, ended, warnings }
        }
        Err(_) => {
            let lost = SessionError::Protocol("the recorder's thread is gone".to_owned());
            let tape = Tape::with_capacity(Vec::new(), 0, 0);
            Watched { tape, window: None, failure: Some(failure.unwrap_or(lost)), ended, warnings }
        }
    }
}

// Phases follow each other in the order in which their requests are staged.
const _: () = assert!((Phase::Prime as u8) < Phase::Warmup as u8 && (Phase::Warmup as u8) < Phase::Measure as u8);
