//! The files of the repository, and what holds for each of them.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Longest function, in lines: a screen.
const MAX_FUNCTION_LINES: usize = 70;

/// Folders that are made, fetched or vendored.
const FOREIGN: [&str; 5] = ["target", ".git", "third_party", "results", "node_modules"];

/// Beginnings of paths that exist on one person's machine only.
const HOMES: [&str; 5] = ["/home/", "/Users/", "/root/", "/work/", "C:\\Users\\"];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with one of these endings, in a fixed order.
pub(crate) fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_foreign = FOREIGN.contains(&name) || (name.starts_with('.') && name != ".ci");
            if path.is_symlink() || is_foreign {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path as a person names it.
pub(crate) fn named(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

pub(crate) fn tokens(path: &Path) -> TokenStream {
    fs::read_to_string(path).unwrap().parse().unwrap_or_else(|error| panic!("{}: {error}", named(path)))
}

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        for path in files(folder, &[".rs"]) {
            functions(tokens(&path), &mut |name, line, lines| {
                if lines > MAX_FUNCTION_LINES {
                    long.push(format!("{}:{line}: `{name}` has {lines} lines", named(&path)));
                }
            });
        }
    }
    assert!(long.is_empty(), "functions of more than {MAX_FUNCTION_LINES} lines:\n{}", long.join("\n"));
}

/// Calls `found` with the name, the first line and the number of lines of each function.
fn functions(stream: TokenStream, found: &mut impl FnMut(&str, usize, usize)) {
    let mut tokens = stream.into_iter().peekable();
    let mut open: Option<(String, usize)> = None;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word == "fn" => {
                // A function type has no name.
                if let Some(TokenTree::Ident(name)) = tokens.peek() {
                    open = Some((name.to_string(), word.span().start().line));
                }
            }
            TokenTree::Punct(end) if end.as_char() == ';' => open = None,
            TokenTree::Group(group) => {
                if let (Delimiter::Brace, Some((name, line))) =
                    (group.delimiter(), open.take_if(|_| group.delimiter() == Delimiter::Brace))
                {
                    found(&name, line, group.span_close().end().line - line + 1);
                }
                functions(group.stream(), found);
            }
            _ => {}
        }
    }
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    let endings =
        [".rs", ".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".cc", ".h", ".json", ".sql", "Makefile", "run"];
    let mut told = Vec::new();
    for path in files("", &endings) {
        if path.ends_with("tests/tidy/sources.rs") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (line, content) in (1..).zip(text.lines()) {
            if let Some(home) = HOMES.into_iter().find(|home| content.contains(home)) {
                told.push(format!("{}:{line}: `{home}`", named(&path)));
            }
        }
    }
    assert!(told.is_empty(), "paths of one machine:\n{}", told.join("\n"));
}
