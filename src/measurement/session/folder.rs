//! The folder of a sidecar: for its socket and its temporary files, for this user alone, and gone with the last process that
//! needs it.
//!
//! Whoever needs it holds a lock on it: the harness one of its own, the sidecar another that its engines inherit. Killed
//! together they cannot remove it; the next command finds it without a lock, and does. It is in a folder of this program's own,
//! `bench-UID` where temporary files go, and nothing outside that is looked at.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{SessionError, warm};
use crate::base::bounded_file::open_folder;
use crate::base::owned_folder::{self, Kind, is_temporary_name};
use crate::machine::environment::Host;

/// Names of folders that are held, and of those that are being made: a folder gets the first when its maker has locked it.
const HELD: &str = "run-";
const NEW: &str = "new-";
const TEMPORARY: &str = "tmp";
/// Everything that this program puts into such a folder.
const KNOWN: [(&str, Kind); 3] = [(warm::SOCKET, Kind::Socket), (warm::LOCK, Kind::File), (TEMPORARY, Kind::Tree)];
/// A folder that is still being made after this was left by a command that was killed.
const MAKING_LIMIT: Duration = Duration::from_secs(60);
/// How long the last processes that hold a folder, which are being killed, are waited for. After that the next command
/// removes it.
const END_LIMIT: Duration = Duration::from_secs(1);
/// The longest path of a folder in which engines can make sockets: a socket's address has 108 bytes, and ZeroMQ's names in
/// vLLM have 36.
const LONGEST_PATH: usize = 70;

/// A folder of its own, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct PrivateFolder {
    parent: File,
    name: OsString,
    path: PathBuf,
    lock: File,
    /// Whether the processes that have inherited the lock see to its end.
    is_left: bool,
    remark: Option<String>,
}

impl PrivateFolder {
    /// A new one, where temporary files go. What killed commands have left beside it is removed.
    pub(crate) fn make() -> Result<PrivateFolder, SessionError> {
        let wanted = Host::of_process().temporary_dir();
        PrivateFolder::make_in(&wanted)
            .map_err(SessionError::io(format!("cannot make a folder in {}", wanted.display())))
    }

    fn make_in(wanted: &Path) -> io::Result<PrivateFolder> {
        let uid = nix::unistd::getuid();
        let own = OsString::from(format!("bench-{uid}"));
        let length = |base: &Path| base.join(&own).join("run-XXXXXX").join(TEMPORARY).as_os_str().as_bytes().len();
        let is_too_long = length(wanted) > LONGEST_PATH;
        let base = if is_too_long { Path::new("/tmp") } else { wanted };
        let mut remark = is_too_long.then(|| {
            format!("temporary files of the engine go to /tmp: {} is too long for sockets in it", wanted.display())
        });
        let path = base.join(&own);
        match own_folder(&path) {
            Ok(folder) => {
                remove_abandoned(&folder);
                let (name, lock) = new_folder(&folder, &path)?;
                Ok(PrivateFolder { path: path.join(&name), parent: folder, name, lock, is_left: false, remark })
            }
            Err(problem) if is_taken(&path) => {
                remark = Some(format!(
                    "{} is not used for temporary files ({problem}): a folder with a random name is, and stays if this \
                     command is killed",
                    path.display()
                ));
                let prefix = format!("bench-{uid}-");
                let new = builder(&prefix).tempdir_in(base)?;
                let lock = fill(new.path())?;
                let parent = open_folder(&fs::canonicalize(base)?)?;
                let path = new.keep();
                let name = path.file_name().unwrap_or_default().to_owned();
                Ok(PrivateFolder { parent, name, path, lock, is_left: false, remark })
            }
            Err(problem) => Err(problem),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder for temporary files in it.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.path.join(TEMPORARY)
    }

    /// What the user should know of where it is.
    pub(super) fn remark(&self) -> Option<String> {
        self.remark.clone()
    }

    /// A lock for a process that is started while this lives. It is not this command's: whoever has inherited it holds it
    /// until the last of them ends.
    pub(super) fn inheritable_lock(&self) -> Result<OwnedFd, SessionError> {
        let lock = || {
            let folder = owned_folder::open_private(&owned_folder::entry(&self.parent, &self.name))?;
            folder.lock_shared()?;
            Ok(nix::unistd::dup(&folder)?) // unlike the first, it stays open in a program that is started
        };
        lock().map_err(SessionError::io("passing on a lock"))
    }

    /// Leaves the folder to the processes that have inherited its lock.
    pub(super) fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let deadline = Instant::now() + END_LIMIT;
        while self.lock.try_lock().is_err() {
            if Instant::now() > deadline {
                return; // they may still write into it
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // A sidecar that ends in order has taken it away. What cannot be removed now, the next command tries to.
        let _ = owned_folder::remove_known(&self.parent, &self.name, &KNOWN);
    }
}

/// Removes what killed processes have left, where there is anything. For commands that make no folder themselves.
pub(super) fn clear_abandoned() {
    let own = Host::of_process().temporary_dir().join(format!("bench-{}", nix::unistd::getuid()));
    // One that cannot be opened is not there, or is not ours.
    if let Ok(own) = owned_folder::open_private(&own) {
        remove_abandoned(&own);
    }
}

/// The folder of this program's own, made if it is missing.
fn own_folder(path: &Path) -> io::Result<File> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => owned_folder::open_private(path),
    }
}

/// Whether something stands under a name: of another user, open to others, or no folder.
fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn builder(prefix: &str) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(Permissions::from_mode(0o700));
    builder
}

/// A new folder in `parent`, which is at `path`: its name and its lock. It has its name only when it is locked, so that
/// nobody takes it for a dead one's.
fn new_folder(parent: &File, path: &Path) -> io::Result<(OsString, File)> {
    let new = builder(NEW).tempdir_in(path)?;
    let lock = fill(new.path())?;
    let name = new.path().file_name().unwrap_or_default().to_string_lossy().replacen(NEW, HELD, 1);
    let name = OsString::from(name);
    fs::rename(new.path(), owned_folder::entry(parent, &name))?;
    let _ = new.keep(); // it has another name now
    Ok((name, lock))
}

/// Locks a folder and puts the one for temporary files into it.
fn fill(folder: &Path) -> io::Result<File> {
    let lock = owned_folder::open_private(folder)?;
    lock.lock_shared()?;
    owned_folder::make(&folder.join(TEMPORARY))?;
    Ok(lock)
}

/// Removes the folders of processes that were killed together. One that cannot be is left: it is in nobody's way.
fn remove_abandoned(own: &File) {
    for name in owned_folder::names(own).unwrap_or_default() {
        if is_abandoned(own, &name) {
            let _ = owned_folder::remove_known(own, &name, &KNOWN);
        }
    }
}

fn is_abandoned(own: &File, name: &OsStr) -> bool {
    let is_new = is_temporary_name(name, NEW);
    if !is_new && !is_temporary_name(name, HELD) {
        return false;
    }
    let Ok(folder) = owned_folder::open_private(&owned_folder::entry(own, name)) else { return false };
    let made = folder.metadata().and_then(|status| status.modified());
    let is_old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > MAKING_LIMIT));
    (is_old || !is_new) && folder.try_lock().is_ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// A process that holds the folder, and after 200 ms still writes into it.
    fn holder(folder: &PrivateFolder, then: &str) -> std::process::Child {
        let lock = folder.inheritable_lock().unwrap();
        let script = format!("sleep 0.2; echo > \"$0\" || exit 1; {then}");
        let file = folder.temporary().join("late");
        let mut command = Command::new("sh");
        let child = command.args(["-c", &script]).arg(file).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        drop(lock);
        child
    }

    #[test]
    fn folder_is_removed_when_the_last_process_that_holds_it_has_ended() {
        let place = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::make_in(place.path()).unwrap();
        let (path, mut child) = (folder.path().to_owned(), holder(&folder, "exit 3"));
        drop(folder);
        assert!(!path.exists());
        assert_eq!(child.wait().unwrap().code(), Some(3), "the folder was there when it wrote");
    }

    #[test]
    fn folder_whose_holder_does_not_end_stays_and_the_next_command_removes_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::make_in(place.path()).unwrap();
        let (path, mut child) = (folder.path().to_owned(), holder(&folder, "exec sleep 60"));
        drop(folder);
        assert!(path.join(TEMPORARY).join("late").exists());
        drop(PrivateFolder::make_in(place.path()).unwrap());
        assert!(path.exists(), "it is held");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(PrivateFolder::make_in(place.path()).unwrap());
        assert!(!path.exists());
    }
}
