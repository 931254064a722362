//! Bounds the work that a text makes for the YAML reader, before the reader is asked.

use super::node::Place;

/// Most brackets that may be open at once. The YAML reader takes time in proportion to the open ones for every word, so
/// that a megabyte of `[` would keep it busy for half a minute.
const MAX_OPEN_BRACKETS: usize = 64;

/// How much a document may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of the file.
    pub(super) file_bytes: u64,
    /// Values, with everything that aliases repeat.
    pub(super) values: usize,
    /// Words, told by the signs and line ends between them.
    words: u64,
    /// Brackets times words. The brackets are counted without a look at quotes, so that closing ones can be faked
    /// (`']'`); this bounds the time whatever is quoted.
    brackets_times_words: u64,
}

impl Bounds {
    /// Of a configuration. 1,000 length configurations are 3,000 values; 10,000 of them have 60,000 words, and take 0.6
    /// of the brackets times words.
    pub(super) const CONFIG: Bounds =
        Bounds { file_bytes: 1 << 20, values: 50_000, words: 100_000, brackets_times_words: 1_000_000_000 };
    /// Of a script: a million gaps, in lists of a thousand requests.
    pub(super) const SCRIPT: Bounds =
        Bounds { file_bytes: 16 << 20, values: 1_100_000, words: 2_000_000, brackets_times_words: 10_000_000_000 };
}

/// Refuses a text that would take the YAML reader too long.
pub(super) fn check(text: &str, bounds: &Bounds) -> Result<(), (Place, String)> {
    let mut open = 0usize;
    let (mut brackets, mut words) = (0u64, 0u64);
    for (index, byte) in text.bytes().enumerate() {
        words += u64::from(b",:?\n[]{}".contains(&byte));
        match byte {
            b'[' | b'{' => {
                open += 1;
                brackets += 1;
            }
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_OPEN_BRACKETS {
            return Err((place_after(&text[..index]), format!("nested deeper than {MAX_OPEN_BRACKETS} brackets")));
        }
        if words > bounds.words {
            return Err((
                place_after(&text[..index]),
                format!("more than {} keys, values and lines; split the file", bounds.words),
            ));
        }
        if brackets * words > bounds.brackets_times_words {
            let message = "too many lists and tables in brackets; cross the values in a `matrix`, or split the file";
            return Err((place_after(&text[..index]), message.into()));
        }
    }
    Ok(())
}

/// The place right behind `before`, the begin of a text.
pub(super) fn place_after(before: &str) -> Place {
    let last_line = before.rsplit('\n').next().unwrap_or_default();
    Place { line: before.matches('\n').count() + 1, column: last_line.chars().count() + 1 }
}
