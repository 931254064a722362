//! What can go wrong between the harness and the sidecar.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::printable::excerpt;
use crate::machine::environment::VllmSource;
use crate::measurement::recorder::RecorderError;
use crate::measurement::ring::RingError;

/// Characters of a message that an error repeats.
pub(super) const MOST_QUOTED: usize = 200;

/// A session with a sidecar or an engine has failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The interpreter could not be started.
    #[error("cannot start {python}: {source}; give a Python with vLLM by --python PATH", python = python.display())]
    Start {
        /// The interpreter.
        python: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The sidecar's process ended, or never came up.
    #[error("the sidecar {how}; its last words are in {log}{tail}", log = log.display())]
    SidecarDied {
        /// How it ended: an exit status or a signal.
        how: String,
        /// Its output.
        log: PathBuf,
        /// The last lines of its output, each after a newline; empty if there are none.
        tail: String,
    },
    /// The engine's process ended.
    #[error("the engine process {how}; the sidecar's output is in {log}{tail}", log = log.display())]
    EngineDied {
        /// How it ended: an exit status or a signal.
        how: String,
        /// The sidecar's output.
        log: PathBuf,
        /// The last lines of it, each after a newline; empty if there are none.
        tail: String,
    },
    /// The engine could not be loaded, or failed while it ran.
    #[error("the engine failed during its {stage}: {kind}: {message}{hint}\n  the sidecar's output is in {log}", log = log.display())]
    EngineFailed {
        /// `load`, `self-test` or `run`.
        stage: String,
        /// Kind of the Python exception.
        kind: String,
        /// Its message.
        message: String,
        /// What to do next, if that is known.
        hint: String,
        /// The sidecar's output.
        log: PathBuf,
    },
    /// Another command measures with the warm sidecar that fits.
    #[error(
        "the warm sidecar {id} is held by process {pid} for {} s: {command}\n  what to do: wait for its end; or interrupt it, \
             `kill -INT {pid}`; or measure beside it, on a sidecar of this command's own, with --own-sidecar",
        held_for.as_secs()
    )]
    Busy {
        /// The sidecar.
        id: String,
        /// The command's process.
        pid: u32,
        /// Its command line.
        command: String,
        /// Since it has the sidecar.
        held_for: Duration,
    },
    /// The registry of warm sidecars is open to others.
    #[error(
        "{} must be a folder of this user's own (mode 0700), and belongs to user id {owner} with mode {mode:o}; remove it",
        folder.display()
    )]
    NotPrivate {
        /// The registry.
        folder: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The sidecar refused an operation.
    #[error("{0}")]
    Refused(String),
    /// An answer did not come.
    #[error("no answer to {what} within {} s; the sidecar's output is in {log}", limit.as_secs(), log = log.display())]
    Timeout {
        /// What was asked.
        what: String,
        /// The limit that was waited for.
        limit: Duration,
        /// The sidecar's output.
        log: PathBuf,
    },
    /// A process does nothing, and its answer is missing.
    #[error("no answer to {what}: {who} has done nothing for {:.1} s; the sidecar's output is in {log}",
            idle_for.as_secs_f64(), log = log.display())]
    Idle {
        /// What was asked.
        what: String,
        /// Which process: the sidecar or the engine process.
        who: &'static str,
        /// How long it has used no processor.
        idle_for: Duration,
        /// The sidecar's output.
        log: PathBuf,
    },
    /// The engine went silent in the middle of a run.
    #[error("the engine has given no sign for {:.1} s in the middle of a run; {}", silent_for.as_secs_f64(),
            seen(*longest_step_ns))]
    Silent {
        /// How long.
        silent_for: Duration,
        /// Its longest step before, in nanoseconds; 0 if none was seen.
        longest_step_ns: u64,
    },
    /// The peer does not speak this protocol.
    #[error("the sidecar sent what this version does not understand: {0}")]
    Protocol(String),
    /// The sidecar has imported another vLLM than the one that was looked up.
    #[error(
        "the sidecar has imported vLLM {} from {}, and vLLM {} was looked up at {}: the report would name what was not \
             measured; look for a second vllm in PYTHONPATH, .pth files and sitecustomize, or give another interpreter by --python PATH",
        known(imported.version.as_ref()), known(imported.file.as_ref().map(|file| file.display())),
        known(looked_up.version.as_ref()), known(looked_up.file.as_ref().map(|file| file.display()))
    )]
    OtherVllm {
        /// As the sidecar said.
        imported: VllmSource,
        /// As the interpreter was asked before.
        looked_up: VllmSource,
    },
    /// The sidecar has another ABI.
    #[error("the sidecar has ABI version {found}, this program {expected}: they are of different versions")]
    Abi {
        /// The sidecar's.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// The recorder stopped early.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// A ring could not be made.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Anything else of the operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl SessionError {
    /// A message that has its form and comes at the wrong time.
    pub(super) fn unexpected(message: &impl std::fmt::Debug, instead_of: &str) -> SessionError {
        SessionError::Protocol(format!("{} instead of {instead_of}", excerpt(&format!("{message:?}"), MOST_QUOTED)))
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> SessionError {
        let what = what.into();
        move |source| SessionError::Io { what, source }
    }
}

fn known(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "(unknown)".to_owned(), |value| value.to_string())
}

/// What a silence is measured by.
fn seen(longest_step_ns: u64) -> String {
    match longest_step_ns {
        0 => "none of its steps was ever seen".to_owned(),
        ns => format!("the longest of its steps took {:.3} s", ns as f64 / 1e9),
    }
}
