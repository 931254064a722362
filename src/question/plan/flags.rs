//! Reads flags from the words that go to vLLM's parser, as that parser reads them.

/// The value of the last `flag` in `engine_args`, where the last one counts for vLLM too.
pub(crate) fn flag_value<'a>(engine_args: &'a [String], flag: &str) -> Option<&'a str> {
    engine_args.iter().enumerate().rev().find_map(|(index, word)| {
        let (name, inline_value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        if !name.starts_with('-') || name.replace('_', "-") != flag {
            return None;
        }
        inline_value.or_else(|| engine_args.get(index + 1).map(String::as_str))
    })
}

/// Whether `engine_args` have `flag`: alone, with a value, or with a key of its JSON (`--flag.key`).
pub(crate) fn has_flag(engine_args: &[String], flag: &str) -> bool {
    let name = |word: &str| word.split(['=', '.']).next().unwrap_or_default().replace('_', "-");
    engine_args.iter().any(|word| name(word) == flag)
}

/// What `engine_args` say of the switch `flag`: of it and its opposite (`--no-...`), the last one counts.
pub(crate) fn switch(engine_args: &[String], flag: &str) -> Option<bool> {
    let opposite = flag.replacen("--", "--no-", 1);
    let mut names = engine_args.iter().rev().map(|word| word.replace('_', "-"));
    names.find(|name| *name == flag || *name == opposite).map(|name| name == flag)
}

/// Whether `engine_args` turn a switch off.
pub(crate) fn flag_is_off(engine_args: &[String], flag: &str) -> bool {
    switch(engine_args, flag) == Some(false)
}

/// A number as vLLM 0.32 reads it (`human_readable_int`): plain, or with k, m, g, t for powers of 1,000 and K, M, G, T
/// for powers of 1,024. `None` for anything else, which is left to vLLM's parser to judge.
pub(crate) fn human_readable_int(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let suffix = text.chars().next_back()?;
    let number = &text[..text.len() - suffix.len_utf8()];
    if let Some(power) = "kmgt".find(suffix) {
        let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
        return Some((number * 1000f64.powi(power as i32 + 1)) as u64);
    }
    let power = "KMGT".find(suffix)?;
    number.parse::<u64>().ok()?.checked_mul(1024u64.pow(power as u32 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn the_last_flag_counts() {
        let args = strings(&["--max-model-len", "1", "--max_model_len=2k", "--other"]);
        assert_eq!(flag_value(&args, "--max-model-len"), Some("2k"));
        assert_eq!(flag_value(&args, "--other"), None);
        assert_eq!(flag_value(&args, "--absent"), None);
    }

    #[test]
    fn of_a_switch_and_its_opposite_the_last_one_counts() {
        let is_off = |words: &[&str]| flag_is_off(&strings(words), "--enable-chunked-prefill");
        assert!(is_off(&["--no-enable-chunked-prefill"]) && is_off(&["--no_enable_chunked_prefill", "--x"]));
        assert!(!is_off(&["--no-enable-chunked-prefill", "--enable-chunked-prefill"]) && !is_off(&["--x"]));
    }

    #[test]
    fn numbers_are_read_as_vllm_does() {
        for (text, number) in [
            ("2048", Some(2048)),
            ("1k", Some(1000)),
            ("25.6k", Some(25_600)),
            ("2K", Some(2048)),
            ("1M", Some(1 << 20)),
            ("2.5K", None),
            ("auto", None),
            ("-1", None),
            ("k", None),
            ("99999999999T", None),
            ("", None),
        ] {
            assert_eq!(human_readable_int(text), number, "{text}");
        }
    }
}
