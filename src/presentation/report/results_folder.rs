//! A results folder that one command alone writes into.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ReportError;
use super::results::SUMMARY_FILE;
use crate::base::atomic_file;
use crate::base::bounded_file::open_folder;
use crate::measurement::timeline::store;

/// Most names that are tried for one folder.
const MAX_NAMES: u32 = 10_000;

/// A results folder, locked until the last copy of this is gone.
#[derive(Clone, Debug)]
pub struct ResultsFolder {
    path: PathBuf,
    _lock: Arc<File>,
}

impl ResultsFolder {
    /// Opens the folder of a sweep that begins, which is made if it is missing.
    ///
    /// # Errors
    /// [`ReportError::InUse`] where another command writes into it, [`ReportError::HoldsResults`] where runs are stored in it;
    /// nothing in it has been changed.
    pub fn begin(path: &Path) -> Result<ResultsFolder, ReportError> {
        atomic_file::make_folder(path).map_err(|source| ReportError::Write { path: path.to_owned(), source })?;
        let folder = ResultsFolder::open(path)?;
        if folder.holds_results() { Err(ReportError::HoldsResults { path: path.to_owned() }) } else { Ok(folder) }
    }

    /// Makes a folder of this name, or of the name with `-2`, `-3` and so on behind it: the first that nobody has.
    ///
    /// # Errors
    /// [`ReportError::Write`].
    pub fn begin_new(name: &Path) -> Result<ResultsFolder, ReportError> {
        let io = |source| ReportError::Write { path: name.to_owned(), source };
        atomic_file::make_folder(name.parent().unwrap_or(Path::new("."))).map_err(io)?;
        let numbered = |nth| match nth {
            1 => name.to_owned(),
            nth => PathBuf::from(format!("{}-{nth}", name.display())),
        };
        for path in (1..MAX_NAMES).map(numbered) {
            match fs::create_dir(&path) {
                Ok(()) => return ResultsFolder::open(&path),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io(error)),
            }
        }
        Err(io(std::io::ErrorKind::AlreadyExists.into()))
    }

    /// Opens a folder that is there, whatever it holds.
    ///
    /// # Errors
    /// [`ReportError::InUse`]; [`ReportError::Write`] for anything that is no folder.
    pub fn open(path: &Path) -> Result<ResultsFolder, ReportError> {
        let io = |source| ReportError::Write { path: path.to_owned(), source };
        // The user's own path may lead over a symbolic link.
        let lock = path.canonicalize().and_then(|path| open_folder(&path)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(ResultsFolder { path: path.to_owned(), _lock: Arc::new(lock) }),
            Err(TryLockError::WouldBlock) => Err(ReportError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a run was stored here. A command that was refused before its first run leaves its folder to the next.
    fn holds_results(&self) -> bool {
        match store::run_folders(&self.path) {
            Ok(runs) => !runs.is_empty(),
            Err(_) => self.path.join(SUMMARY_FILE).exists(),
        }
    }
}
