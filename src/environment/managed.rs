//! The Python environment that `bench` makes and keeps for a device class.
//!
//! It comes into being as `NAME.partial` and gets its name by one rename, once it is complete and checked. A partial
//! one is never continued: a file that was half linked when its writer died could not be told from a whole one. The
//! long part, the download, is kept by the installer file by file, and making it anew from there takes seconds.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::environment::base::BasePython;
use crate::environment::host::{Host, free_bytes, used_bytes};
use crate::environment::interpreter::{Interpreter, check_against};
use crate::environment::process::run_logged;
use crate::environment::progress::Progress;
use crate::environment::uv::Uv;
use crate::environment::{EnvironmentError, Lock};

/// Takes what there is to tell while an environment is made.
pub type OnProgress<'a> = dyn FnMut(&Progress<'_>) + 'a;

/// The managed environment of a lock file: found complete, or made.
///
/// Only one process at a time makes it; another one waits and says so. If this process dies in between, the next
/// call begins anew with what was downloaded.
///
/// # Errors
/// When no installed Python will do, the disk is too full, or the installer fails.
pub fn managed(host: &Host, lock: &Lock, on_progress: &mut OnProgress<'_>) -> Result<Interpreter, EnvironmentError> {
    let cache = host.cache_dir()?;
    let base = BasePython::find(host, lock)?;
    let key = lock.key(base.minor);
    let folder = cache.join("envs").join(&key);
    if let Ok(interpreter) = check_against(&folder.join("bin/python"), host, lock) {
        return Ok(interpreter);
    }
    let began = Instant::now();
    let mut installation = Installation::open(host, &cache.join("logs").join(format!("{key}.log")), on_progress)?;
    let guard = installation.exclude_others(&folder)?;
    // Whoever was waited for has perhaps made it.
    if let Ok(interpreter) = check_against(&folder.join("bin/python"), host, lock) {
        return Ok(interpreter);
    }
    let partial = installation.fresh_partial(&folder)?;
    check_space(&cache, free_bytes(&cache)?, lock.disk_bytes, || used_bytes(&Uv::downloads(&cache)))?;
    installation.announce(lock, &folder);
    let uv = Uv::ensure(&cache, &base, &mut installation)?;
    installation.guard = Some(guard);
    install(&uv, &cache, &base, lock, &partial, &mut installation)?;
    let incomplete = |folder: &Path, detail| EnvironmentError::Incomplete { folder: folder.into(), detail, cache: cache.clone() };
    check_against(&partial.join("bin/python"), host, lock).map_err(|detail| incomplete(&partial, detail))?;
    installation.finish(&partial, &folder)?;
    let interpreter =
        check_against(&folder.join("bin/python"), host, lock).map_err(|detail| incomplete(&folder, detail))?;
    on_progress(&Progress::Done { elapsed: began.elapsed() });
    Ok(interpreter)
}
