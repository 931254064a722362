//! Reads a configuration file without trusting it: bounded in size, regular, UTF-8.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::amount::{Bounds, place_after};
use super::error::ConfigError;
use crate::plan::Location;

/// The text of the file at `path`.
///
/// # Errors
/// It cannot be opened or read, is not a regular file, is larger than its bound, or is not text in UTF-8.
pub(super) fn read(path: &Path, bounds: &Bounds) -> Result<String, ConfigError> {
    let whole_file = || Location { file: Some(path.to_path_buf()), line: 0, column: 0 };
    let refuse = |message: String| ConfigError::single(whole_file(), message);
    let cannot_read = |error: std::io::Error| refuse(format!("cannot read the configuration file: {error}"));

    // O_NONBLOCK: opening a FIFO that nobody writes to would otherwise wait for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(cannot_read)?;
    if !file.metadata().map_err(cannot_read)?.is_file() {
        return Err(refuse("it has to be a regular file; this is a folder, a pipe or a device".into()));
    }
    let mut bytes = Vec::new();
    file.take(bounds.file_bytes + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if bytes.len() as u64 > bounds.file_bytes {
        return Err(refuse(format!("the file is larger than {} bytes, the most that is read", bounds.file_bytes)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let location = location_after(path, &String::from_utf8_lossy(valid));
        ConfigError::single(location, "not UTF-8 text from here on; save the file as UTF-8")
    })?;
    if let Some(index) = text.find('\0') {
        let location = location_after(path, &text[..index]);
        return Err(ConfigError::single(location, "a NUL character; a configuration has to be plain text"));
    }
    Ok(text)
}

/// The place right behind `before`, the begin of the file at `path`.
fn location_after(path: &Path, before: &str) -> Location {
    let place = place_after(before);
    Location { file: Some(path.to_path_buf()), line: place.line, column: place.column }
}
