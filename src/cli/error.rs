//! What ends a command early, and the exit status that goes with it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::machine::device::{Check, DeviceClass, Finding, Missing};
use crate::machine::environment::EnvironmentError;
use crate::measurement::calibration::CalibrationError;
use crate::measurement::session::{SessionError, SweepError};
use crate::measurement::timeline::store::StoreError;
use crate::presentation::comparison::ComparisonError;
use crate::presentation::report::{DamagedRun, ReportError};
use crate::question::config::ConfigError;

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
    /// Some recorded data cannot be read; everything else was done.
    Unreadable = 4,
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
    /// The device class is not on this machine.
    #[error("device class {} is not on this machine; what was looked for:{}\n  `bench doctor --device {}` shows all \
             of it, and --dry-run the plan without the device", .0.device, looked_for(.0), .0.device)]
    DeviceMissing(Finding),
    /// An engine needs more devices than this host has.
    #[error("{ranks} needs {asked} {of}, and this host has {found}; lower the parallel sizes, or take a larger host")]
    TooFewDevices {
        /// What the ranks of the engine come from.
        ranks: String,
        /// How many there are.
        asked: u32,
        /// What there is.
        found: u32,
        /// What is counted.
        of: &'static str,
    },
    /// The plan has engines of several classes, and one Python is given for all.
    #[error("--python gives one interpreter, and the plan has engines of {} device classes ({}), each with a vLLM of its own; \
             leave it out, or measure one class with --device", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    OnePython(Vec<DeviceClass>),
    /// A variable is set with which nothing is measured.
    #[error("{name} is set, which is refused on {device}: {why}; {instead}")]
    RefusedVariable {
        /// The class that is to be measured.
        device: DeviceClass,
        /// The variable.
        name: &'static str,
        /// What it would do to the numbers.
        why: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// A path that the sidecar is told is not text.
    #[error("{} is not UTF-8, as every path has to be that the engine is told: {instead}", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
        /// What to do.
        instead: &'static str,
    },
    /// The sweep of a results folder cannot be gone on with.
    #[error("{} cannot be resumed: {problem}", folder.display())]
    NotResumable {
        /// The results folder.
        folder: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
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
    /// Standard output takes no more.
    #[error("cannot write to standard output: {0}")]
    Print(std::io::Error),
    /// The results cannot be read or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Recorded runs cannot be read, and are left out.
    #[error("recorded data that cannot be read is left out of this:{}", .0.iter().map(|run| format!("\n  {}: {}", run.path, run.problem))
            .collect::<String>())]
    Damaged(Vec<DamagedRun>),
    /// The instrument could not be calibrated.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// No warm sidecar of this name.
    #[error("there is no warm sidecar {id}; there are: {there_are}")]
    NoSuchSidecar {
        /// As the user gave it.
        id: String,
        /// The names of those that there are.
        there_are: String,
    },
    /// Several warm sidecars, and none was named.
    #[error("there are several warm sidecars: {0}; name one, or give --all")]
    WhichSidecar(String),
    /// A script alone has no settings to compare.
    #[error("--ab compares values of a setting, and a script alone has none; give a configuration with --config")]
    NothingToCompare,
    /// Nothing can be compared.
    #[error(transparent)]
    Comparison(#[from] ComparisonError),
    /// A comparison that decides nothing is no gate.
    #[error("nothing could be decided: {0}")]
    Undecided(String),
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
            CliError::Config(_) | CliError::Write { .. } => Exit::Usage,
            CliError::NotResumable { .. } | CliError::NotUtf8 { .. } => Exit::Usage,
            CliError::NoSuchSidecar { .. } | CliError::WhichSidecar(_) => Exit::Usage,
            CliError::OnePython(_) | CliError::RefusedVariable { .. } => Exit::Usage,
            CliError::Environment(_) | CliError::Session(_) => Exit::NoEngine,
            CliError::DeviceMissing(_) | CliError::TooFewDevices { .. } => Exit::NoEngine,
            CliError::Calibration(_) => Exit::NoEngine,
            CliError::Damaged(_) => Exit::Unreadable,
            CliError::Report(error) => of_report(error),
            CliError::Print(_) => Exit::Invalid,
            CliError::Comparison(_) | CliError::Undecided(_) | CliError::NothingToCompare => Exit::Usage,
            CliError::Sweep(SweepError::Config { .. }) => Exit::Usage,
            CliError::Sweep(SweepError::Start(_)) => Exit::NoEngine,
            CliError::Sweep(SweepError::Interrupted) => Exit::Interrupted,
            CliError::Sweep(SweepError::Results(_)) => Exit::Invalid,
        }
    }
}

fn of_report(error: &ReportError) -> Exit {
    match error {
        ReportError::Store(StoreError::NotResults { .. }) => Exit::Usage,
        ReportError::Store(StoreError::Io { .. } | StoreError::Damaged { .. }) => Exit::Unreadable,
        ReportError::InUse { .. } | ReportError::HoldsResults { .. } | ReportError::Csv(_) => Exit::Usage,
        ReportError::Plot(_) | ReportError::Write { .. } | ReportError::NotWritten { .. } => Exit::Invalid,
    }
}

/// What the system says of a limit of this process, and which limit that is.
const LIMITS: [(&str, &str); 2] = [
    ("Too many open files", "allow more open files: ulimit -n 1024"),
    ("File too large", "allow larger files: ulimit -f unlimited"),
];

/// What to do about a message whose cause is a limit of this process: a line that follows it, or nothing.
pub(super) fn advice(message: &str) -> String {
    let found = LIMITS.iter().find(|(said, _)| message.contains(said));
    found.map_or_else(String::new, |(_, advice)| format!("\n  what to do: {advice}"))
}

/// What is missing, a line for each with a line of what to do.
fn looked_for(finding: &Finding) -> String {
    let line = |(check, missing): (&Check, &Missing)| {
        format!("\n  {}: {}\n    to get it: {}", check.what, missing.missing, missing.remedy)
    };
    finding.missing().map(line).collect()
}
