//! `bench calibrate`: the instrument's own error, as tables and as `calibration.json`.

use std::io::Write as _;

use super::error::{CliError, Exit};
use super::screen::{self, Screen};
use super::{CalibrateArgs, runtime};
use crate::atomic_file::{self, Durability};
use crate::calibration::{self, Effort, Identity, render};
use crate::device::{HostFacts, Placement, Topology, pin_current_thread};
use crate::environment::{Host, assets};
use crate::session::{SessionError, SidecarOptions};

/// Calibrates, prints, and keeps the error budget for the commands that follow.
pub(super) fn run(args: &CalibrateArgs) -> Result<Exit, CliError> {
    let mut screen = Screen::new(args.quiet);
    if let Some(out) = &args.out {
        let failed = |source| CliError::Write { what: "write into", path: out.clone(), source };
        std::fs::create_dir_all(out).map_err(failed)?;
        tempfile::tempfile_in(out).map_err(failed)?;
    }
    let cache = Host::of_process().cache_dir()?;
    let python = runtime::plain_interpreter(args.python.as_deref(), &mut |line| screen.say(line))?;
    let assets = assets::lay_out(&cache)?;
    let topology = Topology::of_this_machine()
        .map_err(|err| SessionError::io("asking for the usable cores".to_owned())(err.into()))?;
    let options = SidecarOptions {
        python: python.path,
        package: assets.package,
        ring_library: assets.ring_library,
        placement: Placement::choose(&topology),
        log: std::env::temp_dir().join("unused"), // the calibration keeps its own
        env: Vec::new(),
        with_vllm: false,
    };
    // As in a measurement; a core that cannot be had shows as an error of the threads that need theirs.
    let _ = pin_current_thread(&options.placement.harness_cores);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| SessionError::io("starting the control plane")(err))?;
    let effort = if args.short { Effort::Short } else { Effort::Full };
    let measured = runtime.block_on(calibration::calibrate(&options, effort, &mut |what| screen.wait_for(what)));
    screen.clear();
    let calibration = measured?;
    calibration::keep(&cache, &Identity::of(&options.placement, &HostFacts::read()), &calibration.error_budget);
    // Numbers, texts and lists: nothing that JSON cannot hold.
    let json = serde_json::to_string_pretty(&calibration).unwrap_or_default() + "\n";
    if let Some(out) = &args.out {
        let path = out.join("calibration.json");
        atomic_file::replace(&path, Durability::PowerLoss, |file| file.write_all(json.as_bytes()))
            .map_err(|source| CliError::Write { what: "write", path: path.clone(), source })?;
        screen.say(&format!("calibration: {}", path.display()));
    }
    screen::print(&if args.json { json } else { render(&calibration) })
}
