//! A whole plan: sidecars, engine loads, rounds of runs; each run is handed on as soon as it has ended.
//!
//! Each device class has a sidecar of its own. They take turns, as the plan's epochs have it: nothing else is measured while
//! a run goes on. An engine whose turn comes again stays loaded meanwhile.
//!
//! A run that fails is kept as such, and measured once more in a fresh engine. If that fails too, the rest of its point is
//! given up, and the sweep goes on.

mod admission;
mod earlier;
mod record;
mod station;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use super::run::{Interrupts, Progress, RunRecording, Throwaway, execute};
use super::warm_up::{self, Settling};
use super::{Engine, EngineSpec, SessionError, Sidecar};
use crate::measurement::telemetry::{Places, Sample, Sampling, Telemetry};
use crate::measurement::timeline::{Outcome, RunRecord, Timeline, WarmUp};
use crate::question::plan::flag_value;
use crate::question::plan::{EngineKey, Epoch, Location, Plan, PlannedRun, Point};
use admission::check_point;
pub use earlier::Earlier;
use record::{Attempt, without_events};
pub use station::Station;
use trouble::Trouble;

/// Who is told what happens in a sweep, and keeps its results.
pub trait SweepObserver: Progress + Interrupts {
    /// Something takes a while: the import of vLLM, the load of an engine.
    fn waiting_for(&mut self, what: &str);
    /// Something that a person may want to know: what broke while the sweep goes on, which engine is used again.
    fn remark(&mut self, what: &str);
    /// A run begins, as number `number` of `total`, from 0.
    fn run_begins(&mut self, point: &Point, repeat: u32, number: u32, total: u32);
    /// A run is over, or will never begin. An error ends the sweep: results that cannot be kept are not worth measuring.
    fn run_ends(&mut self, timeline: Timeline) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
    /// Whether the runs so far know a point as well as it asks, so that it needs no more.
    fn is_known(&self, point: &Point) -> bool;
    /// Whether the user wants to leave after the run that goes on.
    fn leave_after_run(&self) -> bool;
}

/// Why a sweep ended before its plan.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// vLLM's parser, or the loaded engine, refuses what the configuration asks.
    #[error("{location}: {message}")]
    Config {
        /// Where it stands.
        location: Location,
        /// What is wrong.
        message: String,
    },
    /// The sidecar or an engine could not be started.
    #[error(transparent)]
    Start(SessionError),
    /// The user interrupted; what was finished is kept.
    #[error("interrupted: what was finished is kept, and `--resume` goes on from there")]
    Interrupted,
    /// The results cannot be kept.
    #[error(
        "the results cannot be kept: {0}\n  what to do: remove the cause; what was stored before is kept, and \
             `bench report DIR` makes its reports"
    )]
    Results(Box<dyn std::error::Error + Send + Sync>),
}

/// Measures a plan. `specs` holds what each epoch's engine is loaded with.
pub struct Sweep<'a, O: SweepObserver> {
    plan: &'a Plan,
    specs: &'a [EngineSpec],
    /// One for each device class of the plan.
    stations: Vec<Station>,
    /// The one whose turn it is.
    at: usize,
    observer: &'a mut O,
    order: u32,
    /// Planned runs that need no more attention, by point and repeat.
    settled: BTreeSet<(String, u32)>,
    /// By point, the first repeat that no run has, planned or not.
    free_repeats: BTreeMap<String, u32>,
    /// Points that are not measured any more, and why.
    given_up: BTreeMap<String, String>,
    /// Whether an engine of this command has carried out a run.
    has_measured: bool,
    /// How the loaded engine was warmed up, until its first run has it in its record.
    warm_up: Option<WarmUp>,
    /// When the last measured token of the run before came, for the turnaround.
    last_token_ns: Option<u64>,
}

/// The engine of an epoch: loaded when a run needs it, and anew after it has failed.
struct Seat<'a> {
    epoch: &'a Epoch,
    spec: &'a EngineSpec,
    engine: Option<Engine>,
    /// What a load is for.
    reason: &'a str,
    /// Seconds of a load that no run has been charged with yet.
    load_s: f64,
    /// Whether an engine of it has failed.
    has_failed: bool,
}

impl<'a, O: SweepObserver> Sweep<'a, O> {
    /// A sweep that has not begun. There has to be a station for each device class of the plan.
    pub fn new(plan: &'a Plan, specs: &'a [EngineSpec], stations: Vec<Station>, observer: &'a mut O) -> Self {
        let mut free_repeats = BTreeMap::new();
        for run in plan.epochs.iter().flat_map(Epoch::runs) {
            take_repeat(&mut free_repeats, &run.point.point, run.repeat);
        }
        Sweep {
            plan,
            specs,
            stations,
            at: 0,
            observer,
            order: 0,
            settled: BTreeSet::new(),
            free_repeats,
            given_up: BTreeMap::new(),
            has_measured: false,
            warm_up: None,
            last_token_ns: None,
        }
    }

    /// The rest of a sweep of which these runs are there.
    #[must_use]
    pub fn after(mut self, earlier: Earlier) -> Self {
        self.order = earlier.next_order;
        self.settled = earlier.finished;
        earlier.taken.iter().for_each(|(point, repeat)| take_repeat(&mut self.free_repeats, point, *repeat));
        self
    }

    /// Asks vLLM's parser about every engine, then measures epoch by epoch, and ends the sidecars that do not stay.
    pub async fn run(mut self) -> Result<(), SweepError> {
        let ended = self.run_epochs().await;
        let ended = match ended {
            Err(SweepError::Start(err)) => self.skip_rest(&err).and(Err(SweepError::Start(err))),
            ended => ended,
        };
        let at_once = matches!(ended, Err(SweepError::Interrupted));
        for station in self.stations {
            station.close(at_once).await;
        }
        ended
    }

    async fn run_epochs(&mut self) -> Result<(), SweepError> {
        self.check_arguments().await?;
        let (plan, specs) = (self.plan, self.specs);
        for (index, (epoch, spec)) in plan.epochs.iter().zip(specs).enumerate() {
            self.take_turn(epoch);
            self.run_epoch(index, epoch, spec).await?;
        }
        Ok(())
    }

    /// It is the turn of the epoch's device class.
    fn take_turn(&mut self, epoch: &Epoch) {
        let at = self.stations.iter().position(|station| station.device() == epoch.key.device).unwrap_or(self.at);
        if at != self.at {
            self.last_token_ns = None; // no turnaround: what went by was not this engine's
        }
        self.at = at;
    }

    /// The device class whose turn it is.
    fn station(&mut self) -> &mut Station {
        &mut self.stations[self.at]
    }

    async fn check_arguments(&mut self) -> Result<(), SweepError> {
        let mut asked: BTreeSet<&EngineKey> = BTreeSet::new();
        for (epoch, spec) in self.plan.epochs.iter().zip(self.specs).filter(|(epoch, _)| asked.insert(&epoch.key)) {
            let EngineSpec::Vllm { argv, .. } = spec else { continue };
            self.take_turn(epoch);
            let model = flag_value(argv, "--model").unwrap_or(&epoch.key.model);
            let sidecar = &mut self.stations[self.at].sidecar;
            let checked = tokio::select! {
                biased;
                () = self.observer.leave() => return Err(SweepError::Interrupted),
                checked = sidecar.check(argv) => checked,
            };
            let wrong = match checked {
                Ok(parsed) => parsed.contradiction(&epoch.key, model),
                Err(SessionError::Refused(message)) => Some(message),
                Err(err) => return Err(SweepError::Start(err)),
            };
            if let Some(message) = wrong {
                let location = epoch.key.args_location.0.clone();
                return Err(SweepError::Config { location, message: format!("args: {message}") });
            }
        }
        Ok(())
    }

    async fn run_epoch(&mut self, index: usize, epoch: &Epoch, spec: &EngineSpec) -> Result<(), SweepError> {
        let engine = self.station().kept.take();
        // What was loaded for an epoch whose runs are all there already was not loaded at all.
        let is_awaited = !self.plan.loads_engine(index) && engine.is_none();
        let reason = if is_awaited { "it is not loaded any more" } else { &epoch.reason };
        let mut seat = Seat { epoch, spec, engine, reason, load_s: 0.0, has_failed: false };
        for head in runs_of(index as u32, epoch) {
            if self.settled.contains(&head.key()) {
                continue;
            }
            if self.observer.leave_after_run() {
                break;
            }
            if self.observer.is_known(head.run.point) {
                self.settled.insert(head.key());
                continue;
            }
            match self.given_up.get(&head.run.point.point).cloned() {
                Some(reason) => self.skip(epoch, head, &reason)?,
                None => self.measure(&mut seat, head).await?,
            }
        }
        // Two epochs of one key follow each other only where the second is to have an engine of its own.
        let is_fresh_next = self.plan.epochs.get(index + 1).is_some_and(|next| next.key == epoch.key);
        match seat.engine {
            Some(engine) if is_fresh_next => engine.shutdown().await,
            Some(engine) if self.plan.keeps_engine(index) => self.station().kept = Some(engine),
            Some(engine) => self.station().sidecar.put_back(engine).await,
            None => {}
        }
        if self.observer.leave_after_run() { Err(SweepError::Interrupted) } else { Ok(()) }
    }

    /// A planned run, and if it fails once more in a fresh engine.
    async fn measure(&mut self, seat: &mut Seat<'_>, head: RunHead<'_>) -> Result<(), SweepError> {
        let mut retry_of = None;
        loop {
            let attempt = Attempt { head, repeat: self.next_repeat(head, retry_of), retry_of };
            let Err(trouble) = self.attempt(seat, attempt).await? else { break };
            self.clear_away(seat, &trouble).await?;
            if self.is_interrupted().await {
                return Err(SweepError::Interrupted);
            }
            let is_last = retry_of.is_some() || !trouble.may_pass();
            retry_of = Some(attempt.repeat);
            if is_last {
                self.give_up(seat, attempt, trouble)?;
                break;
            }
            self.observer.remark(&format!("{}once more in a fresh engine", trouble.unsaid()));
        }
        self.settled.insert(head.key());
        Ok(())
    }

    /// Whether the user has interrupted, also where nobody has waited for that.
    async fn is_interrupted(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.observer.leave() => true,
            () = tokio::task::yield_now() => false, // a signal is seen when the runtime looks
        }
    }

    /// The planned repeat; for a retry the first one that is free, beyond them.
    fn next_repeat(&mut self, head: RunHead<'_>, retry_of: Option<u32>) -> u32 {
        let point = &head.run.point.point;
        if retry_of.is_none() {
            return head.run.repeat;
        }
        let free = self.free_repeats.get(point).copied().unwrap_or(0);
        take_repeat(&mut self.free_repeats, point, free);
        free
    }

    /// Carries out a run, on a new engine if there is none. The inner error is what made it fail.
    async fn attempt(&mut self, seat: &mut Seat<'_>, attempt: Attempt<'_>) -> Result<Result<(), Trouble>, SweepError> {
        let mut engine = match seat.engine.take() {
            Some(engine) => engine,
            None => match self.load(seat).await? {
                Ok(engine) => engine,
                Err(err) => return Ok(Err(Trouble::NotLoaded(err))),
            },
        };
        if let Some(reason) = self.given_up.get(&attempt.head.run.point.point).cloned() {
            seat.engine = Some(engine);
            return self.skip(seat.epoch, attempt.head, &reason).map(Ok);
        }
        let failure = self.run_point(&mut engine, seat, attempt).await?;
        seat.engine = Some(engine);
        Ok(failure.map_or(Ok(()), Err))
    }

    /// A loaded engine that has been warmed up; the inner error says why there is none.
    async fn load(&mut self, seat: &mut Seat<'_>) -> Result<Result<Engine, SessionError>, SweepError> {
        let key = &seat.epoch.key;
        let reason = if seat.has_failed { "anew, after a failure" } else { seat.reason };
        let station = &mut self.stations[self.at];
        self.observer.waiting_for(&format!("loading {} ({reason})", key.model));
        // What is loaded half-way ends with its channel, which is dropped here.
        let loaded = tokio::select! {
            biased;
            () = self.observer.leave() => return Err(SweepError::Interrupted),
            loaded = station.sidecar.load(seat.spec) => loaded,
        };
        let mut engine = match loaded {
            Ok(engine) => engine,
            Err(err) => return Ok(Err(err)),
        };
        seat.load_s = engine.load_s();
        for remark in station.sidecar.take_remarks() {
            self.observer.remark(&remark);
        }
        if let Some(age_s) = engine.reused_after_s() {
            self.observer.remark(&format!("the engine is reused: an earlier command had loaded it {age_s:.0} s ago"));
        }
        self.admit(seat.epoch, &engine)?;
        if matches!(seat.spec, EngineSpec::Vllm { .. }) && engine.reused_after_s().is_none() {
            match self.warm_up(seat.epoch, &mut engine).await {
                Ok(()) => {}
                Err(SessionError::Interrupted) => return Err(SweepError::Interrupted),
                Err(err) => {
                    // It failed before, and nothing more can be learned from how it ends.
                    let _ = engine.kill(&mut self.station().sidecar).await;
                    return Ok(Err(err));
                }
            }
        }
        let (device, ranks) = (key.device, key.ranks());
        let places = Places::of_this_machine();
        let station = self.station();
        station.telemetry = Some(Telemetry::open(&places, device, ranks, &station.options.placement));
        Ok(Ok(engine))
    }

    /// Gives up the points that the loaded engine cannot take. While nothing has been measured the whole configuration is
    /// refused, so that it can be mended before an hour has gone by.
    fn admit(&mut self, epoch: &Epoch, engine: &Engine) -> Result<(), SweepError> {
        for point in &epoch.points {
            match check_point(point, engine) {
                Ok(()) => {}
                Err(err) if !self.has_measured => return Err(err),
                Err(err) => {
                    self.given_up.insert(point.point.clone(), err.to_string());
                }
            }
        }
        Ok(())
    }

    /// The first runs on a new engine are slow and are thrown away (first TTFT 92 ms against 52 on the reference machine).
    async fn warm_up(&mut self, epoch: &Epoch, engine: &mut Engine) -> Result<(), SessionError> {
        let measured = epoch.runs().find(|run| run.point.role.is_measured());
        let Some(first) = measured.or_else(|| epoch.runs().next()) else { return Ok(()) };
        self.observer.waiting_for("warming up the new engine");
        let point = warm_up::short(first.point, engine.facts());
        let mut settling = Settling::begin();
        while let Some(repeat) = settling.next() {
            if self.observer.leave_after_run() {
                return Err(SessionError::Interrupted);
            }
            let Station { options, sidecar, .. } = &mut self.stations[self.at];
            let observer = &mut Throwaway(&mut *self.observer);
            let executed = execute(sidecar, engine, options, &point, (repeat, repeat), observer).await;
            match self.explain(engine, executed).await? {
                RunRecording { failure: None, tape, .. } => settling.add(&tape.steps),
                RunRecording { failure: Some(err), .. } => return Err(err),
            }
        }
        let warm_up = settling.finish();
        engine.warn(warm_up.warning());
        self.warm_up = Some(warm_up);
        Ok(())
    }

    async fn execute(
        &mut self,
        engine: &mut Engine,
        point: &Point,
        planned: u32,
        repeat: u32,
    ) -> Result<RunRecording, SessionError> {
        let Station { options, sidecar, .. } = &mut self.stations[self.at];
        let executed = execute(sidecar, engine, options, point, (planned, repeat), self.observer).await;
        self.explain(engine, executed).await
    }

    /// An engine that ended between two runs shows as a closed channel; how it ended the fork server knows.
    async fn explain(
        &mut self,
        engine: &Engine,
        executed: Result<RunRecording, SessionError>,
    ) -> Result<RunRecording, SessionError> {
        match executed {
            Err(SessionError::EngineDied { .. }) => Err(self.station().sidecar.why_gone(engine.pid()).await),
            executed => executed,
        }
    }

    /// One run with its record; gives what made it fail.
    async fn run_point(
        &mut self,
        engine: &mut Engine,
        seat: &mut Seat<'_>,
        attempt: Attempt<'_>,
    ) -> Result<Option<Trouble>, SweepError> {
        let (run, repeat) = (attempt.head.run, attempt.repeat);
        self.announce(attempt);
        let mut record = self.record(seat.epoch, attempt, std::mem::take(&mut seat.load_s));
        record.engine_facts = Some(engine.facts().clone());
        record.engine_warm_up = self.warm_up.take();
        record.warnings.extend_from_slice(engine.warnings());
        let sampling = self.start_sampling(run.point.telemetry_hz, &mut record);
        let executed = self.execute(engine, run.point, run.repeat, repeat).await;
        let samples = sampling.map(|sampling| self.stop_sampling(sampling, &mut record)).unwrap_or_default();
        let (timeline, failure) = match executed {
            Ok(recording) => self.assemble(record, recording, samples),
            Err(err) => (without_events(record, Outcome::Failed(err.to_string())), Some(err)),
        };
        self.observer.run_ends(timeline).map_err(SweepError::Results)?;
        self.has_measured = true;
        match failure {
            None => Ok(None),
            Some(SessionError::Interrupted) => Err(SweepError::Interrupted),
            Some(err @ SessionError::Refused(_)) => Ok(Some(Trouble::Refused(err))),
            Some(err) => Ok(Some(Trouble::Failed(err))),
        }
    }

    fn announce(&mut self, attempt: Attempt<'_>) {
        let (number, total) = (self.settled.len() as u32, self.plan.num_runs() as u32);
        self.observer.run_begins(attempt.head.run.point, attempt.repeat, number, total);
    }

    fn start_sampling(&mut self, rate_hz: u32, record: &mut RunRecord) -> Option<Sampling> {
        let station = self.station();
        let telemetry = if rate_hz > 0 { station.telemetry.take() } else { None };
        let started = telemetry?.start(rate_hz, &station.options.placement);
        started.map_err(|err| record.warnings.push(format!("no telemetry from this run on: {err}"))).ok()
    }

    fn stop_sampling(&mut self, sampling: Sampling, record: &mut RunRecord) -> Vec<Sample> {
        let (telemetry, sampled, samples) = sampling.stop();
        self.station().telemetry = Some(telemetry);
        record.warnings.extend(sampled.not_pinned.clone());
        record.telemetry = Some(sampled);
        samples
    }

    fn skip(&mut self, epoch: &Epoch, head: RunHead<'_>, reason: &str) -> Result<(), SweepError> {
        let record = self.record(epoch, Attempt { head, repeat: head.run.repeat, retry_of: None }, 0.0);
        let skipped = without_events(record, Outcome::Skipped(format!("not run: {reason}")));
        self.observer.run_ends(skipped).map_err(SweepError::Results)?;
        self.settled.insert(head.key());
        Ok(())
    }

    /// Marks what will not run any more, in the later epochs too. Before the first run there is nothing to mark: then the
    /// error says all there is.
    fn skip_rest(&mut self, why: &SessionError) -> Result<(), SweepError> {
        if self.order == 0 {
            return Ok(());
        }
        let reason = trouble::first_line(why);
        let plan = self.plan;
        let runs = plan.epochs.iter().enumerate();
        for (epoch, head) in runs.flat_map(|(index, epoch)| runs_of(index as u32, epoch).map(move |head| (epoch, head)))
        {
            if !self.settled.contains(&head.key()) {
                self.skip(epoch, head, &reason)?;
            }
        }
        Ok(())
    }
}

/// Notes that a repeat of a point is not free.
fn take_repeat(free_repeats: &mut BTreeMap<String, u32>, point: &str, repeat: u32) {
    let free = free_repeats.entry(point.to_owned()).or_insert(0);
    *free = (*free).max(repeat + 1);
}

/// The runs of an epoch in the order of execution.
fn runs_of(epoch_index: u32, epoch: &Epoch) -> impl Iterator<Item = RunHead<'_>> {
    epoch.runs().map(move |run| RunHead { epoch: epoch_index, run })
}

/// Which run of which epoch.
#[derive(Clone, Copy)]
struct RunHead<'a> {
    epoch: u32,
    run: PlannedRun<'a>,
}

impl RunHead<'_> {
    /// What stands for it among all runs of a plan.
    fn key(&self) -> (String, u32) {
        (self.run.point.point.clone(), self.run.repeat)
    }
}
