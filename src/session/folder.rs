//! The folder of a sidecar's socket: for this user alone, and gone with the last process that needs it.
//!
//! Whoever needs it holds a lock on it: the harness, and by inheritance the sidecar and its engines. Killed together they
//! cannot remove it; the next command finds it without a lock, and does.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::SessionError;

const PREFIX: &str = "bench-";

/// A folder of its own, removed when this is dropped.
#[derive(Debug)]
pub(super) struct PrivateFolder {
    folder: tempfile::TempDir,
    lock: File,
}

impl PrivateFolder {
    /// A new one, under `$XDG_RUNTIME_DIR` or where temporary files go.
    pub(super) fn make() -> Result<PrivateFolder, SessionError> {
        let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let base = base.unwrap_or_else(std::env::temp_dir);
        remove_abandoned(&base);
        let failed = |source| SessionError::io(format!("cannot make a folder in {}", base.display()))(source);
        let permissions = fs::Permissions::from_mode(0o700);
        let folder =
            tempfile::Builder::new().prefix(PREFIX).permissions(permissions).tempdir_in(&base).map_err(failed)?;
        let lock = File::open(folder.path()).map_err(failed)?;
        lock.lock_shared().map_err(failed)?;
        Ok(PrivateFolder { folder, lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The lock, for a process that is started while this lives.
    pub(super) fn inheritable_lock(&self) -> Result<OwnedFd, SessionError> {
        let failed = |errno: nix::Error| SessionError::io("passing on a lock")(errno.into());
        nix::unistd::dup(&self.lock).map_err(failed)
    }
}

/// Removes the folders of processes that were killed together. One that cannot be is left: it is in nobody's way.
fn remove_abandoned(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let Some(folder) = is_ours.then(|| File::open(entry.path()).ok()).flatten() else { continue };
        // The mode tells it from what somebody else has called so.
        let is_private = folder.metadata().is_ok_and(|it| it.is_dir() && it.permissions().mode() & 0o777 == 0o700);
        if is_private && is_old(&folder) && folder.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether its maker has had the time to lock it.
fn is_old(folder: &File) -> bool {
    let age = folder.metadata().and_then(|it| it.modified()).map(|made| made.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age.as_secs() >= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_locked_or_not_ours_is_left_and_what_is_abandoned_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("control"), "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
            File::open(&path).unwrap().set_modified(long_ago).unwrap();
            path
        };
        let [held, abandoned, public] =
            [("bench-1", 0o700), ("bench-2", 0o700), ("bench-3", 0o755)].map(|(n, m)| make(n, m));
        let other = make("other", 0o700);
        let lock = File::open(&held).unwrap();
        lock.lock_shared().unwrap();
        remove_abandoned(base.path());
        assert!(held.exists() && public.exists() && other.exists() && !abandoned.exists());
        drop(lock);
        remove_abandoned(base.path());
        assert!(!held.exists());
    }
}
