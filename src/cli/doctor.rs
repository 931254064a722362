//! `bench doctor`: what this host can measure, what is missing, and how to get it.

use super::error::{CliError, Exit};
use super::{DoctorArgs, screen};
use crate::machine::device::{DeviceClass, Machine};
use crate::machine::doctor;
use crate::machine::environment::Host;

/// Examines this host. Asked for one class, the exit status says whether that one can be measured.
pub(super) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    let asked = args.device.map(|device| vec![device]);
    let classes = asked.unwrap_or_else(|| DeviceClass::ALL.to_vec());
    let examination = doctor::examine(&Machine::this(), &Host::of_process(), args.python.as_deref(), &classes);
    match args.json {
        // Texts, numbers and lists: nothing that JSON cannot hold.
        true => screen::print_json(&(serde_json::to_string_pretty(&examination).unwrap_or_default() + "\n")),
        false => screen::print(&examination.render()),
    }?;
    let is_refused = args.device.is_some() && examination.classes.iter().any(|class| !class.can_measure);
    Ok(if is_refused { Exit::NoEngine } else { Exit::Valid })
}
