//! One installation into the cache folder: the lock that excludes others, the log, and the folder that gets its name
//! only when it is complete.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::syncfs;

use crate::base::bounded_file::{open_folder, open_own_file};
use crate::base::owned_folder;
use crate::machine::environment::EnvironmentError;
use crate::machine::environment::host::Host;
use crate::machine::environment::process::run_logged;
use crate::machine::environment::progress::{OnProgress, Progress};

/// Held by the one process that installs into a cache folder.
#[derive(Debug)]
pub(super) struct Exclusive(Flock<File>);

impl Exclusive {
    /// Waits until no other process installs into this cache folder; says so first if there is one.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub(super) fn acquire(cache: &Path, on_progress: &mut OnProgress<'_>) -> Result<Self, EnvironmentError> {
        create_folder(cache)?;
        let path = cache.join("install.lock");
        let failed = EnvironmentError::io("lock", &path);
        let file = match open_own_file(&path, File::options().create(true).truncate(false).write(true).read(true)) {
            Ok(file) => file,
            Err(error) => return Err(failed(error)),
        };
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Self(lock)),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        on_progress(&Progress::Waiting { lock: &path });
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(Self(lock)),
                Err((file, Errno::EINTR)) => file,
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
    }
}

/// An installation under way.
pub(super) struct Installation<'a> {
    pub(super) host: &'a Host,
    exclusive: Exclusive,
    log: File,
    log_path: PathBuf,
    on_progress: &'a mut OnProgress<'a>,
}

impl<'a> Installation<'a> {
    /// Begins one, with an empty log.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(super) fn begin(
        host: &'a Host,
        exclusive: Exclusive,
        log_path: PathBuf,
        on_progress: &'a mut OnProgress<'a>,
    ) -> Result<Self, EnvironmentError> {
        create_folder(log_path.parent().unwrap_or(&log_path))?;
        let mut options = File::options();
        let log = open_own_file(&log_path, options.create(true).write(true).truncate(true));
        let log = log.map_err(EnvironmentError::io("write", &log_path))?;
        Ok(Self { host, exclusive, log, log_path, on_progress })
    }

    /// Where the whole output goes.
    pub(super) fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// Tells the user.
    pub(super) fn tell(&mut self, progress: &Progress<'_>) {
        (self.on_progress)(progress);
    }

    /// Runs one command of a step.
    ///
    /// # Errors
    /// When it cannot be started or ends unsuccessfully, with its last lines.
    pub(super) fn run(&mut self, step: &str, mut command: Command) -> Result<(), EnvironmentError> {
        // The child inherits the lock, as its (empty) input: should this process be killed, nobody else begins before
        // the child has ended as well.
        let lock = self.exclusive.0.try_clone().map_err(EnvironmentError::io("share", &self.log_path))?;
        command.stdin(Stdio::from(lock));
        let on_progress = &mut *self.on_progress;
        let logged = writeln!(self.log, "== {step}")
            .and_then(|()| run_logged(command, &mut self.log, &mut |line| on_progress(&Progress::Line(line))));
        let failed = |status: String, last_lines| EnvironmentError::Install {
            step: step.into(),
            status,
            last_lines,
            log: self.log_path.clone(),
        };
        match logged {
            Ok(logged) if logged.status.success() => Ok(()),
            Ok(logged) => Err(failed(logged.status.to_string(), logged.last_lines)),
            Err(error) => Err(failed(error.to_string(), Vec::new())),
        }
    }
}

/// Makes way for an installation beside one that may stand under the name: removes what earlier ones left on the way to
/// it. Returns the folder to install into.
///
/// # Errors
/// When something there cannot be removed.
pub(super) fn fresh_partial(folder: &Path) -> Result<PathBuf, EnvironmentError> {
    let partial = beside(folder, ".partial");
    create_folder(partial.parent().unwrap_or(&partial))?;
    for left in [&partial, &beside(folder, ".old")] {
        remove_own(left).map_err(EnvironmentError::io("remove", left))?;
    }
    Ok(partial)
}

/// Gives a complete installation its name, and removes the one that had it.
///
/// # Errors
/// When it cannot be written to the disk, or cannot be renamed: the name is then still that of the old one.
pub(super) fn finish(partial: &Path, folder: &Path) -> Result<(), EnvironmentError> {
    // After a loss of power the name must not stand for files that are empty. One call, for there are thousands.
    let synced = File::open(partial).and_then(|opened| Ok(syncfs(opened)?));
    synced.map_err(EnvironmentError::io("write to the disk", partial))?;
    let old = beside(folder, ".old");
    match fs::rename(folder, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(EnvironmentError::io("rename", folder)(error));
        }
        _ => {}
    }
    if let Err(error) = fs::rename(partial, folder) {
        let _ = fs::rename(&old, folder); // there may be none; and what failed first is what there is to say
        return Err(EnvironmentError::io("rename", partial)(error));
    }
    let _ = remove_own(&old); // what cannot be removed now, the next installation tries to
    Ok(())
}

fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes an environment that was left on the way, which is this user's; there may be none.
fn remove_own(folder: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return Ok(()) };
    // The parent may be a link of the user's to another disk.
    let parent = open_folder(&parent.canonicalize()?)?;
    match owned_folder::remove(&parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn create_folder(folder: &Path) -> Result<(), EnvironmentError> {
    owned_folder::make(folder).map_err(EnvironmentError::io("create the folder", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_link_in_place_of_the_lock_or_the_log_is_refused_without_waiting() {
        let cache = tempfile::tempdir().unwrap();
        let place = |name: &str| cache.path().join(name);
        let target = place("target");
        fs::write(&target, "kept").unwrap();
        nix::unistd::mkfifo(&place("install.lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Exclusive::acquire(cache.path(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("install.lock: it is a pipe"), "{error}");
        fs::remove_file(place("install.lock")).unwrap();
        let exclusive = Exclusive::acquire(cache.path(), &mut |_| {}).unwrap();
        std::os::unix::fs::symlink(&target, place("log")).unwrap();
        let host = Host::new([]);
        assert!(Installation::begin(&host, exclusive, place("log"), &mut |_| {}).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
    }

    #[test]
    fn of_an_interrupted_installation_only_its_own_folders_are_removed_and_links_lead_nowhere() {
        let cache = tempfile::tempdir().unwrap();
        let (folder, user) = (cache.path().join("envs/cpu-1"), cache.path().join("user"));
        for path in [user.clone(), beside(&folder, ".partial/lib"), beside(&folder, ".older")] {
            owned_folder::make(&path).unwrap();
            fs::write(path.join("file"), "").unwrap();
        }
        std::os::unix::fs::symlink(&user, beside(&folder, ".partial/lib/link")).unwrap();
        std::os::unix::fs::symlink(&user, beside(&folder, ".old")).unwrap();
        let partial = fresh_partial(&folder).unwrap();
        assert!(!partial.exists() && fs::symlink_metadata(beside(&folder, ".old")).is_err());
        assert!(user.join("file").exists() && beside(&folder, ".older/file").exists());
    }
}
