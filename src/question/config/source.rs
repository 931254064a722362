//! Reads a configuration file without trusting it: bounded in size, regular, UTF-8, without control characters.

use std::io::ErrorKind;
use std::path::Path;

use super::amount::{Bounds, place_after};
use super::error::ConfigError;
use crate::base::bounded_file::read_bounded;
use crate::question::plan::Location;

/// The mark that some editors put at the begin of a text, to say that it is UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of the file at `path`, without its byte order mark.
///
/// # Errors
/// It cannot be opened or read, is not a regular file, is larger than its bound, or is not text in UTF-8.
pub(super) fn read(path: &Path, bounds: &Bounds) -> Result<String, ConfigError> {
    let whole_file = || Location { file: Some(path.to_path_buf()), line: 0, column: 0 };
    let bytes = read_bounded(path, bounds.file_bytes).map_err(|error| {
        let message = match error.kind() {
            ErrorKind::InvalidInput => format!("it has to be a regular file: {error}"),
            ErrorKind::FileTooLarge => {
                format!("the file is larger than {} bytes, the most that is read", bounds.file_bytes)
            }
            _ => format!("cannot read the file: {error}"),
        };
        ConfigError::single(whole_file(), message)
    })?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let location = location_after(path, &String::from_utf8_lossy(valid));
        ConfigError::single(location, "not UTF-8 text from here on; save the file as UTF-8")
    })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    if let Some((index, character)) = text.char_indices().find(|(_, character)| !is_yaml(*character)) {
        let location = location_after(path, &text[..index]);
        let what = if character == '\0' { "a NUL character".into() } else { format!("U+{:04X}", u32::from(character)) };
        let message = format!("{what}: YAML takes no control characters; delete it here");
        return Err(ConfigError::single(location, message));
    }
    Ok(text)
}

/// Whether YAML takes a character as it stands (YAML 1.2, `c-printable`, without the byte order mark).
fn is_yaml(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' | '\u{85}' => true,
        BYTE_ORDER_MARK | '\u{fffe}' | '\u{ffff}' => false,
        other => !other.is_control(),
    }
}

/// The place right behind `before`, the begin of the file at `path`.
fn location_after(path: &Path, before: &str) -> Location {
    let place = place_after(before);
    Location { file: Some(path.to_path_buf()), line: place.line, column: place.column }
}
