//! Splits `args` as a shell would, and takes out the words that are the harness's own.

/// The words of `args` that are not vLLM's, with the key that each stands for.
const HARNESS_WORDS: [(&str, &str); 5] = [
    ("--input-len", "input_len"),
    ("--output-len", "output_len"),
    ("--prefix-len", "prefix_len"),
    ("--num-prompts", "num_prompts"),
    ("--seed", "seed"),
];

/// Words of vLLM that are part of the engine's identity on their own.
const ENGINE_WORDS: [(&str, &str); 3] =
    [("--model", "model"), ("--tensor-parallel-size", "tensor_parallel_size"), ("-tp", "tensor_parallel_size")];

/// `args`, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SplitArgs {
    /// Key, word as it was written, and value of everything that was taken out.
    pub(super) taken: Vec<(&'static str, String, String)>,
    /// What is left for vLLM's own parser.
    pub(super) engine_args: Vec<String>,
}

/// Splits `text`.
///
/// # Errors
/// A message: a quote that is not closed, a comment, or a word without its value.
pub(super) fn split(text: &str) -> Result<SplitArgs, String> {
    if starts_comment(text) {
        return Err("`#` begins a comment in `args`, and all behind it would be lost; put it in quotes".into());
    }
    let words = shlex::split(text).ok_or("`args` cannot be split as a shell would: a quote is not closed")?;
    let mut split = SplitArgs::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (flag, inline_value) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with('-') => (flag, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let Some(key) = own_key(flag) else {
            split.engine_args.push(word);
            continue;
        };
        let flag = flag.to_owned();
        let value = inline_value.or_else(|| words.next().filter(|value| !value.starts_with("--")));
        let value =
            value.filter(|value| !value.is_empty()).ok_or_else(|| format!("`{flag}` in `args` has no value"))?;
        split.taken.push((key, flag, value));
    }
    Ok(split)
}

/// The key that `flag` stands for, if it is not left to vLLM. As in vLLM, `_` and `-` are the same.
fn own_key(flag: &str) -> Option<&'static str> {
    let flag = flag.replace('_', "-");
    HARNESS_WORDS.iter().chain(&ENGINE_WORDS).find(|(word, _)| *word == flag).map(|(_, key)| *key)
}

/// Whether a `#` outside of quotes begins a word.
fn starts_comment(text: &str) -> bool {
    text.match_indices('#').any(|(index, _)| {
        let before = &text[..index];
        // With a quote open, the part before cannot be split on its own.
        before.chars().next_back().is_none_or(char::is_whitespace) && shlex::split(before).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn own_words_are_taken_out_in_both_spellings() {
        let split = split("--model m --seed=7 --max-num-seqs 8 --prefix_len 5 -tp 2 --flag").unwrap();
        assert_eq!(split.engine_args, strings(&["--max-num-seqs", "8", "--flag"]));
        let taken: Vec<_> = split.taken.iter().map(|(key, _, value)| (*key, value.as_str())).collect();
        assert_eq!(taken, [("model", "m"), ("seed", "7"), ("prefix_len", "5"), ("tensor_parallel_size", "2")]);
    }

    #[test]
    fn quotes_are_those_of_a_shell() {
        let split = split(r##"--hf-overrides '{"a": "# 1"}' --x "a b" y\ z"##).unwrap();
        assert_eq!(split.engine_args, strings(&["--hf-overrides", r##"{"a": "# 1"}"##, "--x", "a b", "y z"]));
    }

    #[test]
    fn what_would_lose_words_is_refused() {
        for (text, message) in [
            ("--model 'm", "quote"),
            ("--model m # --seed 3", "comment"),
            ("#", "comment"),
            ("--seed", "no value"),
            ("--seed --model m", "no value"),
            ("--seed= --model m", "no value"),
        ] {
            let error = split(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
