//! What can go wrong with a Python environment, in words that say what to do next.

use std::io;
use std::path::{Path, PathBuf};

use crate::machine::environment::interpreter::PythonVersion;
use crate::machine::environment::progress::gib;

/// Why there is no Python environment to run the engine in.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The interpreter that the user named does not exist.
    #[error("no Python at {}: give --python (or BENCH_PYTHON) the path of an interpreter that has vLLM", path.display())]
    InterpreterMissing {
        /// As the user gave it.
        path: PathBuf,
    },
    /// The interpreter that the user named is a folder, or lacks the permission to run.
    #[error("{} cannot be run ({reason}): give --python the interpreter itself, e.g. /path/to/venv/bin/python", path.display())]
    NotExecutable {
        /// As the user gave it.
        path: PathBuf,
        /// What it is instead.
        reason: &'static str,
    },
    /// The program ran, but did not answer as a Python interpreter does.
    #[error("{} is not a Python interpreter ({detail}): give --python the path of one that has vLLM", path.display())]
    NotPython {
        /// The program that was run.
        path: PathBuf,
        /// What it answered.
        detail: String,
    },
    /// The system has no room for another process, whatever program it is.
    #[error("could not start {}: {source}. Raise the limit that is reached (ulimit -n for open files, ulimit -u for \
             processes, ulimit -v or the machine for memory), and run the same command again", path.display())]
    NoResources {
        /// The program that was to be run.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The interpreter did not answer in time and was stopped.
    #[error("{} did not answer within {limit_s} s and was stopped: check that it is a Python interpreter, and that its \
             folder is on a disk that responds", path.display())]
    NoAnswer {
        /// The program that was run.
        path: PathBuf,
        /// How long it was waited for, in seconds.
        limit_s: u64,
    },
    /// The interpreter is too old.
    #[error("{} is Python {found}, and the sidecar needs {needed} or newer: give --python another interpreter, or leave \
             it out and bench makes an environment", path.display())]
    PythonVersion {
        /// The interpreter.
        path: PathBuf,
        /// Its version.
        found: PythonVersion,
        /// The oldest version that will do, as `major.minor`.
        needed: String,
    },
    /// The interpreter has no vLLM.
    #[error("{} (Python {python}) has no vLLM: install it there, or give --python an interpreter that has it; \
             without --python bench makes an environment", path.display())]
    NoVllm {
        /// The interpreter.
        path: PathBuf,
        /// Its version.
        python: PythonVersion,
    },
    /// No installed Python can carry the environment.
    #[error(
        "no Python {needed} on PATH to make the environment with ({}): install one, or give --python an interpreter \
             that has vLLM",
        describe_tried(tried)
    )]
    NoBasePython {
        /// The range of versions that the lock file supports.
        needed: String,
        /// What was found on PATH instead.
        tried: Vec<String>,
    },
    /// The only suitable Python lacks the modules that make environments.
    #[error("{} (Python {python}) cannot make environments, the module {module} is missing: install it (Debian and \
             Ubuntu: the package python{}.{}-venv), or give --python an interpreter that has vLLM",
            path.display(), python.major, python.minor)]
    NoVenv {
        /// The interpreter.
        path: PathBuf,
        /// Its version.
        python: PythonVersion,
        /// The module that is missing.
        module: &'static str,
    },
    /// It is not known where the user keeps caches.
    #[error("no folder to keep the Python environment in: set BENCH_CACHE_DIR to an absolute path, or set HOME")]
    NoCacheFolder,
    /// Other users can write into the cache folder, in which programs are that `bench` runs.
    #[error("{} belongs to user id {owner} and has mode {mode:o}: others could have bench run their programs. Look at what is in \
             it, then `chmod go-w {}` if it is yours, or set BENCH_CACHE_DIR to a folder of your own",
            folder.display(), folder.display())]
    NotOwn {
        /// The cache folder, or one in it.
        folder: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The disk is too full for the environment.
    #[error("{} has {} free, and the environment needs {}: free some space, or set BENCH_CACHE_DIR to a folder on \
             another disk", folder.display(), gib(*free_bytes), gib(*needed_bytes))]
    DiskSpace {
        /// The cache folder.
        folder: PathBuf,
        /// What is still needed, in bytes.
        needed_bytes: u64,
        /// What is free, in bytes.
        free_bytes: u64,
    },
    /// A step of the installation failed.
    #[error("{step} failed ({status}). Its last words:\n{}\nThe whole output is in {}. What was downloaded is kept: run \
             the same command again once the cause is removed", indent(last_lines), log.display())]
    Install {
        /// What was being done.
        step: String,
        /// How the installer ended.
        status: String,
        /// The end of its output.
        last_lines: Vec<String>,
        /// The file with all of its output.
        log: PathBuf,
    },
    /// The installation said that it succeeded, but the environment is not what the lock file says.
    #[error("the environment that was just made in {} is not complete: {detail}. Run the same command again; if that \
             does not help, remove {}", folder.display(), cache.display())]
    Incomplete {
        /// Where it was made.
        folder: PathBuf,
        /// The first difference.
        detail: String,
        /// The installer's cache.
        cache: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("could not {action} {}: {source}. Check its permissions and the disk, or set BENCH_CACHE_DIR to another folder",
            path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl EnvironmentError {
    /// For `map_err`: what was tried, and on what.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

fn describe_tried(tried: &[String]) -> String {
    if tried.is_empty() { "none was found".into() } else { format!("found {}", tried.join(", ")) }
}

fn indent(lines: &[String]) -> String {
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
