//! One installation under way: its log, its lock files, its unfinished folders.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::environment::host::Host;
use crate::environment::managed::OnProgress;
use crate::environment::process::run_logged;
use crate::environment::progress::Progress;
use crate::environment::{EnvironmentError, Lock};

/// Tells what happens, and keeps the whole output of every step in a log.
pub(super) struct Installation<'a, 'p> {
    pub(super) host: &'a Host,
    on_progress: &'a mut OnProgress<'p>,
    log: File,
    log_path: PathBuf,
}

impl<'a, 'p> Installation<'a, 'p> {
    /// Opens the log, which begins anew with each installation.
    pub(super) fn open(
        host: &'a Host,
        log_path: &Path,
        on_progress: &'a mut OnProgress<'p>,
    ) -> Result<Self, EnvironmentError> {
        make_parent(log_path)?;
        let log = File::create(log_path).map_err(EnvironmentError::io("write", log_path))?;
        Ok(Installation { host, on_progress, log, log_path: log_path.to_owned() })
    }

    /// Waits until no other process makes `folder`, and keeps them from it until the guard is dropped.
    pub(super) fn exclude_others(&mut self, folder: &Path) -> Result<Flock<File>, EnvironmentError> {
        let path = beside(folder, "lock");
        make_parent(&path)?;
        let open = || File::create(&path).map_err(EnvironmentError::io("write", &path));
        match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
            Ok(guard) => return Ok(guard),
            Err((_, Errno::EWOULDBLOCK)) => (self.on_progress)(&Progress::Waiting { lock: &path }),
            Err((_, errno)) => return Err(EnvironmentError::io("lock", &path)(errno.into())),
        }
        Flock::lock(open()?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| EnvironmentError::io("lock", &path)(errno.into()))
    }

    /// An empty place for `folder` to come into being; what an interrupted installation left there is removed.
    pub(super) fn fresh_partial(&mut self, folder: &Path) -> Result<PathBuf, EnvironmentError> {
        let partial = beside(folder, "partial");
        make_parent(&partial)?;
        match fs::remove_dir_all(&partial) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                Err(EnvironmentError::io("remove", &partial)(err))
            }
            _ => Ok(partial),
        }
    }

    /// Says what is about to be installed.
    pub(super) fn announce(&mut self, lock: &Lock, folder: &Path) {
        (self.on_progress)(&Progress::Plan {
            name: &lock.name,
            packages: lock.packages(),
            download_bytes: lock.download_bytes,
            disk_bytes: lock.disk_bytes,
            folder,
            log: &self.log_path,
        });
    }

    /// Runs one step to its end; an error shows the last lines of its output.
    pub(super) fn run(&mut self, step: &str, command: Command) -> Result<(), EnvironmentError> {
        (self.on_progress)(&Progress::Step(step));
        let on_progress = &mut self.on_progress;
        let logged = run_logged(command, &mut self.log, &mut |line| on_progress(&Progress::Line(line)))
            .map_err(EnvironmentError::io("run a step of the installation, with its output in", &self.log_path))?;
        if logged.status.success() {
            return Ok(());
        }
        Err(EnvironmentError::Install {
            step: step.to_owned(),
            status: logged.status.to_string(),
            last_lines: logged.last_lines,
            log: self.log_path.clone(),
        })
    }

    /// Gives a finished folder its name. What stands there already was found unusable, and goes.
    pub(super) fn finish(&mut self, partial: &Path, folder: &Path) -> Result<(), EnvironmentError> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(EnvironmentError::io("remove", folder))?;
        }
        fs::rename(partial, folder).map_err(EnvironmentError::io("rename", partial))
    }
}

/// `folder.ending`, also where the folder's name has a dot in it.
fn beside(folder: &Path, ending: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

fn make_parent(path: &Path) -> Result<(), EnvironmentError> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(EnvironmentError::io("make", parent)),
        None => Ok(()),
    }
}
