//! Opening files that somebody else can make: never waits for a pipe, never reads without a limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// Opens a regular file for reading. Symbolic links are followed.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::InvalidInput`] for a folder, pipe, socket or device, which is opened
/// without waiting and not read.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_checked(path, OpenOptions::new().read(true), OFlag::empty())
}

/// Opens a file of this program's own, such as a lock or a log, as `options` say. A symbolic link is refused.
///
/// # Errors
/// As of [`open_regular`].
pub fn open_own_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open_checked(path, options, OFlag::O_NOFOLLOW)
}

fn open_checked(path: &Path, options: &mut OpenOptions, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = options.custom_flags(flags.bits()).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = match kind {
        kind if kind.is_dir() => "folder",
        kind if kind.is_fifo() => "pipe",
        kind if kind.is_char_device() || kind.is_block_device() => "device",
        _ => "special file",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is a {what}, not a regular file")))
}

/// Opens a folder, to lock it or to open files in it. A symbolic link in the last place of `path` is refused.
///
/// # Errors
/// What the file system says, at once: `ENOTDIR` for anything that is no folder.
pub fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// Reads a regular file of at most `limit_bytes`.
///
/// # Errors
/// As of [`open_regular`]; [`io::ErrorKind::FileTooLarge`] for a longer file. At most `limit_bytes` + 1 bytes are read.
pub fn read_bounded(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let length = file.metadata()?.len();
    let too_large = |length: u64| {
        let problem = format!("its {length} bytes are more than the {limit_bytes} that are read");
        io::Error::new(io::ErrorKind::FileTooLarge, problem)
    };
    if length > limit_bytes {
        return Err(too_large(length));
    }
    let mut content = Vec::new();
    content.try_reserve_exact(length as usize).map_err(|_| io::ErrorKind::OutOfMemory)?;
    file.take(limit_bytes + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit_bytes {
        return Err(too_large(content.len() as u64));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_devices_and_folders_are_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
            let error = open_regular(path).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
            assert!(read_bounded(path, 10).is_err());
        }
        assert!(open_folder(&pipe).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(open_folder(&link).is_err());
        assert!(open_folder(folder.path()).is_ok());
    }

    #[test]
    fn a_file_of_ones_own_is_neither_a_link_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, link, log] = ["pipe", "link", "log"].map(|name| folder.path().join(name));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&log, &link).unwrap();
        for path in [&pipe, &link] {
            assert!(open_own_file(path, OpenOptions::new().create(true).append(true)).is_err());
            assert!(open_own_file(path, OpenOptions::new().create(true).read(true).write(true)).is_err());
        }
        assert!(!log.exists());
        assert!(open_own_file(&log, OpenOptions::new().create(true).append(true)).is_ok());
    }

    #[test]
    fn a_file_above_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, [7; 11]).unwrap();
        assert_eq!(read_bounded(&path, 11).unwrap(), [7; 11]);
        let error = read_bounded(&path, 10).unwrap_err();
        assert!(error.to_string().contains("11 bytes"), "{error}");
    }
}
