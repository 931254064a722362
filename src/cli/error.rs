//! What ends a command early, and the exit status that goes with it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::calibration::CalibrationError;
use crate::config::ConfigError;
use crate::device::DeviceClass;
use crate::environment::EnvironmentError;
use crate::report::ReportError;
use crate::session::{SessionError, SweepError};

/// The exit statuses of `bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All runs are valid.
    Valid = 0,
    /// A run was invalid or failed, or results could not be kept.
    Invalid = 1,
    /// Usage or configuration error; nothing was measured.
    Usage = 2,
    /// The engine could not be started.
    NoEngine = 3,
    /// Interrupted, with everything finished kept.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no Python with vLLM.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The device class has no engine in this version.
    #[error(
        "device class {0} cannot be measured by this version, which has engines for cpu only; --dry-run shows the plan"
    )]
    Device(DeviceClass),
    /// The results folder holds something already.
    #[error("{} already holds results; give another folder by --out", .0.display())]
    OutExists(PathBuf),
    /// A file or folder cannot be written.
    #[error("cannot {what} {}: {source}", path.display())]
    Write {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The results cannot be read or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The instrument could not be calibrated.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The sidecar could not be started.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The sweep ended before its plan.
    #[error(transparent)]
    Sweep(#[from] SweepError),
}

impl CliError {
    /// The exit status that says it.
    pub fn exit(&self) -> Exit {
        match self {
            CliError::Config(_) | CliError::OutExists(_) | CliError::Write { .. } => Exit::Usage,
            CliError::Environment(_) | CliError::Device(_) | CliError::Session(_) => Exit::NoEngine,
            CliError::Calibration(_) => Exit::NoEngine,
            CliError::Report(_) => Exit::Invalid,
            CliError::Sweep(SweepError::Config { .. }) => Exit::Usage,
            CliError::Sweep(SweepError::Start(_)) => Exit::NoEngine,
            CliError::Sweep(SweepError::Interrupted) => Exit::Interrupted,
            CliError::Sweep(SweepError::Engine(_) | SweepError::Results(_)) => Exit::Invalid,
        }
    }
}
