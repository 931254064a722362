//! What a misspelt word was probably meant to be.

use crate::base::printable::excerpt;

/// Longest part of a user's text that a message repeats, in characters.
const MAX_QUOTED_CHARS: usize = 60;

/// The one of `known` that is nearest to `text`, by the number of letters to change, insert, drop or swap;
/// one that begins with the text comes first, as an abbreviation is the likelier slip.
pub(super) fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Bounded, as the distance takes time in proportion to the length.
    let text: String = text.chars().take(MAX_QUOTED_CHARS).flat_map(char::to_lowercase).collect();
    known.into_iter().min_by_key(|candidate| {
        let candidate = candidate.to_lowercase();
        (!candidate.starts_with(&text), strsim::damerau_levenshtein(&text, &candidate))
    })
}

/// `text` in back quotes, shortened, with control characters escaped.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", excerpt(text, MAX_QUOTED_CHARS))
}

/// The message for a word that is none of `known`: `what` (unknown key), the word, the nearest, and all if they are few.
pub(super) fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let mut message = format!("unknown {what} {}", quoted(word));
    if let Some(nearest) = nearest(word, known.iter().copied()) {
        message += &format!("; the nearest known one is `{nearest}`");
        if (2..=32).contains(&known.len()) {
            message += &format!(" (known: {})", known.join(", "));
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_found_whatever_the_case() {
        let known = ["input_len", "output_len", "prefix_len"];
        assert_eq!(nearest("inputlen", known), Some("input_len"));
        assert_eq!(nearest("OUTPUT_LNE", known), Some("output_len"));
        assert_eq!(nearest("step", ["free", "stepped"]), Some("stepped"));
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn a_quoted_text_is_short_and_harmless() {
        assert_eq!(quoted("a\u{1b}[31m\nb"), "`a\\u{1b}[31m\\nb`");
        assert_eq!(quoted(&"x".repeat(1000)), format!("`{}... (1000 bytes)`", "x".repeat(MAX_QUOTED_CHARS)));
    }
}
