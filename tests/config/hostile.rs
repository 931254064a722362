//! Files that mean harm are refused before they can do any.

use std::path::Path;
use std::time::{Duration, Instant};

use bench::question::config;
use bench::question::resolve::{self, Overrides};

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
        let error = config::load(path).and_then(|config| resolve::resolve(&config, Overrides::default())).unwrap_err();
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
    assert_eq!(plan.num_runs_of(bench::question::plan::Role::Measured) as u64, resolve::MAX_RUNS);
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

/// Texts that differ from one by cut, repeated, inserted or changed bytes. The same ones each time.
fn mutants(text: &str, count: u32) -> impl Iterator<Item = Vec<u8>> {
    const PIECES: [&[u8]; 16] = [
        b"\n",
        b"\t",
        b",",
        b"\"",
        b"'",
        b"[",
        b"}",
        b": ",
        b"- ",
        b"!x ",
        b"&a ",
        b"*a",
        b"..",
        b"\xff",
        b"\0",
        b"9999999999999999999999",
    ];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let text = text.as_bytes().to_vec();
    (0..count).map(move |_| {
        let mut mutant = text.clone();
        for _ in 0..=random(4) {
            let (from, length) = (random(mutant.len()), random(12));
            let to = (from + length).min(mutant.len());
            match random(4) {
                0 => drop(mutant.drain(from..to)),
                1 => mutant.splice(from..from, PIECES[random(PIECES.len())].iter().copied()).for_each(drop),
                2 => mutant[from] ^= 1 << random(8),
                _ => {
                    let piece = mutant[from..to].to_vec();
                    let at = random(mutant.len());
                    mutant.splice(at..at, piece).for_each(drop);
                }
            }
        }
        mutant
    })
}

#[test]
fn a_damaged_configuration_or_script_is_refused_or_read_and_never_a_panic() {
    let config = "defaults: {model: builtin:tiny-llama, seed: 3, repeats: 2}\nstandalone_runs:\n  - name: \"a b\"\n    \
                  mode: vllm_throughput\n    args: >-\n      --max-num-seqs 8 --hf-overrides '{\"a\": 1}'\n    \
                  tensor_parallel_sizes: [1, 2]\n    length_configs:\n      - {input_len: 64, output_len: 8.0}\n    \
                  slo: {p99_ttft_s: 1.5}\n    matrix: &m\n      num_prompts: 1..8*2\n      exclude: [{num_prompts: 2}]\n      \
                  linked: [{concurrency: [1, 2], warmup: [3, 4]}]\n";
    let script = "requests:\n  - {first_ns: 1000, gaps_ns: [1, 2], counts: [1, 2, 3]}\n  - {first_ns: 5, gap_ns: 1, tokens: 4}\n\
                  faults: [{at_step: 2, kind: raise}]\nnoise: {run: 0.01}\n";
    assert!(crate::load(config).is_ok());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.yaml");
    for text in mutants(config, 400) {
        std::fs::write(&path, text).unwrap();
        let _ = config::load(&path).and_then(|config| resolve::resolve(&config, Overrides::default()));
    }
    for text in mutants(script, 400) {
        std::fs::write(&path, text).unwrap();
        let _ = config::load_script(&path);
    }
}
