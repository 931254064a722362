//! What engines are started with: the arguments for vLLM's parser, the sidecar's environment, and whether this machine
//! has what they need. A dry run shows exactly this.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::EngineArgs;
use super::error::CliError;
use crate::base::atomic_file::{self, Durability};
use crate::base::bounded_file::read_bounded;
use crate::base::owned_folder;
use crate::machine::device::{DeviceClass, Machine, Placement, Topology, Value, WaitStrategy, Yields};
use crate::machine::doctor::{EnvironmentFacts, EnvironmentState, decided};
use crate::machine::environment::{Host, Interpreter, Lock, VllmSource, assets};
use crate::measurement::session::{EngineSpec, SessionError, SidecarOptions, user_variable};
use crate::question::config::builtin_model_config;
use crate::question::plan::flag_value;
use crate::question::plan::{EngineKey, Plan};

/// Where torch keeps what it has compiled: without it in the folder for temporary files, where each sidecar has its own.
const INDUCTOR_CACHE: &str = "TORCHINDUCTOR_CACHE_DIR";

/// What vLLM's parser gets for an engine key, and what is added to the environment of the engine's process.
pub(super) fn engine_spec(key: &EngineKey, cache: &Path, placement: &Placement) -> EngineSpec {
    let model = match builtin_model_config(&key.model) {
        Some(_) => builtin_model_folder(&key.model, cache).display().to_string(),
        None => key.model.clone(),
    };
    let mut argv = vec!["--model".to_owned(), model];
    if key.tensor_parallel_size != 1 {
        argv.extend(["--tensor-parallel-size".to_owned(), key.tensor_parallel_size.to_string()]);
    }
    argv.extend(key.device.profile().added_arguments(&key.engine_args).map(str::to_owned));
    argv.extend_from_slice(&key.engine_args);
    argv.extend_from_slice(&key.quantization_switches.args);
    let mut env = key.quantization_switches.env.clone();
    env.extend(placement.openmp_of_ranks(key.device, key.ranks()));
    EngineSpec::Vllm { argv, step_api: key.step_api, env }
}

/// Lays out the built-in models among `keys` as the folders that vLLM wants.
pub(super) fn lay_out_models<'a>(keys: impl IntoIterator<Item = &'a EngineKey>, cache: &Path) -> Result<(), CliError> {
    for key in keys {
        let Some(Ok(config)) = builtin_model_config(&key.model) else { continue };
        let folder = builtin_model_folder(&key.model, cache);
        let failed = |source| CliError::Write { what: "write the built-in model to", path: folder.clone(), source };
        owned_folder::make(&folder).map_err(failed)?;
        let path = folder.join("config.json");
        if read_bounded(&path, config.len() as u64).is_ok_and(|there| there == config.as_bytes()) {
            continue;
        }
        atomic_file::replace(&path, Durability::Process, |file| file.write_all(config.as_bytes())).map_err(failed)?;
    }
    Ok(())
}

fn builtin_model_folder(name: &str, cache: &Path) -> PathBuf {
    cache.join("models").join(name.replace(':', "-"))
}

/// What the device class and the plan add to the environment of a sidecar.
pub(super) fn sidecar_environment(
    device: DeviceClass,
    plan: &Plan,
    cache: &Path,
    vllm_version: Option<&str>,
) -> Vec<(String, String)> {
    let vllm_cache = cache.join("vllm").join(format!("{device}-{}", vllm_version.unwrap_or("unknown")));
    let keys = || plan.epochs.iter().map(|epoch| &epoch.key).filter(|key| key.device == device);
    let mut env = vec![("VLLM_CACHE_ROOT".to_owned(), vllm_cache.display().to_string())];
    if std::env::var_os(INDUCTOR_CACHE).is_none_or(|given| given.is_empty()) {
        env.push((INDUCTOR_CACHE.to_owned(), vllm_cache.join("torchinductor").display().to_string()));
    }
    let is_local = |key: &EngineKey| builtin_model_config(&key.model).is_some() || Path::new(&key.model).is_dir();
    if keys().all(is_local) {
        env.push(("HF_HUB_OFFLINE".to_owned(), "1".to_owned()));
    }
    for variable in device.profile().variables {
        let is_given = std::env::var_os(variable.name).is_some();
        let yields = match variable.yields {
            Yields::Never => false,
            Yields::ToUser => is_given,
            Yields::ToUserAndFlag(flag) => is_given || keys().any(|key| flag_value(&key.engine_args, flag).is_some()),
        };
        if !yields {
            let value = match variable.value {
                Value::Text(text) => text.to_owned(),
                Value::BelowVllmCache(folder) => vllm_cache.join(folder).display().to_string(),
            };
            env.push((variable.name.to_owned(), value));
        }
    }
    env
}

/// Whether this machine has all device classes of a plan, and nothing is set that is refused there. `python` is the one given.
///
/// # Errors
/// A class that is not here, settings that a measurement is refused with, or one Python for several classes.
pub(super) fn check_devices(plan: &Plan, python: Option<&Path>) -> Result<(), CliError> {
    let classes = plan.device_classes();
    if python.is_some() && classes.len() > 1 {
        return Err(CliError::OnePython(classes));
    }
    classes.into_iter().try_for_each(|device| check_device(plan, device))
}

fn check_device(plan: &Plan, device: DeviceClass) -> Result<(), CliError> {
    refuse_variables(device)?;
    let finding = Machine::this().look_for(device);
    if !finding.is_present {
        return Err(CliError::DeviceMissing(finding));
    }
    let found = match device {
        DeviceClass::Cpu => Some(topology()?.physical.len() as u32),
        _ => finding.tensor_parallel,
    };
    let Some(found) = found.filter(|_| std::env::var_os("TPU_MULTIHOST_BACKEND").is_none()) else { return Ok(()) };
    let keys = plan.epochs.iter().map(|epoch| &epoch.key).filter(|key| key.device == device);
    // On several hosts there may be more devices than this one has.
    match keys.filter(|key| !key.is_spread_over_hosts()).max_by_key(|key| key.ranks()) {
        Some(key) if key.ranks() > found => Err(CliError::TooFewDevices {
            ranks: key.ranks_in_words(),
            asked: key.ranks(),
            found,
            of: device.profile().tensor_parallel,
        }),
        _ => Ok(()),
    }
}

fn refuse_variables(device: DeviceClass) -> Result<(), CliError> {
    let value_of = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    match device.profile().refused_variables(value_of).first() {
        Some((name, refused)) => {
            Err(CliError::RefusedVariable { device, name, why: refused.why, instead: refused.instead })
        }
        None => Ok(()),
    }
}

/// What the engines of a plan would be given, class by class, as text.
pub(super) fn render(plan: &Plan, args: &EngineArgs, host: &Host, cache: &Path) -> Result<String, CliError> {
    let mut lines = Vec::new();
    let placement = placement(ranks_on_cores(plan), args.wait)?;
    for device in plan.device_classes() {
        refuse_variables(device)?;
        let keys = plan.epochs.iter().map(|epoch| &epoch.key).filter(|key| key.device == device);
        let mut told = BTreeSet::new();
        for key in keys.filter(|key| told.insert(*key)) {
            let EngineSpec::Vllm { argv, env, .. } = engine_spec(key, cache, &placement) else { continue };
            let loads = (0..plan.epochs.len()).filter(|epoch| plan.loads_engine(*epoch)).zip(1..);
            let of_key = loads.filter(|(epoch, _): &(_, usize)| plan.epochs[*epoch].key == *key);
            let loads: Vec<String> = of_key.map(|(_, nth)| nth.to_string()).collect();
            lines.push(format!("Arguments of engine {} for vLLM's parser", loads.join(", ")));
            lines.push(format!("  {}", shlex::try_join(argv.iter().map(String::as_str)).unwrap_or_default()));
            lines.extend(env.iter().map(|(name, value)| format!("  variable {name}={value}")));
        }
        lines.push(format!("Environment of {device}"));
        lines.extend(environment_lines(device, plan, args, host, cache, &placement)?);
        lines.push(String::new());
    }
    Ok(lines.join("\n"))
}

fn environment_lines(
    device: DeviceClass,
    plan: &Plan,
    args: &EngineArgs,
    host: &Host,
    cache: &Path,
    placement: &Placement,
) -> Result<Vec<String>, CliError> {
    let profile = device.profile();
    let facts = EnvironmentFacts::of(host, args.python.as_deref(), device);
    let vllm = match (&args.python, facts.state) {
        (Some(path), EnvironmentState::Given) => Interpreter::given(path, host)?.vllm_source(),
        _ => {
            let version = Lock::of_device(device).version_of(profile.package).map(str::to_owned);
            VllmSource { version, ..VllmSource::default() }
        }
    };
    let assets = assets::locate(cache);
    let options = SidecarOptions {
        device,
        python: facts.python.clone().unwrap_or_default(),
        package: assets.package,
        ring_library: assets.ring_library,
        env: sidecar_environment(device, plan, cache, vllm.version.as_deref()),
        vllm,
        placement: placement.clone(),
        log: PathBuf::new(),
        with_vllm: true,
        stall_limit: Duration::from_secs(args.stall_limit.into()),
        warm: None,
    };
    let mut lines = facts.lines(device, profile);
    let told = options.variables().into_iter().filter(|(_, value)| !value.is_empty());
    lines.extend(told.map(|(name, value)| format!("  variable {name}={value}")));
    lines.extend(options.replaced(user_variable).iter().map(|replaced| format!("  {replaced}")));
    if device == DeviceClass::Cpu {
        lines.extend(placement.warnings().into_iter().map(|warning| format!("  warning of every run: {warning}")));
    }
    lines.extend(decided(profile));
    Ok(lines)
}

/// Where the threads of a measurement run on this machine, with engines of at most so many ranks on its cores.
pub(super) fn placement(ranks: u32, wait: Option<WaitStrategy>) -> Result<Placement, SessionError> {
    Ok(Placement::of_ranks(&topology()?, ranks).with_wait(wait))
}

/// The most ranks that compute on the host's own cores in any engine of a plan.
pub(super) fn ranks_on_cores(plan: &Plan) -> u32 {
    let keys = plan.epochs.iter().map(|epoch| &epoch.key).filter(|key| key.device == DeviceClass::Cpu);
    keys.map(EngineKey::ranks).max().unwrap_or(1)
}

fn topology() -> Result<Topology, SessionError> {
    Topology::of_this_machine().map_err(|err| SessionError::io("asking for the usable cores".to_owned())(err.into()))
}
