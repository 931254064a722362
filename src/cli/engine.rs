//! `bench engine`: the main job, from a configuration to a report.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{CliError, Exit};
use super::job::{Job, Kept};
use super::screen::{self, Screen};
use super::{EngineArgs, EngineChoice, compare, launch, report, resume, runtime};
use crate::config::{self, Script};
use crate::device::{DeviceClass, HostFacts};
use crate::environment::{Host, Interpreter};
use crate::plan::{self, Detail, History, Overrides, Plan};
use crate::report::TableFormat;
use crate::session::Registry;

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
    let classes = plan.device_classes();
    if script.is_none() {
        launch::check_devices(&plan, args.python.as_deref())?;
    }
    let out = match &args.resume {
        Some(folder) => resume::session(folder).map(|_| folder.clone())?,
        None => open_results_folder(args.out.as_deref(), &plan.name)?,
    };
    let registry = (!args.own_sidecar).then(|| Registry::of(&host, &cache));
    let mut say = |line: &str| screen.say(line);
    let mut python = |device| interpreter(args, device, script.is_none(), registry.as_ref(), &mut say);
    let pythons = classes.into_iter().map(|device| Ok((device, python(device)?))).collect::<Result<_, CliError>>()?;
    let job = Job::prepare(args, plan, script, pythons, out, Kept { cache, history, registry })?;
    let (report, ended) = job.measure(&mut screen)?;
    let (mut compared, mut printed) = (Ok(Exit::Valid), Ok(()));
    if !report.runs.is_empty() {
        // Of two documents on standard output no program could read either; the report is in its folder.
        if args.ab.is_none() || args.output.format == TableFormat::Table {
            printed = screen::print_report(&report, args.output.format);
        }
        if args.ab.is_some() {
            compared = compare::pairs(&report, &job.out, args);
        }
        screen.say(&format!("results: {}", job.out.display()));
    }
    ended?;
    printed?;
    match report::exit_of(&report) {
        Exit::Valid => compared,
        exit => Ok(exit),
    }
}

/// The Python for engines of a class: that of a warm sidecar, which was looked at before, or the one that is given or managed.
fn interpreter(
    args: &EngineArgs,
    device: DeviceClass,
    with_vllm: bool,
    registry: Option<&Registry>,
    say: &mut dyn FnMut(&str),
) -> Result<Interpreter, CliError> {
    let given = args.python.as_deref();
    match registry.and_then(|registry| runtime::of_warm_sidecar(given, device, with_vllm, registry)) {
        Some(python) => Ok(python),
        None if with_vllm => runtime::interpreter(given, device, say),
        None => runtime::plain_interpreter(given, say),
    }
}

/// What the configuration asks; without one the script is its own workload, and the smoke sweep that of vLLM.
fn make_plan(args: &EngineArgs, script: Option<&Script>) -> Result<Plan, CliError> {
    let (device, repeats, seed) = (args.device, args.repeats, args.seed);
    let overrides = Overrides { device, repeats, until_ci: args.until_ci, seed, scripted: script.is_some() };
    let config = match (&args.config, script) {
        (Some(path), _) => config::load(path)?,
        (None, Some(_)) if args.ab.is_some() => return Err(CliError::NothingToCompare),
        (None, Some(script)) => return Ok(plan::of_script(script, overrides)),
        (None, None) => config::builtin_smoke(device.unwrap_or(DeviceClass::Cpu)),
    };
    let config = match &args.ab {
        Some(ab) => config.compared(ab)?,
        None => config,
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
pub(super) const HISTORY_FILE: &str = "history.json";
