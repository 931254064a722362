//! The Python environment that `bench` makes and keeps for a device class.
//!
//! It comes into being as `NAME.partial` and gets its name by one rename, once it is complete and checked. A partial
//! one is never continued: a file that was half linked when its writer died could not be told from a whole one. The
//! long part, the download, is kept by the installer file by file, and making it anew from there takes seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::machine::environment::base::BasePython;
use crate::machine::environment::host::{Host, free_bytes, used_bytes};
use crate::machine::environment::installation::{Exclusive, Installation, finish, fresh_partial};
use crate::machine::environment::interpreter::{Interpreter, check_against};
use crate::machine::environment::progress::{OnProgress, Progress};
use crate::machine::environment::uv::Uv;
use crate::machine::environment::{EnvironmentError, Lock};

/// The managed environment of a lock file: found complete, or made.
///
/// Only one process at a time installs; another one waits and says so. If this process dies in between, the next call
/// begins anew with what was downloaded.
///
/// # Errors
/// When no installed Python will do, the disk is too full, or the installer fails.
pub fn managed(host: &Host, lock: &Lock, on_progress: &mut OnProgress<'_>) -> Result<Interpreter, EnvironmentError> {
    let cache = host.cache_dir()?;
    let base = BasePython::find(host, lock)?;
    let key = lock.key(base.minor);
    let folder = cache.join("envs").join(&key);
    if let Ok(interpreter) = check_against(&folder.join("bin/python"), host, lock, base.minor) {
        return Ok(interpreter);
    }
    let began = Instant::now();
    let exclusive = Exclusive::acquire(&cache, on_progress)?;
    // Whoever was waited for has perhaps made it.
    if let Ok(interpreter) = check_against(&folder.join("bin/python"), host, lock, base.minor) {
        return Ok(interpreter);
    }
    let log = cache.join("logs").join(format!("{key}.log"));
    let mut installation = Installation::begin(host, exclusive, log, on_progress)?;
    let interpreter = install(&cache, &folder, &base, lock, &mut installation)?;
    installation.tell(&Progress::Done { elapsed: began.elapsed() });
    Ok(interpreter)
}

/// Whether this is the interpreter of a managed environment of the lock file, by its path alone: no process is started.
///
/// # Errors
/// There is no cache folder.
pub fn is_managed(python: &Path, host: &Host, lock: &Lock) -> Result<bool, EnvironmentError> {
    let envs = host.cache_dir()?.join("envs");
    let of_minor = |minor| envs.join(lock.key(minor)).join("bin/python");
    Ok(lock.python_minors.clone().any(|minor| of_minor(minor) == python))
}

/// What there is of the managed environment of a lock file.
#[derive(Debug)]
pub enum ManagedState {
    /// It is complete.
    Made(Interpreter),
    /// The next command makes it.
    ToBeMade {
        /// The Python that it would be made with.
        base: PathBuf,
    },
}

/// Whether the managed environment of a lock file is there, or could be made. Nothing is made.
///
/// # Errors
/// When no installed Python will do.
pub fn managed_state(host: &Host, lock: &Lock) -> Result<ManagedState, EnvironmentError> {
    let cache = host.cache_dir()?;
    let base = BasePython::find(host, lock)?;
    let python = cache.join("envs").join(lock.key(base.minor)).join("bin/python");
    Ok(match check_against(&python, host, lock, base.minor) {
        Ok(interpreter) => ManagedState::Made(interpreter),
        Err(_) => ManagedState::ToBeMade { base: base.path },
    })
}

fn install(
    cache: &Path,
    folder: &Path,
    base: &BasePython,
    lock: &Lock,
    installation: &mut Installation<'_>,
) -> Result<Interpreter, EnvironmentError> {
    let host = installation.host;
    let partial = fresh_partial(folder)?;
    check_space(cache, free_bytes(cache)?, lock.disk_bytes, || used_bytes(&Uv::downloads(cache)))?;
    let log = installation.log_path().to_owned();
    installation.tell(&Progress::Plan {
        name: &lock.name,
        packages: lock.packages(),
        download_bytes: lock.download_bytes,
        disk_bytes: lock.disk_bytes,
        folder,
        log: &log,
    });
    let uv = Uv::ensure(cache, base, installation)?;
    installation.tell(&Progress::Step("installing the packages"));
    let mut venv = uv.command(cache, host);
    // Relocatable, because the scripts in it name their interpreter and the folder is renamed afterwards.
    venv.args(["venv", "--quiet", "--relocatable", "--python"]).arg(&base.path).arg(&partial);
    installation.run("making the environment's folder", venv)?;
    let requirements = partial.join("lock.txt");
    fs::write(&requirements, &lock.text).map_err(EnvironmentError::io("write", &requirements))?;
    let mut packages = uv.command(cache, host);
    // The lock file is complete, and every package has a wheel: nothing is resolved, nothing is built.
    packages.args(["pip", "install", "--no-deps", "--no-build", "--require-hashes", "--python"]);
    packages.arg(partial.join("bin/python")).arg("--requirements").arg(&requirements);
    installation.run("installing the packages", packages)?;

    let complete = |folder: &Path| {
        check_against(&folder.join("bin/python"), host, lock, base.minor).map_err(|detail| {
            EnvironmentError::Incomplete { folder: folder.into(), detail, cache: Uv::downloads(cache) }
        })
    };
    complete(&partial)?;
    finish(&partial, folder)?;
    complete(folder)
}

/// Whether the environment fits on the disk. Its files are links to the installer's downloads, so what is downloaded
/// already needs no further space; that is counted only when it matters, because it takes a while.
fn check_space(
    folder: &Path,
    free_bytes: u64,
    disk_bytes: u64,
    downloaded_bytes: impl FnOnce() -> u64,
) -> Result<(), EnvironmentError> {
    if free_bytes >= disk_bytes {
        return Ok(());
    }
    let needed_bytes = disk_bytes.saturating_sub(downloaded_bytes());
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(EnvironmentError::DiskSpace { folder: folder.into(), needed_bytes, free_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_refused_with_both_sizes_unless_the_download_is_there() {
        let gib = 1 << 30;
        let check = |free, downloaded| check_space(Path::new("/cache"), free * gib, 6 * gib, || downloaded * gib);
        assert!(check(6, 0).is_ok());
        assert!(check(2, 4).is_ok());
        let error = check(2, 3).unwrap_err().to_string();
        assert!(error.contains("/cache has 2.0 GiB free, and the environment needs 3.0 GiB"), "{error}");
    }
}
