//! Files that mean harm are refused before they can do any.

use std::path::Path;
use std::time::{Duration, Instant};

use bench::config;
use bench::plan::{self, Overrides};

use crate::{EXISTING_FORMAT, entry, write};

/// Loads and resolves hostile text; returns the message.
fn refusal(text: impl AsRef<[u8]>) -> String {
    let (_folder, path) = write(text);
    refusal_of(&path)
}

/// The aim is 100 ms for an optimised build on an idle machine. The fastest of three counts, with room for a busy one;
/// an unoptimised build takes about eight times as long.
fn refusal_of(path: &Path) -> String {
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 1600 } else { 200 });
    let attempts = (0..3).map(|_| {
        let began = Instant::now();
        let error = config::load(path).and_then(|config| plan::resolve(&config, Overrides::default())).unwrap_err();
        (began.elapsed(), error.to_string())
    });
    let (fastest, message) = attempts.min().unwrap();
    println!("refused in {fastest:?}: {:.80}", message.rsplit('/').next().unwrap_or_default());
    assert!(fastest < limit, "refused only after {fastest:?}: {message}");
    assert!(message.len() < 20_000, "a message of {} bytes", message.len());
    message
}

/// So many points, and so many repeats of each.
fn runs(points: u32, repeats: u32) -> String {
    let axes = format!("input_len: 1..{points}, output_len: [1]");
    entry(&format!("model: m\nrepeats: {repeats}\nmatrix: {{{axes}}}"))
}

#[test]
fn the_most_runs_are_planned() {
    let plan = crate::plan_of(&runs(20_000, 5));
    assert_eq!(plan.num_runs_of(bench::plan::Role::Measured) as u64, plan::MAX_RUNS);
    let overrides = Overrides { repeats: Some(6), ..Overrides::default() };
    let message = crate::plan_with(&runs(20_000, 5), overrides).unwrap_err().to_string();
    assert!(message.contains("20000 points, and 6 repeats of each"), "{message}");
}

#[test]
fn hostile_text_is_refused_at_once() {
    let mib = 1 << 20;
    let bomb: String =
        (1..30).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect();
    let matrix_axis = format!("[{}]", (1..=400).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let explosion = entry(&format!(
        "model: m\nmatrix: {{input_len: {matrix_axis}, output_len: {matrix_axis}, num_prompts: {matrix_axis}}}"
    ));
    let overflow =
        ["input_len", "output_len", "num_prompts", "seed", "warmup", "concurrency", "max_num_seqs", "prefix_len"]
            .map(|axis| format!("{axis}: {matrix_axis}"))
            .join(", ");
    for (what, text, word) in [
        ("too large", "#".repeat(mib + 1), "larger than"),
        ("flow nesting", "[".repeat(mib - 1), "deeper"),
        ("table nesting", "{a: ".repeat(10_000), "deeper"),
        ("nesting hidden in quotes", "[']',".repeat(mib / 5 - 1), "in brackets"),
        ("less of it, and many words", "[']',".repeat(15_000) + &"1,".repeat(50_000), "in brackets"),
        ("as much as is let through", "[']',".repeat(8_000) + &"1,".repeat(70_000), "deeper"),
        ("block nesting", (0..1_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(), "deeper"),
        ("dashes", "- ".repeat(100_000), "deeper"),
        ("alias bomb", format!("a0: &a0 [x,x,x,x,x,x,x,x,x]\n{bomb}"), "values"),
        ("alias of itself", "a: &a [*a]".into(), ""),
        ("many words", format!("[{}]", "1,".repeat(mib / 2 - 2)), "more than 100000 keys"),
        ("many values", format!("[{}]", "1,".repeat(99_000)), "more than 50000 values"),
        ("many keys", (0..60_000).map(|n| format!("k{n}: 1\n")).collect(), "values"),
        ("many problems", entry(&(0..20_000).map(|n| format!("k{n}: 1\n")).collect::<String>()), "first 20"),
        ("long key", format!("{}: [1, 2]", "k".repeat(1_000)), "key of more than"),
        ("long unknown word", entry(&format!("workload: {}", "w".repeat(mib / 2))), "unknown"),
        ("matrix", explosion, "64000000 points"),
        ("matrix beyond u64", entry(&format!("model: m\nmatrix: {{{overflow}}}")), "points"),
        ("huge number", entry(&format!("num_prompts: {}", "9".repeat(100_000))), "whole number"),
        ("huge exponent", entry("num_prompts: 1e999999999"), "whole number"),
        ("long args", entry(&format!("args: {}", "x ".repeat(100_000))), "longer than"),
        ("two documents", format!("{EXISTING_FORMAT}---\n{EXISTING_FORMAT}"), ":11:1: a second YAML document"),
        ("NUL", "a: \0".into(), ":1:4: a NUL"),
        ("an escape sequence", "a: 1\nb: é\u{1b}[2J\n".into(), ":2:5: U+001B: YAML takes no control characters"),
        ("a control character of C1", "a: 1\nb:\n- \u{9b}".into(), ":3:3: U+009B"),
        ("a mark in the middle", "a: 1\nb: \u{feff}".into(), ":2:4: U+FEFF"),
        ("an escape sequence in quotes", entry("workload: \"a\\e[2J\""), r"`a\u{1b}[2J`"),
        ("a long text", entry(&format!("model: {}", "m".repeat(20_000))), "`model` is longer than 16384 bytes"),
        ("a range", entry("num_prompts: 1..1000000000"), "more than 100000 values"),
        ("a range that stands still", entry("num_prompts: 1..1000000000*1"), "is not a range"),
        ("runs", runs(100_000, 1_000), "100000 points, and 1000 repeats of each are more than 100000 runs"),
        ("one run too many", runs(20_001, 5), "20001 points, and 5 repeats of each"),
    ] {
        let message = refusal(&text);
        assert!(message.contains(word), "{what}: {message}");
    }
    let message = refusal(b"a: 1\nb: \xff\n");
    assert!(message.contains(":2:4: not UTF-8"), "{message}");
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [folder.path(), &fifo, Path::new("/dev/zero")] {
        let message = refusal_of(path);
        assert!(message.starts_with(&format!("{}: it has to be a regular file", path.display())), "{message}");
    }
    let message = refusal_of(&folder.path().join("absent.yaml"));
    assert!(message.contains("absent.yaml: cannot read"), "{message}");
}
