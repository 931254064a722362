//! The Python environment that `bench` makes and keeps for a device class.
//!
//! It comes into being as `NAME.partial` and gets its name by one rename, once it is complete and checked. A partial
//! one is never continued: a file that was half linked when its writer died could not be told from a whole one. The
//! long part, the download, is kept by the installer file by file, and making it anew from there takes seconds.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::environment::base::BasePython;
use crate::environment::host::{Host, free_bytes, used_bytes};
use crate::environment::installation::Installation;
use crate::environment::interpreter::{Interpreter, check_against};
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
    let _guard = installation.exclude_others(&folder)?;
    // Whoever was waited for has perhaps made it.
    if let Ok(interpreter) = check_against(&folder.join("bin/python"), host, lock) {
        return Ok(interpreter);
    }
    let partial = installation.fresh_partial(&folder)?;
    check_space(&cache, free_bytes(&cache)?, lock.disk_bytes, || used_bytes(&Uv::downloads(&cache)))?;
    installation.announce(lock, &folder);
    let uv = Uv::ensure(&cache, &base, &mut installation)?;
    install(&uv, &cache, &base, lock, &partial, &mut installation)?;
    let incomplete =
        |folder: &Path, detail| EnvironmentError::Incomplete { folder: folder.into(), detail, cache: cache.clone() };
    check_against(&partial.join("bin/python"), host, lock).map_err(|detail| incomplete(&partial, detail))?;
    installation.finish(&partial, &folder)?;
    let interpreter =
        check_against(&folder.join("bin/python"), host, lock).map_err(|detail| incomplete(&folder, detail))?;
    on_progress(&Progress::Done { elapsed: began.elapsed() });
    Ok(interpreter)
}

fn install(
    uv: &Uv,
    cache: &Path,
    base: &BasePython,
    lock: &Lock,
    partial: &Path,
    installation: &mut Installation<'_, '_>,
) -> Result<(), EnvironmentError> {
    let host = installation.host;
    let mut venv = uv.command(cache, host);
    venv.args(["venv", "--relocatable", "--python"]).arg(&base.path).arg(partial);
    installation.run("making an empty environment", venv)?;
    let requirements = partial.join("requirements.txt");
    fs::write(&requirements, &lock.text).map_err(EnvironmentError::io("write", &requirements))?;
    let mut packages = uv.command(cache, host);
    packages.args(["pip", "install", "--no-deps", "--require-hashes", "--python"]).arg(partial.join("bin/python"));
    packages.arg("-r").arg(&requirements);
    installation.run("downloading and installing the packages", packages)
}

/// What is downloaded already needs no room a second time: the installer links it into the environment.
fn check_space(
    folder: &Path,
    free_bytes: u64,
    disk_bytes: u64,
    downloaded_bytes: impl FnOnce() -> u64,
) -> Result<(), EnvironmentError> {
    if free_bytes >= disk_bytes {
        return Ok(()); // without adding up the cache, which takes a while
    }
    let needed_bytes = disk_bytes.saturating_sub(downloaded_bytes());
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(EnvironmentError::DiskSpace { folder: folder.to_owned(), needed_bytes, free_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_asked_for_what_is_not_downloaded_yet() {
        let cache = Path::new("/cache");
        assert!(check_space(cache, 60, 60, || panic!("not needed")).is_ok());
        assert!(check_space(cache, 20, 60, || 40).is_ok());
        let error = check_space(cache, 2 << 30, 6 << 30, || 1 << 30).unwrap_err().to_string();
        assert!(error.contains("/cache has 2.0 GiB free, and the environment needs 5.0 GiB"), "{error}");
    }
}
