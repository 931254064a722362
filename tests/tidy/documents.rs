//! The documents: each file, command, flag and target that they name is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::sources::{files, named, root};

/// Top-level folders whose files documents name from the root.
const FOLDERS: [&str; 10] =
    ["src/", "tests/", "docs/", "configs/", "checks/", "peers/", "python_sidecar/", "ffi/", "schemas/", "examples/"];

/// All documents, as lines with their places.
fn lines() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for path in files("", &[".md"]) {
        let text = fs::read_to_string(&path).unwrap();
        lines.extend((1..).zip(text.lines()).map(|(line, text)| (format!("{}:{line}", named(&path)), text.to_owned())));
    }
    assert!(lines.len() > 500, "where are the documents?");
    lines
}

/// The parts of a line between backticks, or the line itself where it is indented as code.
fn code(line: &str) -> Vec<&str> {
    if line.starts_with("    ") { vec![line.trim()] } else { line.split('`').skip(1).step_by(2).collect() }
}

/// The headings of a document, as links name them.
fn headings(document: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(document).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let as_link = |heading: &str| {
        let letters = heading.to_lowercase();
        letters
            .chars()
            .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(as_link).collect()
}

#[test]
fn documents_name_files_that_are_there() {
    let mut dead = Vec::new();
    for (place, line) in lines() {
        let document = root().join(place.split(':').next().unwrap());
        let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            if !target.exists() || !(heading.is_empty() || headings(&target).contains(heading)) {
                dead.push(format!("{place}: link to `{link}`"));
            }
        }
        let words = code(&line).into_iter().flat_map(str::split_whitespace);
        let paths = words.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)));
        for path in paths.filter(|path| !path.contains(['*', '{', '<', '$'])) {
            let path = path.trim_end_matches(['.', ',', ';', ':', ')']);
            if !root().join(path).exists() {
                dead.push(format!("{place}: `{path}`"));
            }
        }
    }
    assert!(dead.is_empty(), "documents name files that are not there:\n{}", dead.join("\n"));
}

fn bench(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(words).output().unwrap();
    assert!(output.status.success(), "bench {words:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The flags of every subcommand, by its words: `engine`, `sidecar stop`.
fn flags_of_commands() -> BTreeMap<String, BTreeSet<String>> {
    let mut commands = BTreeMap::new();
    let mut left = vec![Vec::new()];
    while let Some(words) = left.pop() {
        let help = bench(&[&words[..], &["--help"]].concat());
        let flags = help.split(|letter: char| letter.is_whitespace() || ",[]=.`".contains(letter));
        let flags = flags.filter(|word| word.starts_with("--")).map(str::to_owned).collect();
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in listed.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   ")) {
            let name: &'static str = line.split_whitespace().next().unwrap().to_owned().leak();
            if name != "help" {
                left.push([&words[..], &[name]].concat());
            }
        }
        commands.insert(words.join(" "), flags);
    }
    commands
}

#[test]
fn documents_name_commands_and_flags_that_are_there() {
    let commands = flags_of_commands();
    let mut dead = Vec::new();
    for (place, line) in lines() {
        for snippet in code(&line).into_iter().filter(|snippet| snippet.starts_with("bench ")) {
            // What comes behind a pipe or a remark is of another program.
            let command = snippet.split(['|', '#', ';', '&', '>']).next().unwrap();
            let words: Vec<&str> = command.split_whitespace().skip(1).collect();
            let named: Vec<&str> = words.iter().copied().take_while(|word| is_name(word)).collect();
            let known = (0..=named.len()).rev().find_map(|length| commands.get_key_value(&named[..length].join(" ")));
            let Some((known, flags)) = known.filter(|(known, _)| !known.is_empty() || named.is_empty()) else {
                dead.push(format!("{place}: `{snippet}`: no such command"));
                continue;
            };
            let given = words.iter().filter(|word| word.starts_with("--") && word.len() > 2);
            let unknown = given.map(|word| word.split('=').next().unwrap().trim_end_matches([',', '.', ']']));
            dead.extend(
                unknown
                    .filter(|flag| !flags.contains(*flag))
                    .map(|flag| format!("{place}: `bench {known}` has no `{flag}`")),
            );
        }
    }
    assert!(dead.is_empty(), "documents name commands that are not there:\n{}", dead.join("\n"));
}

fn is_name(word: &str) -> bool {
    word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') && !word.starts_with('-')
}

#[test]
fn documents_name_make_targets_that_are_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', ' ', '#', '.']))
        .filter_map(|line| line.split_once(':').map(|(target, _)| target.trim()))
        .collect();
    let mut dead = Vec::new();
    for (place, line) in lines() {
        for snippet in code(&line).into_iter().filter(|snippet| snippet.starts_with("make ")) {
            let target = snippet.split_whitespace().nth(1).unwrap_or_default();
            if !targets.contains(target) {
                dead.push(format!("{place}: `{snippet}`"));
            }
        }
    }
    assert!(dead.is_empty(), "documents name targets that the Makefile does not have:\n{}", dead.join("\n"));
}
