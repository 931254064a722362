//! Text from outside (file contents, names, what a sidecar prints) before it reaches a terminal or a report.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

use serde::Serializer;

/// Escapes everything that a terminal could act on or that hides text: control characters and the marks that change the
/// direction of writing. An escape is written as Rust writes it, such as `\u{1b}`. Line ends and tabs are escaped, too.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// As [`printable`], but keeps line ends and tabs: for text of several lines.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, |character| matches!(character, '\n' | '\t'))
}

/// At most `most` characters of `text`, made [`printable`]; what is cut is replaced by its size.
pub fn excerpt(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => printable(text),
        Some((end, _)) => Cow::Owned(format!("{}... ({} bytes)", printable(&text[..end]), text.len())),
    }
}

/// The words of this process's command line. What is not UTF-8 in them is replaced.
pub fn command_line() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Serializes a path that is only shown. What is not UTF-8 in it is replaced, where serde's own way is an error.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// JSON text that is safe on a terminal: control characters in its strings are written as escapes with the same meaning.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_escaped = |character: char| is_active(character) && character != '\n';
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_escaped(character) {
            // All of them are in the first plane. Writing into a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Text as it stands in a Markdown table or list: [`printable`], and without links, images, code and HTML.
pub fn markdown(text: &str) -> Cow<'_, str> {
    let text = printable(text);
    let is_active = |character: char| "\\|`[]<&".contains(character);
    if !text.contains(is_active) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            _ if is_active(character) => escaped.extend(['\\', character]),
            _ => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// A text as a cell of a CSV file. A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a line end for
/// a formula, and one that begins with `'` for text: such a text gets a `'` in front.
pub fn spreadsheet_cell(text: &str) -> Cow<'_, str> {
    if is_formula(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// The text that [`spreadsheet_cell`] made a cell of.
pub fn without_guard(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|text| is_formula(text)).unwrap_or(cell)
}

/// Whether a spreadsheet may take a text for a formula, once it has taken quotes and spaces from its begin.
fn is_formula(text: &str) -> bool {
    let begin = text.trim_start_matches(['\'', ' ']);
    begin.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])
}

fn escape(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |character: char| is_active(character) && !is_kept(character);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_escaped(character) {
            // Writing into a String cannot fail.
            let _ = write!(escaped, "{}", character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Control characters (C0, DEL, C1), line and paragraph separators, and the controls of bidirectional text (Unicode
/// Standard Annex 9).
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_direction_marks_become_visible() {
        assert_eq!(printable("a\u{1b}[2J\u{202e}b\n"), r"a\u{1b}[2J\u{202e}b\n");
        assert_eq!(printable_lines("a\tb\n\r"), "a\tb\n\\r");
        assert_eq!(printable("a\u{61c}1"), r"a\u{61c}1", "the Arabic letter mark");
        assert_eq!(printable("ünïcode 模型"), "ünïcode 模型");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({"a": "\u{9b}2J\u{202e}\u{7f}\n\u{1b}"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        assert!(text.contains('\u{9b}'));
        let shown = json(&text);
        assert!(!shown.contains(['\u{9b}', '\u{202e}', '\u{7f}', '\u{1b}']), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn markdown_is_text_of_one_line() {
        assert_eq!(markdown("a|`b`\n<i>\\"), r"a\|\`b\`\\n&lt;i>\\");
        assert_eq!(markdown("plain-text_1"), "plain-text_1");
        assert_eq!(markdown("![i](http://x.y/i) [a]: &#91;"), r"!\[i\](http://x.y/i) \[a\]: &amp;#91;");
    }

    #[test]
    fn a_cell_that_a_spreadsheet_would_run_is_text_and_comes_back() {
        for text in ["=1+1", "+1", "-1", "@a", "\ta", "\ra", "'=1", "''=1", " =1", "'a", "a=1", "", "'"] {
            let cell = spreadsheet_cell(text);
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', ' ']), "{cell:?}");
            assert_eq!(without_guard(&cell), text);
        }
        assert_eq!(spreadsheet_cell("a=1"), "a=1");
        assert_eq!(spreadsheet_cell("=1"), "'=1");
        assert_eq!(without_guard("'a"), "'a");
    }

    #[test]
    fn a_long_text_is_cut_and_its_size_said() {
        assert_eq!(excerpt("äbcdef", 3), "äbc... (7 bytes)");
        assert_eq!(excerpt("abc", 3), "abc");
    }
}
