//! `bench engine`: the main job, from a configuration to a report.

use std::path::Path;
use std::sync::Arc;

use super::error::{CliError, Exit};
use super::job::{Job, Kept};
use super::screen::{self, Screen};
use super::{EngineArgs, EngineChoice, compare, launch, report, resume, runtime};
use crate::machine::device::{DeviceClass, HostFacts};
use crate::machine::environment::{Host, Interpreter};
use crate::measurement::session::Registry;
use crate::presentation::plan_text::{self, Detail};
use crate::presentation::report::{ReportError, ResultsFolder, TableFormat};
use crate::question::config::{self, Script};
use crate::question::plan::{self, History, Plan};
use crate::question::resolve::{self, CpuKvSpace, Overrides};

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
        return screen::print(&(launch + &plan_text::render(&plan, &estimate, Detail::Full)));
    }
    screen.say(&plan_text::render(&plan, &estimate, Detail::Short));
    let classes = plan.device_classes();
    if script.is_none() {
        launch::check_devices(&plan, args.python.as_deref())?;
    }
    check_paths(args, &cache)?;
    let out = match &args.resume {
        Some(folder) => resume::session(folder).and_then(|_| Ok(ResultsFolder::open(folder)?))?,
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
            compared = compare::pairs(&report, job.out.path(), args);
        }
        screen.say(&format!("results: {}", job.out.path().display()));
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
    let kv_space = match std::env::var_os("VLLM_CPU_KVCACHE_SPACE") {
        None => CpuKvSpace::Unset,
        Some(gib) => gib.to_string_lossy().trim().parse().map_or(CpuKvSpace::NoNumber, CpuKvSpace::Gib),
    };
    let scripted = script.is_some();
    let overrides = Overrides { device, repeats, until_ci: args.until_ci, seed, scripted, kv_space };
    let config = match (&args.config, script) {
        (Some(path), _) => config::load(path)?,
        (None, Some(_)) if args.ab.is_some() => return Err(CliError::NothingToCompare),
        (None, Some(script)) => return Ok(resolve::of_script(script, overrides)),
        (None, None) => config::builtin_smoke(device.unwrap_or(DeviceClass::Cpu)),
    };
    let config = match &args.ab {
        Some(ab) => config.compared(ab)?,
        None => config,
    };
    Ok(resolve::resolve(&config, overrides)?)
}

fn read_history(path: &Path, screen: &Screen) -> History {
    History::load(path).unwrap_or_else(|err| {
        screen.say(&format!("warning: {err}"));
        History::default()
    })
}

/// Every path that the sidecar is told, in JSON, has to be text.
fn check_paths(args: &EngineArgs, cache: &Path) -> Result<(), CliError> {
    // A working folder that is gone has no path.
    let here = std::env::current_dir().unwrap_or_default();
    let out = args.resume.as_deref().or(args.out.as_deref()).unwrap_or(Path::new("results"));
    let paths = [
        (here.clone(), "change into another working folder"),
        (here.join(out), "give another folder by --out"),
        (cache.to_owned(), "set XDG_CACHE_HOME to another folder"),
    ];
    match paths.into_iter().find(|(path, _)| path.to_str().is_none()) {
        Some((path, instead)) => Err(CliError::NotUtf8 { path, instead }),
        None => Ok(()),
    }
}

/// Makes the folder now, so that an unwritable place is found before anything is started.
fn open_results_folder(given: Option<&Path>, name: &str) -> Result<ResultsFolder, CliError> {
    let failed =
        |path: &Path, source| CliError::Write { what: "make the results folder", path: path.to_owned(), source };
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let opened = match given {
        Some(out) => ResultsFolder::begin(out),
        None => ResultsFolder::begin_new(Path::new(&format!("results/{name}-{time}"))),
    };
    let out = opened.map_err(|error| match error {
        ReportError::Write { path, source } => failed(&path, source),
        error => error.into(),
    })?;
    tempfile::tempfile_in(out.path()).map_err(|source| failed(out.path(), source))?;
    Ok(out)
}

/// How long runs took before, in the cache folder.
pub(super) const HISTORY_FILE: &str = "history.json";
