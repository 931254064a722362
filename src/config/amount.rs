//! Bounds the work that a text makes for the YAML reader, before the reader is asked.

use super::node::Place;

/// Most brackets that may be open at once. The YAML reader takes time in proportion to the open ones for every word, so
/// that a megabyte of `[` would keep it busy for half a minute.
const MAX_OPEN_BRACKETS: usize = 64;

/// Most of brackets times words. The brackets are counted without a look at quotes, so that closing ones can be faked
/// (`']'`); this bounds the time whatever is quoted. 10,000 length configs, all that a document may have, take 0.6 of it.
const MAX_BRACKETS_TIMES_WORDS: u64 = 1_000_000_000;

/// Most words, told by the signs and line ends between them; 10,000 length configs have 60,000.
const MAX_WORDS: u64 = 100_000;

/// Refuses a text that would take the YAML reader too long.
pub(super) fn check(text: &str) -> Result<(), (Place, String)> {
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
        if words > MAX_WORDS {
            return Err((
                place_after(&text[..index]),
                format!("more than {MAX_WORDS} keys, values and lines; split the file"),
            ));
        }
        if brackets * words > MAX_BRACKETS_TIMES_WORDS {
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
