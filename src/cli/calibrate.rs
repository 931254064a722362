//! `bench calibrate`: the instrument's own error, as tables and as `calibration.json`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{CliError, Exit};
use super::screen::{self, Screen};
use super::{CalibrateArgs, launch, runtime};
use crate::base::atomic_file::{self, Durability};
use crate::base::owned_folder;
use crate::machine::device::{DeviceClass, HostFacts, pin_current_thread};
use crate::machine::environment::{Host, assets};
use crate::measurement::calibration::{self, Calibration, Effort, Identity, render};
use crate::measurement::session::{SessionError, SidecarOptions};
use crate::question::config::builtin_smoke;
use crate::question::plan::Plan;
use crate::question::resolve::{self, Overrides};

/// Calibrates, prints, and keeps the error budget for the commands that follow.
pub(super) fn run(args: &CalibrateArgs) -> Result<Exit, CliError> {
    let mut screen = Screen::new(args.quiet);
    if let Some(out) = &args.out {
        let failed = |source| CliError::Write { what: "write into", path: out.clone(), source };
        std::fs::create_dir_all(out).map_err(failed)?;
        tempfile::tempfile_in(out).map_err(failed)?;
    }
    let cache = Host::of_process().cache_dir()?;
    let options = sidecar_options(args, &cache, &screen)?;
    // As in a measurement; a core that cannot be had shows as an error of the threads that need theirs.
    let _ = pin_current_thread(&options.placement.harness_cores);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| SessionError::io("starting the control plane")(err))?;
    let measured = runtime.block_on(measure(args, &options, &cache, &mut screen));
    screen.clear();
    let calibration = measured?;
    calibration::keep(&cache, &Identity::of(&options.placement, &HostFacts::read()), &calibration.error_budget);
    if let Some(peaks) = &calibration.cpu_peaks {
        calibration::keep_cpu_peaks(&cache, peaks);
    }
    // Numbers, texts and lists: nothing that JSON cannot hold.
    let json = serde_json::to_string_pretty(&calibration).unwrap_or_default() + "\n";
    if let Some(out) = &args.out {
        let path = out.join("calibration.json");
        atomic_file::replace(&path, Durability::PowerLoss, |file| file.write_all(json.as_bytes()))
            .map_err(|source| CliError::Write { what: "write", path: path.clone(), source })?;
        screen.say(&format!("calibration: {}", path.display()));
    }
    if args.json { screen::print_json(&json) } else { screen::print(&render(&calibration)) }
}

fn sidecar_options(args: &CalibrateArgs, cache: &Path, screen: &Screen) -> Result<SidecarOptions, CliError> {
    let mut say = |line: &str| screen.say(line);
    let python = match args.observer {
        true => {
            launch::check_devices(&smoke(args.device)?, args.python.as_deref())?;
            runtime::interpreter(args.python.as_deref(), args.device, &mut say)?
        }
        false => runtime::plain_interpreter(args.python.as_deref(), &mut say)?,
    };
    let assets = assets::lay_out(cache)?;
    Ok(SidecarOptions {
        device: args.device,
        python: python.path.clone(),
        vllm: python.vllm_source(),
        package: assets.package,
        ring_library: assets.ring_library,
        placement: launch::placement(1, args.wait)?,
        log: log_file(cache)?,
        env: launch::sidecar_environment(args.device, &smoke(args.device)?, cache, python.vllm.as_deref()),
        with_vllm: args.observer,
        stall_limit: SidecarOptions::STALL_LIMIT,
        warm: None,
    })
}

fn smoke(device: DeviceClass) -> Result<Plan, CliError> {
    Ok(resolve::resolve(&builtin_smoke(device), Overrides { device: Some(device), ..Overrides::default() })?)
}

/// Where the output of the observed engine goes.
fn log_file(cache: &Path) -> Result<PathBuf, CliError> {
    let folder = cache.join("logs");
    let failed = |source| CliError::Write { what: "make the folder", path: folder.clone(), source };
    owned_folder::make(&folder).map_err(failed)?;
    Ok(folder.join("calibration.log"))
}

async fn measure(
    args: &CalibrateArgs,
    options: &SidecarOptions,
    cache: &Path,
    screen: &mut Screen,
) -> Result<Calibration, CliError> {
    let effort = if args.short { Effort::Short } else { Effort::Full };
    let mut calibration = calibration::calibrate(options, effort, &mut |what| screen.wait_for(what)).await?;
    if args.observer {
        // The engine of the smoke sweep: a tiny model, whose short steps show the most.
        let mut key = smoke(args.device)?.epochs[0].key.clone();
        // The ways take turns step by step, and under async scheduling a step's tokens come within the next one.
        key.engine_args.push("--no-async-scheduling".to_owned());
        launch::lay_out_models([&key], cache)?;
        let spec = launch::engine_spec(&key, cache, &options.placement);
        let mut say = |what: &str| screen.wait_for(what);
        let time = Duration::from_secs(args.seconds.into());
        let (observer, telemetry) = calibration::observer_effect(options, &spec, time, &mut say).await?;
        (calibration.observer, calibration.observer_telemetry) = (Some(observer), Some(telemetry));
    }
    Ok(calibration)
}
