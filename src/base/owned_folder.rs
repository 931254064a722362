//! Folders of this user: making them, telling whose they are, and removing what this program has left in them.
//!
//! Everything below a folder is reached through its descriptor, so that a path that somebody replaces in the meantime leads
//! nowhere else.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::base::bounded_file::open_folder;

/// Length of the random part of a temporary name, as `tempfile` makes it.
const RANDOM_LENGTH: usize = 6;

/// Makes a folder, and those above it that are missing, for this user alone (mode 0700). One that is there stays as it is.
///
/// # Errors
/// What the file system says.
pub fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a folder that belongs to this user and that nobody else may enter. A symbolic link in the last place is refused.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::PermissionDenied`] with owner and mode for any other folder.
pub fn open_private(path: &Path) -> io::Result<File> {
    let folder = open_folder(path)?;
    let status = folder.metadata()?;
    if is_own(&status) && status.mode() & 0o077 == 0 {
        return Ok(folder);
    }
    let (owner, mode) = (status.uid(), status.mode() & 0o777);
    let problem = format!("it belongs to user id {owner} with mode {mode:o}, not to this user alone (mode 700)");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Whether nobody but this user and root can change what is in a folder, by its owner and mode.
pub fn is_safe_from_others(status: &Metadata) -> bool {
    (is_own(status) || status.uid() == 0) && status.mode() & 0o022 == 0
}

/// Whether a file or folder belongs to this user.
pub fn is_own(status: &Metadata) -> bool {
    status.uid() == nix::unistd::getuid().as_raw()
}

/// Whether `name` is `prefix` and the random part of a temporary name.
pub fn is_temporary_name(name: &OsStr, prefix: &str) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(prefix));
    random
        .is_some_and(|random| random.len() == RANDOM_LENGTH && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// The path of an entry of an open folder, whatever has become of the folder's own path.
pub fn entry(folder: &File, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name)
}

/// The names in an open folder.
///
/// # Errors
/// What the file system says.
pub fn names(folder: &File) -> io::Result<Vec<OsString>> {
    fs::read_dir(entry(folder, OsStr::new("")))?.map(|entry| Ok(entry?.file_name())).collect()
}

/// What this program puts into a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A socket.
    Socket,
    /// A folder, with whatever is in it.
    Tree,
}

/// Removes the folder `name` of the open folder `parent` if it holds nothing but `known` names of the right kind; else
/// nothing is removed.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::DirectoryNotEmpty`] if there is anything else in it.
pub fn remove_known(parent: &File, name: &OsStr, known: &[(&str, Kind)]) -> io::Result<()> {
    let path = entry(parent, name);
    let folder = open_private(&path)?;
    let is_known = |found: &OsString| {
        let status = fs::symlink_metadata(entry(&folder, found));
        status.is_ok_and(|status| {
            is_own(&status) && known.iter().any(|(name, kind)| found == name && kind.is_of(&status))
        })
    };
    let found = names(&folder)?;
    if !found.iter().all(is_known) {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    found.iter().try_for_each(|name| remove(&folder, name))?;
    fs::remove_dir(path)
}

/// Removes an entry of an open folder; a folder with all that is in it. Symbolic links are removed and not followed; folders
/// of other users and other file systems are left, with an error.
///
/// # Errors
/// What the file system says; what was removed before it stays removed.
pub fn remove(parent: &File, name: &OsStr) -> io::Result<()> {
    let path = entry(parent, name);
    if !fs::symlink_metadata(&path)?.is_dir() {
        return fs::remove_file(path);
    }
    let folder = open_folder(&path)?;
    let status = folder.metadata()?;
    if !is_own(&status) || status.dev() != parent.metadata()?.dev() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    names(&folder)?.iter().try_for_each(|name| remove(&folder, name))?;
    fs::remove_dir(path)
}

impl Kind {
    fn is_of(self, status: &Metadata) -> bool {
        match self {
            Kind::File => status.is_file(),
            Kind::Socket => status.file_type().is_socket(),
            Kind::Tree => status.is_dir(),
        }
    }
}
