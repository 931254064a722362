//! A whole plan: sidecar, engine loads, rounds of runs; each run is handed on as soon as it has ended.

use super::run::{Interrupts, Progress, RunRecording, execute};
use super::{Engine, EngineSpec, SessionError, Sidecar, SidecarOptions};
use crate::plan::{Epoch, Location, Plan, Point};
use crate::ring::clock_ns;
use crate::telemetry::{Places, Sample, Sampling, Telemetry};
use crate::timeline::store::RUN_SCHEMA_VERSION;
use crate::timeline::{ABSENT, Counters, Outcome, Phase, RunRecord, Timeline};

/// Output tokens of the run that is thrown away after a load, at most: the first steps of an engine are slow whatever
/// their lengths.
const DISCARDED_OUTPUT_TOKENS: u32 = 32;

/// Who is told what happens in a sweep, and keeps its results.
pub trait SweepObserver: Progress + Interrupts {
    /// Something takes a while: the import of vLLM, the load of an engine.
    fn waiting_for(&mut self, what: &str);
    /// Something that a person may want to know.
    fn remark(&mut self, what: &str);
    /// A run begins, as number `order` of `total`.
    fn run_begins(&mut self, point: &Point, repeat: u32, order: u32, total: u32);
    /// A run is over, or will never begin. An error ends the sweep: results that cannot be kept are not worth measuring.
    fn run_ends(&mut self, timeline: Timeline) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
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
    /// The engine failed in the middle of a run; the runs that could not begin are marked as skipped.
    #[error(transparent)]
    Engine(SessionError),
    /// The user interrupted; what was finished is kept.
    #[error("interrupted: what was finished is kept")]
    Interrupted,
    /// The results cannot be kept.
    #[error(
        "the results cannot be kept: {0}\n  what to do: remove the cause; what was stored before is kept, and \
             `bench report DIR` makes its reports"
    )]
    Results(Box<dyn std::error::Error + Send + Sync>),
}

/// Measures a plan on a sidecar that has been started. `specs` holds what each epoch's engine is loaded with.
pub struct Sweep<'a, O: SweepObserver> {
    plan: &'a Plan,
    specs: &'a [EngineSpec],
    options: &'a SidecarOptions,
    sidecar: &'a mut Sidecar,
    observer: &'a mut O,
    order: u32,
    /// The sources of the loaded engine's telemetry, while no run is sampled.
    telemetry: Option<Telemetry>,
    /// When the last measured token of the run before came, for the turnaround.
    last_token_ns: Option<u64>,
}

impl<'a, O: SweepObserver> Sweep<'a, O> {
    /// A sweep that has not begun.
    pub fn new(
        plan: &'a Plan,
        specs: &'a [EngineSpec],
        options: &'a SidecarOptions,
        sidecar: &'a mut Sidecar,
        observer: &'a mut O,
    ) -> Self {
        Sweep { plan, specs, options, sidecar, observer, order: 0, telemetry: None, last_token_ns: None }
    }

    /// Asks vLLM's parser about every engine, then loads and measures one after the other.
    pub async fn run(mut self) -> Result<(), SweepError> {
        self.check_arguments().await?;
        let ended = self.run_epochs().await;
        if let Err(err) = &ended {
            self.skip_rest(err)?;
        }
        ended
    }

    async fn run_epochs(&mut self) -> Result<(), SweepError> {
        let (plan, specs) = (self.plan, self.specs);
        for (index, (epoch, spec)) in plan.epochs.iter().zip(specs).enumerate() {
            self.run_epoch(index as u32, epoch, spec).await?;
        }
        Ok(())
    }

    async fn check_arguments(&mut self) -> Result<(), SweepError> {
        for (epoch, spec) in self.plan.epochs.iter().zip(self.specs) {
            let EngineSpec::Vllm { argv, .. } = spec else { continue };
            match self.sidecar.check(argv).await {
                Ok(()) => {}
                Err(SessionError::Refused(message)) => {
                    let location = epoch.key.args_location.0.clone();
                    return Err(SweepError::Config { location, message: format!("args: {message}") });
                }
                Err(err) => return Err(SweepError::Start(err)),
            }
        }
        Ok(())
    }

    async fn run_epoch(&mut self, index: u32, epoch: &Epoch, spec: &EngineSpec) -> Result<(), SweepError> {
        self.observer.waiting_for(&format!("loading {} ({})", epoch.key.model, epoch.reason));
        let loaded = tokio::select! {
            loaded = self.sidecar.load(spec) => loaded,
            () = self.observer.leave_now() => return Err(SweepError::Interrupted),
        };
        let mut engine = loaded.map_err(SweepError::Start)?;
        for remark in self.sidecar.take_remarks() {
            self.observer.remark(&remark);
        }
        if let Some(age_s) = engine.reused_after_s() {
            self.observer.remark(&format!("the engine is reused: an earlier command had loaded it {age_s:.0} s ago"));
        }
        for point in &epoch.points {
            check_point(point, &engine)?;
        }
        if matches!(spec, EngineSpec::Vllm { .. }) && engine.reused_after_s().is_none() {
            self.discard_first_run(epoch, &mut engine).await?;
        }
        let (key, placement) = (&epoch.key, &self.options.placement);
        self.telemetry =
            Some(Telemetry::open(&Places::of_this_machine(), key.device, key.tensor_parallel_size, placement));
        let mut load_s = engine.load_s();
        for head in runs_of(index, epoch) {
            if self.observer.leave_after_run() {
                break;
            }
            self.run_point(&mut engine, epoch, head, std::mem::take(&mut load_s)).await?;
        }
        self.sidecar.put_back(engine).await;
        if self.observer.leave_after_run() { Err(SweepError::Interrupted) } else { Ok(()) }
    }

    /// The first run on a new engine is slow and is thrown away (first TTFT 92 ms against 52 on the reference machine).
    async fn discard_first_run(&mut self, epoch: &Epoch, engine: &mut Engine) -> Result<(), SweepError> {
        let Some(point) = epoch.rounds.first().and_then(|round| round.first()).map(|first| &epoch.points[*first])
        else {
            return Ok(());
        };
        self.observer.waiting_for("warming up the new engine");
        let output_len = point.output_len.min(DISCARDED_OUTPUT_TOKENS);
        let point = Point { output_len, ..point.clone() };
        let repeat = u32::MAX; // a stream of prompts that no measured run has
        match self.execute(engine, &point, repeat).await {
            Ok(RunRecording { failure: None, .. }) => Ok(()),
            Ok(RunRecording { failure: Some(err), .. }) | Err(err) => Err(into_sweep_error(err)),
        }
    }

    async fn execute(&mut self, engine: &mut Engine, point: &Point, repeat: u32) -> Result<RunRecording, SessionError> {
        match execute(self.sidecar, engine, self.options, point, repeat, self.observer).await {
            // An engine that ended between two runs shows as a closed channel; how it ended the fork server knows.
            Err(SessionError::EngineDied { .. }) => Err(self.sidecar.why_gone(engine.pid()).await),
            executed => executed,
        }
    }

    async fn run_point(
        &mut self,
        engine: &mut Engine,
        epoch: &Epoch,
        head: RunHead<'_>,
        load_s: f64,
    ) -> Result<(), SweepError> {
        let total = self.plan.num_runs() as u32;
        self.observer.run_begins(head.point, head.round, self.order, total);
        let mut record = self.record(epoch, head, load_s);
        record.engine_facts = Some(engine.facts().clone());
        record.warnings.extend_from_slice(engine.warnings());
        let sampling = self.start_sampling(head.point.telemetry_hz);
        let executed = self.execute(engine, head.point, head.round).await;
        let samples = sampling.map(|sampling| self.stop_sampling(sampling, &mut record)).unwrap_or_default();
        let (timeline, failure) = match executed {
            Ok(recording) => self.assemble(record, recording, samples),
            Err(err) => (without_events(record, Outcome::Failed(err.to_string())), Some(err)),
        };
        self.observer.run_ends(timeline).map_err(SweepError::Results)?;
        match failure {
            // What vLLM refuses of one point says nothing about the next.
            None | Some(SessionError::Refused(_)) => Ok(()),
            Some(err) => Err(into_sweep_error(err)),
        }
    }

    fn start_sampling(&mut self, rate_hz: u32) -> Option<Sampling> {
        let telemetry = if rate_hz > 0 { self.telemetry.take() } else { None };
        telemetry.map(|telemetry| telemetry.start(rate_hz, &self.options.placement))
    }

    fn stop_sampling(&mut self, sampling: Sampling, record: &mut RunRecord) -> Vec<Sample> {
        let (telemetry, sampled, samples) = sampling.stop();
        self.telemetry = Some(telemetry);
        record.warnings.extend(sampled.not_pinned.clone());
        record.telemetry = Some(sampled);
        samples
    }

    fn record(&mut self, epoch: &Epoch, head: RunHead<'_>, load_s: f64) -> RunRecord {
        let order = self.order;
        self.order += 1;
        RunRecord {
            schema_version: RUN_SCHEMA_VERSION,
            point: head.point.clone(),
            engine_key: epoch.key.clone(),
            engine: self.specs[head.epoch as usize].engine_name().to_owned(),
            epoch: head.epoch,
            repeat: head.round,
            round: head.round,
            order,
            outcome: Outcome::Completed,
            engine_load_s: load_s,
            turnaround_s: None,
            engine_facts: None,
            counters: Counters::default(),
            recorder_hiccups: None,
            telemetry: None,
            clock_step_ns: None,
            compilations: None,
            cache_reset: None,
            warnings: Vec::new(),
            began_at: jiff::Timestamp::now().to_string(),
        }
    }

    fn assemble(
        &mut self,
        mut record: RunRecord,
        recording: RunRecording,
        telemetry: Vec<Sample>,
    ) -> (Timeline, Option<SessionError>) {
        let tape = recording.tape;
        record.counters = tape.counters;
        record.recorder_hiccups = tape.num_hiccups;
        record.clock_step_ns = Some(recording.clock_step_ns);
        record.compilations = recording.ended.and_then(|ended| ended.compilations);
        record.cache_reset = Some(recording.cache_reset);
        record.warnings.extend(recording.warnings);
        if let Some(err) = &recording.failure {
            record.outcome = Outcome::Failed(err.to_string());
        }
        let mut timeline = Timeline {
            run: record,
            requests: tape.requests,
            tokens: tape.tokens,
            steps: tape.steps,
            hiccups: tape.hiccups,
            telemetry,
        };
        timeline.run.turnaround_s = self.last_token_ns.and_then(|ended_ns| turnaround_s(&timeline, ended_ns));
        self.last_token_ns = timeline.tokens.last().map(|token| token.received_ns).or(Some(clock_ns()));
        (timeline, recording.failure)
    }

    /// Marks what will not run any more, in the later epochs too. Before the first run there is nothing to mark: then the
    /// error says all there is.
    fn skip_rest(&mut self, why: &SweepError) -> Result<(), SweepError> {
        if self.order == 0 || matches!(why, SweepError::Interrupted | SweepError::Results(_)) {
            return Ok(());
        }
        // Its first line, which names the cause: what follows, the end of a log perhaps, need not be kept with each run.
        let reason = format!("not run: {}", why.to_string().lines().next().unwrap_or_default());
        let plan = self.plan;
        let runs = plan.epochs.iter().enumerate();
        let runs = runs.flat_map(|(index, epoch)| runs_of(index as u32, epoch).map(move |head| (epoch, head)));
        for (epoch, head) in runs.skip(self.order as usize) {
            let record = self.record(epoch, head, 0.0);
            let skipped = without_events(record, Outcome::Skipped(reason.clone()));
            self.observer.run_ends(skipped).map_err(SweepError::Results)?;
        }
        Ok(())
    }
}

/// The runs of an epoch in the order of execution.
fn runs_of(index: u32, epoch: &Epoch) -> impl Iterator<Item = RunHead<'_>> {
    epoch.rounds.iter().enumerate().flat_map(move |(round, points)| {
        points.iter().map(move |point| RunHead { epoch: index, round: round as u32, point: &epoch.points[*point] })
    })
}

/// Which run of an epoch.
#[derive(Clone, Copy)]
struct RunHead<'a> {
    epoch: u32,
    round: u32,
    point: &'a Point,
}

fn without_events(mut run: RunRecord, outcome: Outcome) -> Timeline {
    run.outcome = outcome;
    Timeline {
        run,
        requests: Vec::new(),
        tokens: Vec::new(),
        steps: Vec::new(),
        hiccups: Vec::new(),
        telemetry: Vec::new(),
    }
}

fn into_sweep_error(err: SessionError) -> SweepError {
    match err {
        SessionError::Interrupted => SweepError::Interrupted,
        err => SweepError::Engine(err),
    }
}

/// What only the loaded engine knows: its final limit, beyond which vLLM would cut the output short without a word, and
/// the blocks of its cache, from which a hit rate was planned.
fn check_point(point: &Point, engine: &Engine) -> Result<(), SweepError> {
    let refuse = |message: String| {
        let message = format!("{}: {message}", point.name);
        Err(SweepError::Config { location: point.location.0.clone(), message })
    };
    let facts = engine.facts();
    let (input_len, output_len, max_model_len) = (point.input_len, point.output_len, facts.max_model_len);
    if u64::from(input_len) + u64::from(output_len) > u64::from(max_model_len) {
        return refuse(format!(
            "input_len {input_len} and output_len {output_len} together are more than the engine's max_model_len \
             {max_model_len}; lower them, or raise --max-model-len in args"
        ));
    }
    match (point.prefix_hit_rate, facts.prefix_block_size) {
        (Some(rate), Some(blocks)) if blocks != rate.block_size => refuse(format!(
            "the prefix_hit_rate was planned for blocks of {} tokens, and the engine's cache has blocks of {blocks}; \
             say it with --block-size {blocks} in args",
            rate.block_size
        )),
        (Some(rate), None) if rate.asked > 0.0 => {
            refuse("a prefix_hit_rate needs the prefix cache, and this engine has none".to_owned())
        }
        _ => Ok(()),
    }
}

/// Seconds from the last token of the run before to the first measured submit, without the steps in between.
fn turnaround_s(timeline: &Timeline, ended_ns: u64) -> Option<f64> {
    let measured = timeline.requests.iter().filter(|request| request.phase() == Phase::Measure);
    let first_submit_ns = measured.map(|request| request.submitted_ns).filter(|ns| *ns != ABSENT).min()?;
    let before = timeline.steps.iter().filter(|step| step.ended_ns <= first_submit_ns);
    let stepping_ns: u64 = before.map(|step| step.ended_ns - step.started_ns).sum();
    Some(first_submit_ns.saturating_sub(ended_ns).saturating_sub(stepping_ns) as f64 / 1e9)
}
