//! What a command measures with, and the measurement: sidecars, engines, results.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::engine::HISTORY_FILE;
use super::error::CliError;
use super::interrupts::UserInterrupts;
use super::observer::{MeasuredTime, Observer};
use super::screen::Screen;
use super::sidecar::in_words;
use super::{EngineArgs, launch, resume};
use crate::machine::device::{DeviceClass, HostFacts, Placement, StolenTime, pin_current_thread};
use crate::machine::environment::Interpreter;
use crate::machine::environment::assets::{self, Assets};
use crate::measurement::calibration::CpuPeaks;
use crate::measurement::calibration::{self, ErrorBudget, Identity};
use crate::measurement::results::{Instrument, SESSION_SCHEMA_VERSION, SessionRecord};
use crate::measurement::ring::clock_ns;
use crate::measurement::session::{
    Earlier, EngineSpec, Privileges, Registry, SessionError, Sidecar, SidecarOptions, Station, Sweep, SweepError,
    TRUTH_HEADER, Warm, WarmUse, user_variable,
};
use crate::presentation::report::{Report, Results, ResultsFolder};
use crate::question::config::Script;
use crate::question::fingerprint::Fingerprint;
use crate::question::plan::{History, Plan, RunTimes};

/// Where the output of a plan's only sidecar goes.
const SIDECAR_LOG: &str = "sidecar.log";

/// What commands leave for the next ones.
pub(super) struct Kept {
    /// The cache folder.
    pub(super) cache: PathBuf,
    /// How long engines and runs took.
    pub(super) history: History,
    /// Where warm sidecars are found; none if this command is to have its own.
    pub(super) registry: Option<Registry>,
}

/// A sweep with everything that it needs, ready to start.
pub(super) struct Job {
    plan: Plan,
    is_scripted: bool,
    /// Whether the results folder is that of a sweep that ended early.
    resumes: bool,
    fingerprint: Fingerprint,
    facts: HostFacts,
    placement: Placement,
    /// Of the sidecar of each device class.
    options: Vec<SidecarOptions>,
    specs: Vec<EngineSpec>,
    /// The results folder.
    pub(super) out: ResultsFolder,
    kept: Kept,
}

impl Job {
    /// `pythons` has one for each device class of the plan.
    pub(super) fn prepare(
        args: &EngineArgs,
        plan: Plan,
        script: Option<Arc<Script>>,
        pythons: Vec<(DeviceClass, Interpreter)>,
        out: ResultsFolder,
        kept: Kept,
    ) -> Result<Job, CliError> {
        let assets = assets::lay_out(&kept.cache)?;
        let ranks = if script.is_some() { 1 } else { launch::ranks_on_cores(&plan) };
        let placement = launch::placement(ranks, args.wait)?;
        let specs = match &script {
            Some(script) => scripted_specs(&plan, script, out.path())?,
            None => {
                let keys = || plan.epochs.iter().map(|epoch| &epoch.key);
                launch::lay_out_models(keys(), &kept.cache)?;
                keys().map(|key| launch::engine_spec(key, &kept.cache, &placement)).collect()
            }
        };
        let facts = HostFacts::read();
        let build = pythons.iter().map(|(_, python)| build_in_words(&assets, python, script.is_none()));
        let build = build.collect::<Vec<_>>().join("; ");
        let fingerprint = Fingerprint::of(&plan, script.as_deref(), build, host_in_words(&placement, &facts));
        let options = |(device, python): (DeviceClass, Interpreter)| SidecarOptions {
            device,
            package: assets.package.clone(),
            ring_library: assets.ring_library.clone(),
            env: launch::sidecar_environment(device, &plan, &kept.cache, python.vllm.as_deref()),
            placement: placement.clone(),
            log: out.path().join(if plan.device_classes().len() > 1 {
                format!("sidecar-{device}.log")
            } else {
                SIDECAR_LOG.into()
            }),
            with_vllm: script.is_none(),
            stall_limit: Duration::from_secs(args.stall_limit.into()),
            warm: kept.registry.clone().map(|registry| Warm {
                registry,
                keep: args.keep_warm,
                vllm_package: python.vllm.clone(),
            }),
            vllm: python.vllm_source(),
            python: python.path,
        };
        let options = pythons.into_iter().map(options).collect();
        let (is_scripted, resumes) = (script.is_some(), args.resume.is_some());
        Ok(Job { plan, is_scripted, resumes, fingerprint, facts, placement, options, specs, out, kept })
    }

    /// Measures all of the plan, or as much as goes; the report is of what was measured.
    pub(super) fn measure(&self, screen: &mut Screen) -> Result<(Report, Result<(), CliError>), CliError> {
        let are_warm = self.options.iter().map(Sidecar::is_warm).collect::<Result<Vec<_>, _>>()?;
        // A core that cannot be pinned shows in the recorder's own warning; the rest of the harness works anywhere.
        let _ = pin_current_thread(&self.placement.harness_cores);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|err| SessionError::io("starting the control plane")(err))?;
        runtime.block_on(self.measure_on(screen, &are_warm))
    }

    async fn measure_on(
        &self,
        screen: &mut Screen,
        are_warm: &[bool],
    ) -> Result<(Report, Result<(), CliError>), CliError> {
        let mut interrupts = UserInterrupts::listen().map_err(SessionError::io("listening for signals"))?;
        let mut resumed = None;
        if self.resumes {
            let (results, earlier) = resume::open(&self.out, &self.fingerprint, screen)?;
            if results.report().num_missing() == 0 {
                return finish_at_once(results, &mut interrupts).await;
            }
            resumed = Some((results, earlier));
        }
        let mut say = |what: &str| screen.wait_for(what);
        let error_budget = tokio::select! {
            biased;
            () = interrupts.next() => return Err(SweepError::Interrupted.into()),
            budget = calibration::budget(&self.options[0], &self.kept.cache, &mut say) => budget,
        };
        // A command that can measure goes on; its numbers then have no error beside them.
        let error_budget = error_budget.map_err(|err| screen.say(&format!("warning: not calibrated: {err}"))).ok();
        let replaced = self.tell_replaced(screen);
        let mut stations = Vec::new();
        for (options, is_warm) in self.options.iter().zip(are_warm) {
            let station = tokio::select! {
                biased;
                () = interrupts.next() => return Err(SweepError::Interrupted.into()),
                opened = self.open_station(options.clone(), *is_warm, screen) => opened?,
            };
            stations.push(station);
        }
        let (results, earlier) = match resumed {
            Some(resumed) => resumed,
            None => {
                let session = self.session_record(&mut stations, error_budget)?;
                (Results::begin(self.out.clone(), &session)?, Earlier::default())
            }
        };
        let mut observer = Observer {
            screen,
            interrupts,
            results,
            host_warnings: [self.facts.warnings(), self.placement.warnings(), replaced].concat(),
            cores: self.facts.usable_cores,
            stolen: StolenTime::read(),
            began_ns: clock_ns(),
            times: Vec::new(),
        };
        let imports: Vec<(DeviceClass, f64)> =
            stations.iter_mut().map(|it| (it.device(), it.sidecar().hello().import_s)).collect();
        let sweep = Sweep::new(&self.plan, &self.specs, stations, &mut observer);
        let ended = sweep.after(earlier).run().await;
        observer.screen.clear();
        if !self.is_scripted {
            self.keep_times(&imports, &observer.times, observer.screen);
        }
        let (report, written) = observer.results.close();
        let ended = match (written, ended) {
            // That a run could not be stored says more than what could not be written because of the same cause.
            (Err(_), Err(err @ SweepError::Results(_))) => Err(err.into()),
            (written, ended) => written.map_err(CliError::from).and(ended.map_err(CliError::from)),
        };
        Ok((report, ended))
    }

    /// Says which variables of the user a sidecar gets with another value; gives those that every run says, too.
    fn tell_replaced(&self, screen: &Screen) -> Vec<String> {
        let mut of_runs = Vec::new();
        for replaced in self.options.iter().flat_map(|options| options.replaced(user_variable)) {
            screen.say(&format!("warning: {replaced}"));
            if replaced.changes_numbers && !self.is_scripted {
                of_runs.push(replaced.to_string());
            }
        }
        of_runs
    }

    /// A device class with its sidecar; says which one it is if an earlier command has left it.
    async fn open_station(
        &self,
        options: SidecarOptions,
        is_warm: bool,
        screen: &mut Screen,
    ) -> Result<Station, SessionError> {
        if !self.is_scripted && !is_warm {
            let whose = if self.options.len() > 1 { format!(" of {}", options.device) } else { String::new() };
            screen.wait_for(&format!("starting the sidecar{whose}: importing vLLM"));
        }
        let mut station = Station::open(options).await?;
        for remark in station.sidecar().take_remarks() {
            screen.say(&remark);
        }
        if let Some(WarmUse { id, is_attached: true, age_s }) = station.sidecar().warm_use() {
            screen.say(&format!("attached to the warm sidecar {id}, started {} ago", in_words(*age_s)));
        }
        Ok(station)
    }

    fn session_record(
        &self,
        stations: &mut [Station],
        error_budget: Option<ErrorBudget>,
    ) -> Result<SessionRecord, SessionError> {
        let placement = &self.placement;
        let privileges = Privileges::try_out(placement)?;
        let core = |core: usize| core as u32;
        Ok(SessionRecord {
            schema_version: SESSION_SCHEMA_VERSION,
            bench_version: env!("CARGO_PKG_VERSION").to_owned(),
            plan: self.plan.clone(),
            environment: json!({
                "host": self.facts,
                "sidecars": stations.iter_mut().map(describe).collect::<BTreeMap<_, _>>(),
                "placement": placement,
                "command": crate::base::printable::command_line(),
            }),
            instrument: Instrument {
                clock: crate::measurement::clock::measure(),
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
        let placement = &self.placement;
        let host = Identity::of(placement, &self.facts).host;
        let runs_on_cpu = self.plan.epochs.iter().any(|epoch| epoch.key.device == DeviceClass::Cpu);
        runs_on_cpu.then(|| calibration::cached_cpu_peaks(&self.kept.cache, &host, &placement.engine_cores)).flatten()
    }

    /// Keeps the measured times for the next estimate. A history that cannot be written costs the estimate, no more.
    fn keep_times(&self, imports: &[(DeviceClass, f64)], times: &[MeasuredTime], screen: &Screen) {
        let mut history = self.kept.history.clone();
        imports.iter().for_each(|(device, import_s)| history.record_import(*device, *import_s));
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

/// The files of a sweep that has nothing left to measure. They are written whole; an interrupt meanwhile is heeded after that.
async fn finish_at_once(
    results: Results,
    interrupts: &mut UserInterrupts,
) -> Result<(Report, Result<(), CliError>), CliError> {
    let report = results.finish()?;
    let ended = tokio::select! {
        biased;
        () = interrupts.next() => Err(SweepError::Interrupted.into()),
        () = tokio::task::yield_now() => Ok(()),
    };
    Ok((report, ended))
}

/// What the report says of a sidecar, by its class.
fn describe(station: &mut Station) -> (DeviceClass, serde_json::Value) {
    let (device, options) = (station.device(), station.options().clone());
    let openmp: BTreeMap<_, _> = options.placement.openmp_environment(device).into_iter().collect();
    let sidecar = station.sidecar();
    let (hello, warm) = (sidecar.hello(), sidecar.warm_use());
    (device, json!({"hello": hello, "warm": warm, "python": options.python.to_string_lossy(), "openmp": openmp}))
}

/// What changes with anything that the engine is built from.
fn build_in_words(assets: &Assets, python: &Interpreter, with_vllm: bool) -> String {
    let sidecar = assets.package.file_name().unwrap_or_default().to_string_lossy();
    let vllm = python.vllm.as_deref().unwrap_or("of unknown version");
    let vllm = if with_vllm { format!(", vLLM {vllm}") } else { String::new() };
    format!("sidecar {sidecar}, Python {}{vllm}", python.python)
}

/// What changes with the machine, its cores, and how they wait.
fn host_in_words(placement: &Placement, facts: &HostFacts) -> String {
    let Identity { host, .. } = Identity::of(placement, facts);
    let cores = (placement.recorder_core, &placement.engine_cores);
    format!("{host}, {cores:?}, {}", placement.waiting_in_words())
}

/// A scripted engine for every epoch, and the file of what they really do.
fn scripted_specs(plan: &Plan, script: &Arc<Script>, out: &Path) -> Result<Vec<EngineSpec>, CliError> {
    let failed = |path: &Path, source| CliError::Write { what: "write", path: path.to_owned(), source };
    let truth = out.join("truth.csv");
    if !truth.exists() {
        fs::write(&truth, TRUTH_HEADER).map_err(|source| failed(&truth, source))?;
    }
    let truth = truth.canonicalize().map_err(|source| failed(&truth, source))?;
    if truth.to_str().is_none() {
        return Err(CliError::NotUtf8 { path: truth, instead: "give another folder by --out" });
    }
    let spec = || EngineSpec::Scripted { script: Arc::clone(script), truth: truth.clone() };
    Ok(plan.epochs.iter().map(|_| spec()).collect())
}
