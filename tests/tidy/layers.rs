//! The order of the modules.

use std::collections::BTreeSet;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

use crate::sources::{files, named, root, tokens};

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
fn uses(stream: TokenStream, found: &mut BTreeSet<(usize, String, String)>) {
    let mut tokens = stream.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word == "crate" => {
                let line = word.span().start().line;
                if !skip_colons(&mut tokens) {
                    continue;
                }
                let Some(TokenTree::Ident(room)) = tokens.next() else {
                    panic!("line {line}: write one `use crate::ROOM::` for each room");
                };
                let room = room.to_string();
                let modules = if skip_colons(&mut tokens) { names(tokens.peek()) } else { vec![String::new()] };
                found.extend(modules.into_iter().map(|module| (line, room.clone(), module)));
            }
            TokenTree::Group(group) => uses(group.stream(), found),
            _ => {}
        }
    }
}

type Tokens = std::iter::Peekable<proc_macro2::token_stream::IntoIter>;

/// Whether `::` was there.
fn skip_colons(tokens: &mut Tokens) -> bool {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':');
    tokens.next_if(is_colon).is_some() && tokens.next_if(is_colon).is_some()
}

/// The name, or the first names in a group.
fn names(token: Option<&TokenTree>) -> Vec<String> {
    match token {
        Some(TokenTree::Ident(name)) => vec![name.to_string()],
        Some(TokenTree::Group(group)) => {
            let mut names = Vec::new();
            let mut begins = true;
            for token in group.stream() {
                match token {
                    TokenTree::Ident(name) if begins => {
                        names.push(name.to_string());
                        begins = false;
                    }
                    TokenTree::Punct(mark) => begins = mark.as_char() == ',',
                    _ => {}
                }
            }
            names
        }
        _ => Vec::new(),
    }
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
        let mut used = BTreeSet::new();
        uses(tokens(&file), &mut used);
        for (line, other_room, other_module) in used {
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
