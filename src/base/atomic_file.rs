//! Replaces a file in one step: a reader sees the old content or the new one, never a torn file.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::base::owned_folder::{is_own, is_temporary_name};

/// What a file survives once it has been replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of this process, however sudden. For files that can be rebuilt.
    Process,
    /// A loss of power as well: content and name are synced. For raw records.
    PowerLoss,
}

/// How the names of temporary files begin.
const TEMPORARY: &str = ".writing-";

/// Writes `path` through a temporary file in the same folder, which must exist, and gives what `write` does.
///
/// # Errors
/// Whatever `write` or the file system gives; `path` is then as it was, and the temporary file is gone.
pub fn replace<T, E: From<io::Error>>(
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<T, E>,
) -> Result<T, E> {
    let folder = folder_of(path);
    // Results are for others to read too: the user's umask decides, not the private mode of temporary files.
    let temporary =
        tempfile::Builder::new().prefix(TEMPORARY).permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    let mut writer = BufWriter::with_capacity(1 << 18, temporary.as_file());
    let written = write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    if durability == Durability::PowerLoss {
        temporary.as_file().sync_all()?;
    }
    temporary.persist(path).map_err(|failed| failed.error)?;
    if durability == Durability::PowerLoss {
        File::open(folder)?.sync_all()?;
    }
    Ok(written)
}

/// Makes a folder and those that it lies in. The name of each survives a loss of power: a file that was synced in a folder
/// whose name was not may be lost with it.
///
/// # Errors
/// What the file system gives.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder_of(folder);
    make_folder(parent)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !folder.is_dir() {
                return Err(nix::errno::Errno::ENOTDIR.into());
            }
        }
        made => made?,
    }
    File::open(parent)?.sync_all()
}

/// The folder that a path lies in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes what a process that was killed while it replaced a file has left in `folder`: regular files of this user with a
/// temporary name. Anything else with such a name is left.
///
/// # Errors
/// What the file system gives.
pub fn clear_leftovers(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !is_temporary_name(&entry.file_name(), TEMPORARY) {
            continue;
        }
        let status = entry.metadata()?; // of a link itself
        if status.is_file() && is_own(&status) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, Durability::PowerLoss, |out| out.write_all(b"old")).unwrap();
        let failed = replace(&path, Durability::Process, |out| {
            out.write_all(b"new")?;
            Err::<(), _>(io::Error::other("no room"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no room");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
    #[test]
    fn only_own_files_with_a_temporary_name_are_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [".writing-aB3dE6", ".writing-notes.md", ".writing-", "writing-aB3dE6"] {
            std::fs::write(path(name), "").unwrap();
        }
        std::fs::create_dir(path(".writing-folder")).unwrap();
        std::os::unix::fs::symlink(path("writing-aB3dE6"), path(".writing-linked")).unwrap();
        nix::unistd::mkfifo(&path(".writing-aPipe1"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let before = std::fs::read_dir(folder.path()).unwrap().count();
        clear_leftovers(folder.path()).unwrap();
        assert!(!path(".writing-aB3dE6").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before - 1);
    }
}
