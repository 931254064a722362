//! The sidecar's package and the ring's library, which the binary carries and lays out in its cache folder.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::base::bounded_file::{open_folder, read_bounded};
use crate::base::owned_folder::{self, is_own, is_safe_from_others};
use crate::machine::environment::EnvironmentError;
use crate::machine::environment::lock::short_hex;

/// Relative paths and contents.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));
const RING_LIBRARY: &str = "libbench_ring.so";
/// Where Python keeps bytecode, beside the modules.
const BYTECODE: &str = "__pycache__";

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
/// and holds what this binary carries and nothing else. Anything else could be imported in place of Python's own modules.
///
/// # Errors
/// When the cache folder cannot be written, or is open to others.
pub fn lay_out(cache: &Path) -> Result<Assets, EnvironmentError> {
    let assets = locate(cache);
    let folder = &assets.package;
    // Bytecode in root's folder is root's.
    if safe_status(folder).is_some_and(|status| is_own(&status)) {
        remove_bytecode(folder).map_err(EnvironmentError::io("remove bytecode in", folder))?;
    }
    if !is_whole(folder) {
        let parent = cache.join("assets");
        owned_folder::make(&parent).map_err(EnvironmentError::io("make", &parent))?;
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

/// The status of a folder that only this user and root can change.
fn safe_status(folder: &Path) -> Option<Metadata> {
    let status = open_folder(folder).and_then(|folder| folder.metadata()).ok()?;
    is_safe_from_others(&status).then_some(status)
}

/// Whether a folder that only this user and root can change has the files of this binary, and nothing else.
fn is_whole(folder: &Path) -> bool {
    let has = |name: &str, content: &[u8]| {
        read_bounded(&folder.join(name), content.len() as u64).is_ok_and(|there| there == content)
    };
    // Bytecode that has come since it was removed is of a sidecar that another command has just started.
    let is_known = |(name, status): &(PathBuf, Metadata)| {
        let is_of_ours = match status.is_dir() {
            true => is_known_folder(name),
            false => status.is_file() && (is_bytecode(name) || FILES.iter().any(|(file, _)| Path::new(file) == name)),
        };
        is_of_ours && is_safe_from_others(status)
    };
    safe_status(folder).is_some()
        && entries(folder, Path::new("")).is_ok_and(|found| found.iter().all(is_known))
        && FILES.iter().all(|(name, content)| has(name, content))
}

/// What is in a folder, with paths relative to it, and what is in the known folders of these. Symbolic links are not followed.
fn entries(folder: &Path, below: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(below))? {
        let name = below.join(entry?.file_name());
        let status = fs::symlink_metadata(folder.join(&name))?;
        if status.is_dir() && is_known_folder(&name) {
            found.extend(entries(folder, &name)?);
        }
        found.push((name, status));
    }
    Ok(found)
}

/// Whether this program has files in a folder, or Python keeps bytecode in it.
fn is_known_folder(name: &Path) -> bool {
    let is_of_bytecode = name.ends_with(BYTECODE) && name.parent().is_none_or(|above| !above.ends_with(BYTECODE));
    is_of_bytecode || FILES.iter().any(|(file, _)| Path::new(file).starts_with(name))
}

/// Whether Python makes files of this name by itself, one for each module that it has imported.
fn is_bytecode(name: &Path) -> bool {
    name.parent().is_some_and(|parent| parent.ends_with(BYTECODE)) && name.to_string_lossy().contains(".pyc")
}

/// Removes the bytecode that Python keeps beside modules: it is run in their place, and nobody has compared it.
fn remove_bytecode(folder: &Path) -> io::Result<()> {
    for (name, status) in entries(folder, Path::new(""))? {
        if !is_bytecode(&name) || status.is_dir() {
            continue;
        }
        match fs::remove_file(folder.join(&name)) {
            // Another command was faster, or Python has given a new file its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Beside its place first, then there by one rename: another command never sees half of it. What stood there is set aside,
/// unless another command was faster; of that, files that this program has written are removed.
fn write_anew(parent: &Path, folder: &Path) -> io::Result<()> {
    let private = || fs::Permissions::from_mode(0o700);
    let fresh = tempfile::Builder::new().permissions(private()).tempdir_in(parent)?;
    for (name, content) in FILES {
        let path = fresh.path().join(name);
        owned_folder::make(path.parent().unwrap_or(parent))?;
        fs::write(path, content)?;
    }
    if is_whole(folder) {
        return Ok(()); // another command was faster
    }
    let mut replaced = None;
    if fs::symlink_metadata(folder).is_ok() {
        let aside = tempfile::Builder::new().prefix("set-aside-").permissions(private()).tempdir_in(parent)?.keep();
        fs::rename(folder, aside.join("sidecar"))?;
        replaced = Some(aside);
    }
    match fs::rename(fresh.path(), folder) {
        Err(_) if is_whole(folder) => {} // another command was faster
        renamed => renamed?,
    }
    replaced.iter().for_each(|aside| remove_own(aside));
    Ok(())
}

/// Removes from a folder that was set aside what was laid out in it, and the folder where nothing else is left.
fn remove_own(aside: &Path) {
    let laid_out = aside.join("sidecar");
    // What a link leads to is not ours.
    if owned_folder::open_private(&laid_out).is_err() {
        return;
    }
    for (name, _) in FILES {
        let _ = fs::remove_file(laid_out.join(name));
    }
    let folders: BTreeSet<&Path> = FILES.iter().filter_map(|(name, _)| Path::new(name).parent()).collect();
    for folder in folders.into_iter().rev() {
        let _ = fs::remove_dir(laid_out.join(folder).join(BYTECODE));
        let _ = fs::remove_dir(laid_out.join(folder));
    }
    let _ = fs::remove_dir(aside);
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

    #[test]
    fn what_was_not_laid_out_is_set_aside_with_what_is_in_it() {
        let cache = tempfile::tempdir().unwrap();
        let folder = lay_out(cache.path()).unwrap().package;
        let aside = || -> Vec<PathBuf> {
            let all = fs::read_dir(cache.path().join("assets")).unwrap().map(|entry| entry.unwrap().path());
            all.filter(|path| *path != folder).collect()
        };
        for (name, keep) in [("json.py", 1), ("bench_sidecar/select.so", 2), ("pkg/__init__.py", 3)] {
            owned_folder::make(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), name).unwrap();
            lay_out(cache.path()).unwrap();
            assert!(is_whole(&folder) && !folder.join(name).exists(), "{name}");
            assert_eq!(aside().len(), keep);
        }
        let kept = aside().into_iter().map(|path| path.join("sidecar/json.py")).find(|path| path.exists());
        assert_eq!(fs::read_to_string(kept.unwrap()).unwrap(), "json.py");
        // A link that leads to the same content today may lead elsewhere tomorrow.
        let (driver, copy) = (folder.join("bench_sidecar/driver.py"), cache.path().join("copy.py"));
        fs::rename(&driver, &copy).unwrap();
        std::os::unix::fs::symlink(&copy, &driver).unwrap();
        lay_out(cache.path()).unwrap();
        assert!(fs::symlink_metadata(&driver).unwrap().is_file() && copy.exists());
    }

    #[test]
    fn bytecode_that_nobody_has_compared_is_removed_and_the_sidecar_stays() {
        let cache = tempfile::tempdir().unwrap();
        let folder = lay_out(cache.path()).unwrap().package;
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&folder).unwrap());
        let before = inode();
        let planted = ["__pycache__/json.cpython-311.pyc", "bench_sidecar/__pycache__/door.cpython-312.pyc"];
        for name in planted {
            owned_folder::make(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), "evil").unwrap();
        }
        lay_out(cache.path()).unwrap();
        assert!(planted.iter().all(|name| !folder.join(name).exists()));
        assert_eq!(inode(), before);
    }

    #[test]
    fn folder_that_others_may_read_is_used_and_one_that_they_may_write_is_not() {
        let cache = tempfile::tempdir().unwrap();
        let folder = lay_out(cache.path()).unwrap().package;
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&folder).unwrap());
        let set_mode =
            |name: &str, mode| fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        // As root lays it out for everybody.
        let before = inode();
        for (name, mode) in [("", 0o755), ("bench_sidecar", 0o755), ("bench_sidecar/driver.py", 0o644)] {
            set_mode(name, mode);
            lay_out(cache.path()).unwrap();
            assert_eq!(inode(), before, "{name:?} with mode {mode:o}");
        }
        for (name, mode) in [("", 0o775), ("bench_sidecar", 0o777), ("bench_sidecar/driver.py", 0o666)] {
            let before = inode();
            set_mode(name, mode);
            lay_out(cache.path()).unwrap();
            assert_ne!(inode(), before, "{name:?} with mode {mode:o}");
        }
    }

    #[test]
    fn folder_that_another_command_has_just_laid_out_is_not_replaced() {
        let cache = tempfile::tempdir().unwrap();
        let folder = lay_out(cache.path()).unwrap().package;
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&folder).unwrap());
        let before = inode();
        write_anew(&cache.path().join("assets"), &folder).unwrap();
        assert_eq!(inode(), before);
        assert_eq!(fs::read_dir(cache.path().join("assets")).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_folder_of_another_user_or_a_link_in_its_place_is_not_used() {
        let cache = tempfile::tempdir().unwrap();
        let folder = lay_out(cache.path()).unwrap().package;
        let elsewhere = cache.path().join("elsewhere");
        fs::rename(&folder, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &folder).unwrap();
        lay_out(cache.path()).unwrap();
        assert!(is_whole(&folder) && elsewhere.join("libbench_ring.so").exists(), "the link's target is as it was");
        if nix::unistd::getuid().is_root() {
            std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
            assert!(!is_whole(&folder));
            lay_out(cache.path()).unwrap();
            assert!(is_whole(&folder));
        }
    }
}
