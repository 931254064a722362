//! The order of the modules.

use std::collections::BTreeSet;
use std::path::Path;

use crate::sources::{Token, files, named, root, tokens};

/// The architecture: a module may use its own parts and the modules that stand before it. Data flows downwards.
const LAYERS: [(&str, &[&str]); 8] = [
    // Files, texts, and what is unknown.
    ("base", &["absent", "bounded_file", "owned_folder", "atomic_file", "checked_file", "printable"]),
    // What the measurement runs on.
    ("machine", &["device", "environment", "doctor"]),
    ("statistics", &[]),
    // What is asked.
    ("question", &["plan", "config", "resolve", "fingerprint"]),
    // What measures, and the timeline that it leaves.
    (
        "measurement",
        &["ring", "clock", "load", "telemetry", "timeline", "recorder", "session", "calibration", "results"],
    ),
    // What is worked out from a timeline.
    ("analysis", &["metrics", "roofline", "conditions", "causes", "verdict"]),
    // What is shown.
    ("presentation", &["plan_text", "plot", "exchange", "report", "comparison"]),
    ("cli", &[]),
];

/// The place of a module in [`LAYERS`]; `None` for one that is not there.
fn place(room: &str, module: &str) -> Option<(usize, usize)> {
    let row = LAYERS.iter().position(|(name, _)| *name == room)?;
    let modules = LAYERS[row].1;
    if modules.is_empty() { Some((row, 0)) } else { Some((row, modules.iter().position(|name| *name == module)?)) }
}

/// Room and module of a file below `src`; `None` for the files that only list modules.
fn module_of(file: &Path) -> Option<(String, String)> {
    let below = file.strip_prefix(root().join("src")).unwrap();
    let mut parts = below.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs").to_owned());
    let (room, module) = (parts.next()?, parts.next().unwrap_or_default());
    let lists_modules = matches!(room.as_str(), "lib" | "main") || (module == "mod" && !is_one_module(&room));
    (!lists_modules).then_some((room, module))
}

fn is_one_module(room: &str) -> bool {
    LAYERS.iter().any(|(name, modules)| *name == room && modules.is_empty())
}

/// The first two names behind every `crate::`, each group taken apart, with its line.
fn uses(tokens: &[Token]) -> BTreeSet<(usize, String, String)> {
    let is_colons = |at: usize| tokens[at..].iter().take(2).filter(|token| token.text == ":").count() == 2;
    let mut found = BTreeSet::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at].text == "crate" && is_colons(at + 1)) {
        let room = &tokens[at + 3];
        assert!(room.is_name, "line {}: write a `use crate::ROOM::` for each room", room.line);
        let modules = if is_colons(at + 4) { names(&tokens[at + 6..]) } else { vec![String::new()] };
        found.extend(modules.into_iter().map(|module| (room.line, room.text.clone(), module)));
    }
    found
}

/// The name, or the first names of the parts of a group in braces.
fn names(tokens: &[Token]) -> Vec<String> {
    if tokens[0].text != "{" {
        return vec![tokens[0].text.clone()];
    }
    let (mut names, mut depth) = (Vec::new(), 0);
    for pair in tokens.windows(2) {
        depth += i32::from(pair[0].text == "{") - i32::from(pair[0].text == "}");
        if depth == 0 {
            break;
        }
        if depth == 1 && pair[1].is_name && matches!(pair[0].text.as_str(), "{" | ",") {
            names.push(pair[1].text.clone());
        }
    }
    names
}

#[test]
fn modules_use_only_modules_before_them() {
    let mut broken = Vec::new();
    for file in files("src", &[".rs"]) {
        let Some((room, module)) = module_of(&file) else { continue };
        let Some(own) = place(&room, &module) else {
            broken.push(format!("{}: `{room}::{module}` has no place in LAYERS of tests/tidy/layers.rs", named(&file)));
            continue;
        };
        for (line, other_room, other_module) in uses(&tokens(&file)) {
            if place(&other_room, &other_module).is_none_or(|other| other > own) {
                let other = format!("{other_room}::{other_module}");
                broken.push(format!(
                    "{}:{line}: `{room}::{module}` uses `{other}`, which does not stand before it",
                    named(&file)
                ));
            }
        }
    }
    assert!(broken.is_empty(), "modules use only their own parts and modules before them:\n{}", broken.join("\n"));
}
