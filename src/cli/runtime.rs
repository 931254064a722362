//! The Python that an engine runs on: the one given, or the managed one, made first if need be.

use std::path::Path;

use super::error::{CliError, Exit};
use super::screen;
use crate::device::DeviceClass;
use crate::environment::{Host, Interpreter, Lock, Progress, managed};

/// The interpreter for a device class. `say` gets the lines of an installation.
pub(super) fn interpreter(
    given: Option<&Path>,
    device: DeviceClass,
    say: &mut dyn FnMut(&str),
) -> Result<Interpreter, CliError> {
    let host = Host::of_process();
    if let Some(path) = given {
        return Ok(Interpreter::given(path, &host)?);
    }
    let mut on_progress = |progress: &Progress<'_>| say(&progress.to_string());
    Ok(managed(&host, &Lock::of_device(device), &mut on_progress)?)
}

/// The interpreter for scripted engines: the one given, the system's, or the managed one where that is too old.
pub(super) fn plain_interpreter(given: Option<&Path>, say: &mut dyn FnMut(&str)) -> Result<Interpreter, CliError> {
    let host = Host::of_process();
    if let Some(path) = given {
        return Ok(Interpreter::without_vllm(path, &host)?);
    }
    match Interpreter::without_vllm(Path::new("python3"), &host) {
        Ok(found) => Ok(found),
        Err(_) => interpreter(None, DeviceClass::Cpu, say),
    }
}

/// `bench env`: makes the managed environment and prints its interpreter.
pub(super) fn make(device: DeviceClass) -> Result<Exit, CliError> {
    let made = interpreter(None, device, &mut |line| anstream::eprintln!("{line}"))?;
    screen::print(&format!("{}\n", made.path.display()))
}
