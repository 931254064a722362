//! `bench engine`: the main job, from a configuration to a report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::error::{CliError, Exit};
use super::interrupts::UserInterrupts;
use super::screen::{self, Screen};
use super::sidecar::in_words;
use super::{EngineArgs, EngineChoice, launch, report, resume, runtime};
use crate::calibration::{self, ErrorBudget, Identity};
use crate::config::{self, Script};
use crate::device::{DeviceClass, HostFacts, Placement, StolenTime, pin_current_thread};
use crate::environment::assets::{self, Assets};
use crate::environment::{Host, Interpreter};
use crate::fingerprint::Fingerprint;
use crate::plan::{self, Detail, EngineKey, History, LoadTimes, Overrides, Plan, Point, RunTimes};
use crate::recorder::LiveTotals;
use crate::report::{Report, Results};
use crate::ring::clock_ns;
use crate::roofline::CpuPeaks;
use crate::session::{
    Earlier, EngineSpec, Interrupts, Privileges, Progress, Registry, SessionError, Sidecar, SidecarOptions, Sweep,
    SweepError, SweepObserver, TRUTH_HEADER, Warm, WarmUse,
};
use crate::timeline::{Instrument, Outcome, SESSION_SCHEMA_VERSION, SessionRecord, Timeline};

/// Plans, measures, reports.
pub(super) fn run(args: &EngineArgs) -> Result<Exit, CliError> {
    let script = match &args.engine {
        EngineChoice::Vllm => None,
        EngineChoice::Scripted(path) => Some(Arc::new(config::load_script(path)?)),
    };
    let plan = make_plan(args, script.as_deref())?;
    let host = Host::of_process();
    let cache = host.cache_dir()?;
    let mut screen = Screen::new(args.output.quiet);
    // How long a script takes says nothing of vLLM.
    let history = if script.is_some() { History::default() } else { read_history(&cache.join(HISTORY_FILE), &screen) };
    let facts = HostFacts::read();
    let estimate = plan::estimate(&plan, &history, facts.usable_cores);
    if args.dry_run {
        let launch = if script.is_none() { launch::render(&plan, args, &host, &cache)? + "\n" } else { String::new() };
        return screen::print(&(launch + &plan::render(&plan, &estimate, Detail::Full)));
    }
    screen.say(&plan::render(&plan, &estimate, Detail::Short));
    // A script stands in for any device.
    let device = if script.is_some() { DeviceClass::Cpu } else { launch::device_to_measure(&plan)? };
    let out = match &args.resume {
        Some(folder) => resume::session(folder).map(|_| folder.clone())?,
        None => open_results_folder(args.out.as_deref(), &plan.name)?,
    };
    let registry = (!args.own_sidecar).then(|| Registry::of(&host, &cache));
    let of_warm_sidecar =
        |registry: &Registry| runtime::of_warm_sidecar(args.python.as_deref(), device, script.is_none(), registry);
    let mut say = |line: &str| screen.say(line);
    let python = match (registry.as_ref().and_then(of_warm_sidecar), &script) {
        (Some(python), _) => python,
        (None, Some(_)) => runtime::plain_interpreter(args.python.as_deref(), &mut say)?,
        (None, None) => runtime::interpreter(args.python.as_deref(), device, &mut say)?,
    };
    let warm = registry.map(|registry| Warm { registry, keep: args.keep_warm, vllm_package: python.vllm.clone() });
    let job = Job::prepare(args, plan, script, device, python, out, Kept { cache, history, warm })?;
    let (report, ended) = job.measure(&mut screen)?;
    if !report.runs.is_empty() {
        screen::print_report(&report, args.output.format)?;
        screen.say(&format!("results: {}", job.out.display()));
    }
    ended.map(|()| report::exit_of(&report))
}

/// What the configuration asks; without one the script is its own workload, and the smoke sweep that of vLLM.
fn make_plan(args: &EngineArgs, script: Option<&Script>) -> Result<Plan, CliError> {
    let (device, repeats, seed) = (args.device, args.repeats, args.seed);
    let overrides = Overrides { device, repeats, seed, scripted: script.is_some() };
    let config = match (&args.config, script) {
        (Some(path), _) => config::load(path)?,
        (None, Some(script)) => return Ok(plan::of_script(script, overrides)),
        (None, None) => config::builtin_smoke(device.unwrap_or(DeviceClass::Cpu)),
    };
    Ok(plan::resolve(&config, overrides)?)
}

fn read_history(path: &Path, screen: &Screen) -> History {
    History::load(path).unwrap_or_else(|err| {
        screen.say(&format!("warning: {err}"));
        History::default()
    })
}

/// Makes the folder now, so that an unwritable place is found before anything is started.
fn open_results_folder(given: Option<&Path>, name: &str) -> Result<PathBuf, CliError> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let out = given.map_or_else(|| PathBuf::from(format!("results/{name}-{time}")), Path::to_owned);
    if holds_results(&out) {
        return Err(CliError::OutExists(out));
    }
    let failed = |source| CliError::Write { what: "make the results folder", path: out.clone(), source };
    fs::create_dir_all(&out).map_err(failed)?;
    tempfile::tempfile_in(&out).map_err(failed)?;
    Ok(out)
}

/// Whether a run was stored here. A command that was refused before its first run leaves its folder to the next.
fn holds_results(out: &Path) -> bool {
    match fs::read_dir(out.join("runs")) {
        Ok(stored) => stored.flatten().any(|entry| entry.path().is_dir()),
        Err(_) => out.join("summary_report.json").exists(),
    }
}

/// How long runs took before, in the cache folder.
const HISTORY_FILE: &str = "history.json";

/// What commands leave for the next ones.
struct Kept {
    /// The cache folder.
    cache: PathBuf,
    /// How long engines and runs took.
    history: History,
    /// Warm sidecars; none if this command is to have its own.
    warm: Option<Warm>,
}

/// A sweep with everything that it needs, ready to start.
struct Job {
    plan: Plan,
    is_scripted: bool,
    /// Whether the results folder is that of a sweep that ended early.
    resumes: bool,
    fingerprint: Fingerprint,
    facts: HostFacts,
    python: Interpreter,
    options: SidecarOptions,
    specs: Vec<EngineSpec>,
    out: PathBuf,
    kept: Kept,
}

impl Job {
    fn prepare(
        args: &EngineArgs,
        plan: Plan,
        script: Option<Arc<Script>>,
        device: DeviceClass,
        python: Interpreter,
        out: PathBuf,
        kept: Kept,
    ) -> Result<Job, CliError> {
        let assets = assets::lay_out(&kept.cache)?;
        let placement = launch::placement(args.wait)?;
        let specs = match &script {
            Some(script) => scripted_specs(&plan, script, &out)?,
            None => {
                let keys = || plan.epochs.iter().map(|epoch| &epoch.key);
                launch::lay_out_models(keys(), &kept.cache)?;
                keys().map(|key| launch::engine_spec(key, &kept.cache, &placement)).collect()
            }
        };
        let facts = HostFacts::read();
        let vllm = script.is_none().then(|| python.vllm.as_deref().unwrap_or("of unknown version"));
        let (build, host) = (build_in_words(&assets, &python, vllm), host_in_words(&placement, &facts));
        let fingerprint = Fingerprint::of(&plan, script.as_deref(), build, host);
        let options = SidecarOptions {
            device,
            python: python.path.clone(),
            package: assets.package,
            ring_library: assets.ring_library,
            env: launch::sidecar_environment(device, &plan, &kept.cache, python.vllm.as_deref()),
            placement,
            log: out.join("sidecar.log"),
            with_vllm: script.is_none(),
            stall_limit: Duration::from_secs(args.stall_limit.into()),
            warm: kept.warm.clone(),
        };
        let (is_scripted, resumes) = (script.is_some(), args.resume.is_some());
        Ok(Job { plan, is_scripted, resumes, fingerprint, facts, python, options, specs, out, kept })
    }

    /// Measures all of the plan, or as much as goes; the report is of what was measured.
    fn measure(&self, screen: &mut Screen) -> Result<(Report, Result<(), CliError>), CliError> {
        let is_warm = Sidecar::is_warm(&self.options)?;
        // A core that cannot be pinned shows in the recorder's own warning; the rest of the harness works anywhere.
        let _ = pin_current_thread(&self.options.placement.harness_cores);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|err| SessionError::io("starting the control plane")(err))?;
        runtime.block_on(self.measure_on(screen, is_warm))
    }

    async fn measure_on(&self, screen: &mut Screen, is_warm: bool) -> Result<(Report, Result<(), CliError>), CliError> {
        let mut resumed = None;
        if self.resumes {
            let (results, earlier) = resume::open(&self.out, &self.fingerprint, screen)?;
            if earlier.num_finished() == self.plan.num_runs() {
                return Ok((results.finish()?, Ok(())));
            }
            resumed = Some((results, earlier));
        }
        let mut interrupts = UserInterrupts::listen().map_err(SessionError::io("listening for signals"))?;
        let mut say = |what: &str| screen.wait_for(what);
        let error_budget = tokio::select! {
            budget = calibration::budget(&self.options, &self.kept.cache, &mut say) => budget,
            () = interrupts.next() => return Err(SweepError::Interrupted.into()),
        };
        // A command that can measure goes on; its numbers then have no error beside them.
        let error_budget = error_budget.map_err(|err| screen.say(&format!("warning: not calibrated: {err}"))).ok();
        if !self.is_scripted && !is_warm {
            screen.wait_for("starting the sidecar: importing vLLM");
        }
        let mut sidecar = tokio::select! {
            started = Sidecar::start(&self.options) => started?,
            () = interrupts.next() => return Err(SweepError::Interrupted.into()),
        };
        for remark in sidecar.take_remarks() {
            screen.say(&remark);
        }
        if let Some(WarmUse { id, is_attached: true, age_s }) = sidecar.warm_use() {
            screen.say(&format!("attached to the warm sidecar {id}, started {} ago", in_words(*age_s)));
        }
        let (results, earlier) = match resumed {
            Some(resumed) => resumed,
            None => {
                let session = self.session_record(&sidecar, error_budget)?;
                (Results::create(&self.out, &session)?, Earlier::default())
            }
        };
        let mut observer = Observer {
            screen,
            interrupts,
            results,
            host_warnings: [self.facts.warnings(), self.options.placement.warnings()].concat(),
            cores: self.facts.usable_cores,
            stolen: StolenTime::read(),
            began_ns: clock_ns(),
            times: Vec::new(),
        };
        let import_s = sidecar.hello().import_s;
        let sweep = Sweep::new(&self.plan, &self.specs, &self.options, &mut sidecar, &mut observer);
        let ended = sweep.after(earlier).run().await;
        sidecar.shutdown().await;
        observer.screen.clear();
        if !self.is_scripted {
            self.keep_times(import_s, &observer.times, observer.screen);
        }
        let report = observer.results.report().clone();
        let ended = match (observer.results.finish(), ended) {
            // That a run could not be stored says more than what could not be written because of the same cause.
            (Err(_), Err(err @ SweepError::Results(_))) => Err(err.into()),
            (finished, ended) => finished.map_err(CliError::from).and(ended.map_err(CliError::from)),
        };
        Ok((report, ended))
    }

    fn session_record(
        &self,
        sidecar: &Sidecar,
        error_budget: Option<ErrorBudget>,
    ) -> Result<SessionRecord, SessionError> {
        let placement = &self.options.placement;
        let privileges = Privileges::try_out(placement)?;
        let openmp = placement.openmp_environment(self.options.device);
        let core = |core: usize| core as u32;
        Ok(SessionRecord {
            schema_version: SESSION_SCHEMA_VERSION,
            bench_version: env!("CARGO_PKG_VERSION").to_owned(),
            plan: self.plan.clone(),
            environment: json!({
                "host": self.facts,
                "sidecar": sidecar.hello(),
                "warm_sidecar": sidecar.warm_use(),
                "python": self.python.path,
                "placement": placement,
                "openmp": openmp.into_iter().collect::<BTreeMap<_, _>>(),
                "command": std::env::args().collect::<Vec<_>>(),
            }),
            instrument: Instrument {
                clock: crate::clock::measure(),
                wait_strategy: placement.waiting_in_words(),
                recorder_core: placement.recorder_core.map(core),
                recorder_priority: privileges.recorder_priority,
                engine_cores: placement.engine_cores.iter().copied().map(core).collect(),
                not_permitted: privileges.not_permitted,
                error_budget,
                cpu_peaks: self.cpu_peaks(),
            },
            started_at: jiff::Timestamp::now().to_string(),
            resumed_at: Vec::new(),
            fingerprint: Some(self.fingerprint.clone()),
        })
    }

    /// The peaks of the engine's cores, if they were probed and an engine runs on them.
    fn cpu_peaks(&self) -> Option<CpuPeaks> {
        let placement = &self.options.placement;
        let host = Identity::of(placement, &self.facts).host;
        let runs_on_cpu = self.plan.epochs.iter().any(|epoch| epoch.key.device == DeviceClass::Cpu);
        runs_on_cpu.then(|| calibration::cached_cpu_peaks(&self.kept.cache, &host, &placement.engine_cores)).flatten()
    }

    /// Keeps the measured times for the next estimate. A history that cannot be written costs the estimate, no more.
    fn keep_times(&self, import_s: f64, times: &[MeasuredTime], screen: &Screen) {
        let mut history = self.kept.history.clone();
        history.record_import(self.options.device, import_s);
        for key in self.plan.epochs.iter().map(|epoch| &epoch.key).collect::<BTreeSet<_>>() {
            let of_key: Vec<&MeasuredTime> = times.iter().filter(|time| time.key == *key).collect();
            let load = of_key.iter().find_map(|time| time.load);
            let runs: Vec<RunTimes<'_>> = of_key.iter().map(|time| time.run_times()).collect();
            if !runs.is_empty() {
                history.record(key, self.facts.usable_cores, load, &runs);
            }
        }
        if let Err(err) = history.save(&self.kept.cache.join(HISTORY_FILE)) {
            screen.say(&format!("warning: {err}"));
        }
    }
}

/// What changes with anything that the engine is built from.
fn build_in_words(assets: &Assets, python: &Interpreter, vllm: Option<&str>) -> String {
    let sidecar = assets.package.file_name().unwrap_or_default().to_string_lossy();
    let vllm = vllm.map(|version| format!(", vLLM {version}")).unwrap_or_default();
    format!("sidecar {sidecar}, Python {}{vllm}", python.python)
}

/// What changes with the machine, its cores, and how they wait.
fn host_in_words(placement: &Placement, facts: &HostFacts) -> String {
    let Identity { host, .. } = Identity::of(placement, facts);
    let cores = (placement.recorder_core, &placement.engine_cores);
    format!("{host}, {cores:?}, {}", placement.waiting_in_words())
}

/// How long a valid run took, for the next estimate.
struct MeasuredTime {
    key: EngineKey,
    point: Point,
    /// Of the first run on its engine.
    load: Option<LoadTimes>,
    run_s: f64,
    prefill: (u64, u64),
    decode: (u64, u64),
}

impl MeasuredTime {
    fn of(timeline: &Timeline, run_s: f64) -> MeasuredTime {
        let (mut prefill, mut decode) = ((0, 0), (0, 0));
        for step in &timeline.steps {
            let took_ns = step.ended_ns - step.started_ns;
            if step.prefill_tokens > 0 {
                prefill = (prefill.0 + took_ns, prefill.1 + u64::from(step.prefill_tokens));
            } else {
                decode = (decode.0 + took_ns, decode.1 + 1);
            }
        }
        let run = &timeline.run;
        let (key, point) = (run.engine_key.clone(), run.point.clone());
        let warm_up_s = run.engine_warm_up.as_ref().map(|warm_up| warm_up.took_s);
        let load = (run.engine_load_s > 0.0).then_some(LoadTimes { load_s: run.engine_load_s, warm_up_s });
        MeasuredTime { key, point, load, run_s, prefill, decode }
    }

    fn run_times(&self) -> RunTimes<'_> {
        RunTimes {
            point: &self.point,
            run_s: self.run_s,
            prefill_s: self.prefill.0 as f64 / 1e9,
            prefill_tokens: self.prefill.1,
            decode_s: self.decode.0 as f64 / 1e9,
            decode_steps: self.decode.1,
        }
    }
}

/// A scripted engine for every epoch, and the file of what they really do.
fn scripted_specs(plan: &Plan, script: &Arc<Script>, out: &Path) -> Result<Vec<EngineSpec>, CliError> {
    let failed = |path: &Path, source| CliError::Write { what: "write", path: path.to_owned(), source };
    let truth = out.join("truth.csv");
    if !truth.exists() {
        fs::write(&truth, TRUTH_HEADER).map_err(|source| failed(&truth, source))?;
    }
    let truth = truth.canonicalize().map_err(|source| failed(&truth, source))?;
    let spec = || EngineSpec::Scripted { script: Arc::clone(script), truth: truth.clone() };
    Ok(plan.epochs.iter().map(|_| spec()).collect())
}

/// Shows what happens and keeps the results.
struct Observer<'a> {
    screen: &'a mut Screen,
    interrupts: UserInterrupts,
    results: Results,
    host_warnings: Vec<String>,
    cores: usize,
    stolen: StolenTime,
    began_ns: u64,
    times: Vec<MeasuredTime>,
}

impl Progress for Observer<'_> {
    fn tick(&mut self, totals: &LiveTotals) {
        self.screen.tick(totals);
    }
}

impl Interrupts for Observer<'_> {
    /// The first interrupt is noted, and the run goes on to its end; the second one counts at once.
    async fn leave_now(&mut self) {
        while self.interrupts.seen() < 2 {
            self.interrupts.next().await;
            if self.interrupts.seen() == 1 {
                self.screen.say("interrupted: finishing this run, then leaving; once more to leave now");
            }
        }
    }
}

impl SweepObserver for Observer<'_> {
    fn waiting_for(&mut self, what: &str) {
        self.screen.wait_for(what);
    }

    fn remark(&mut self, what: &str) {
        self.screen.say(what);
    }

    fn run_begins(&mut self, point: &Point, repeat: u32, number: u32, total: u32) {
        self.stolen = StolenTime::read();
        self.began_ns = clock_ns();
        self.screen.begin_run(point, repeat, number, total);
    }

    fn run_ends(&mut self, mut timeline: Timeline) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let run_s = clock_ns().saturating_sub(self.began_ns) as f64 / 1e9;
        if timeline.run.outcome == Outcome::Completed {
            let stolen = StolenTime::read().warning_since(self.stolen, run_s, self.cores);
            timeline.run.warnings.extend(self.host_warnings.iter().cloned().chain(stolen));
        }
        let entry = self.results.add(&timeline)?;
        if entry.status == crate::verdict::Status::Valid {
            self.times.push(MeasuredTime::of(&timeline, run_s));
        }
        self.screen.end_run(entry);
        Ok(())
    }

    fn leave_after_run(&self) -> bool {
        self.interrupts.seen() > 0
    }
}
