//! The sidecar's package and the ring's library, which the binary carries and lays out in its cache folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::environment::EnvironmentError;
use crate::environment::lock::short_hex;

/// Relative paths and contents.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));
const RING_LIBRARY: &str = "libbench_ring.so";

/// Where the sidecar's files stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assets {
    /// Folder to put on PYTHONPATH; it holds the package `bench_sidecar`.
    pub package: PathBuf,
    /// The ring's shared library.
    pub ring_library: PathBuf,
}

/// Where the files of this binary are laid out below `cache`; they need not be there.
pub fn locate(cache: &Path) -> Assets {
    let package = cache.join("assets").join(format!("{}-{}", env!("CARGO_PKG_VERSION"), content_id()));
    Assets { ring_library: package.join(RING_LIBRARY), package }
}

/// Lays the sidecar out below `cache`, in a folder named after this version and the files' content, unless it is there
/// and every file is what this binary carries.
///
/// # Errors
/// When the cache folder cannot be written.
pub fn lay_out(cache: &Path) -> Result<Assets, EnvironmentError> {
    let assets = locate(cache);
    let folder = &assets.package;
    if !is_whole(folder) {
        let parent = cache.join("assets");
        fs::create_dir_all(&parent).map_err(EnvironmentError::io("make", &parent))?;
        write_anew(&parent, folder).map_err(EnvironmentError::io("write the sidecar to", folder))?;
    }
    Ok(assets)
}

fn content_id() -> String {
    let mut hash = Sha256::new();
    for (name, content) in FILES {
        hash.update(name);
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    short_hex(&hash.finalize())
}

fn is_whole(folder: &Path) -> bool {
    FILES.iter().all(|(name, content)| fs::read(folder.join(name)).is_ok_and(|there| there == *content))
}

/// Beside its place first, then there by one rename: another command never sees half of it.
fn write_anew(parent: &Path, folder: &Path) -> io::Result<()> {
    let fresh = tempfile::tempdir_in(parent)?;
    for (name, content) in FILES {
        let path = fresh.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(parent))?;
        fs::write(path, content)?;
    }
    if folder.exists() {
        let damaged = tempfile::tempdir_in(parent)?;
        fs::rename(folder, damaged.path().join("damaged"))?;
    }
    match fs::rename(fresh.path(), folder) {
        Err(_) if is_whole(folder) => Ok(()), // another command was faster
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tampered_with_is_written_anew() {
        let cache = tempfile::tempdir().unwrap();
        let assets = lay_out(cache.path()).unwrap();
        let driver = assets.package.join("bench_sidecar/driver.py");
        let whole = fs::read(&driver).unwrap();
        assert!(assets.ring_library.is_file());
        fs::write(&driver, "raise SystemExit").unwrap();
        fs::remove_file(&assets.ring_library).unwrap();
        assert_eq!(lay_out(cache.path()).unwrap(), assets);
        assert_eq!(fs::read(&driver).unwrap(), whole);
        assert!(assets.ring_library.is_file());
        assert_eq!(fs::read_dir(cache.path().join("assets")).unwrap().count(), 1, "nothing is left beside it");
    }
}
