//! The Python that an engine runs on: the one given, or the managed one, made first if need be.

use std::path::Path;

use super::error::{CliError, Exit};
use super::screen;
use crate::machine::device::DeviceClass;
use crate::machine::environment::{EnvironmentError, Host, Interpreter, Lock, Progress, is_managed, managed};
use crate::measurement::session::Registry;

/// The interpreter of a warm sidecar, if it is the one that this command would take: it was looked at when the sidecar was
/// started, and nothing has been installed since.
pub(super) fn of_warm_sidecar(
    given: Option<&Path>,
    device: DeviceClass,
    with_vllm: bool,
    registry: &Registry,
) -> Option<Interpreter> {
    let host = Host::of_process();
    let is_wanted = |python: &Path| match given {
        Some(given) => Interpreter::locate(given, &host).is_ok_and(|given| given == python),
        None if with_vllm => is_managed(python, &host, &Lock::of_device(device)).unwrap_or(false),
        None => Interpreter::locate(Path::new("python3"), &host).is_ok_and(|first| first == python),
    };
    // One that cannot be read is reported when the sidecar is started.
    let found = registry.list().ok()?;
    found.iter().filter(|found| found.has_same_packages()).find_map(|found| {
        let status = found.status.as_ref().ok()?;
        let about = status.about.as_ref()?;
        if about.device != device || status.with_vllm != with_vllm || !is_wanted(&about.python) {
            return None;
        }
        let python = status.hello.as_ref()?.python.parse().ok()?;
        let python_path = if given.is_none() && with_vllm { None } else { host.python_path() };
        let (path, vllm) = (about.python.clone(), about.vllm_package.clone());
        Some(Interpreter { path, python, vllm, vllm_file: None, python_path })
    })
}

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
        Err(limit @ EnvironmentError::NoResources { .. }) => Err(limit.into()),
        Err(_) => interpreter(None, DeviceClass::Cpu, say),
    }
}

/// `bench env`: makes the managed environment and prints its interpreter.
pub(super) fn make(device: DeviceClass) -> Result<Exit, CliError> {
    let made = interpreter(None, device, &mut screen::line)?;
    screen::print(&format!("{}\n", made.path.display()))
}
