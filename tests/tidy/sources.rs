//! The files of the repository, and what holds for each of them.

use std::fs;
use std::path::{Path, PathBuf};

use ra_ap_rustc_lexer::{FrontmatterAllowed, TokenKind, tokenize};

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

/// A token of Rust, with its line.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) is_name: bool,
}

/// The tokens of a file, without blanks and comments.
pub(crate) fn tokens(path: &Path) -> Vec<Token> {
    let text = fs::read_to_string(path).unwrap();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    for token in tokenize(&text, FrontmatterAllowed::No) {
        let part = &text[at..at + token.len as usize];
        let is_skipped = matches!(
            token.kind,
            TokenKind::Whitespace | TokenKind::LineComment { .. } | TokenKind::BlockComment { .. }
        );
        if !is_skipped {
            let is_name = matches!(token.kind, TokenKind::Ident | TokenKind::RawIdent);
            tokens.push(Token { text: part.to_owned(), line, is_name });
        }
        line += part.matches('\n').count();
        at += part.len();
    }
    tokens
}

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        for path in files(folder, &[".rs"]) {
            functions(&tokens(&path), &mut |name, line, lines| {
                if lines > MAX_FUNCTION_LINES {
                    long.push(format!("{}:{line}: `{name}` has {lines} lines", named(&path)));
                }
            });
        }
    }
    assert!(long.is_empty(), "functions of more than {MAX_FUNCTION_LINES} lines:\n{}", long.join("\n"));
}

/// Calls `found` with the name, the first line and the number of lines of each function that has a body.
fn functions(tokens: &[Token], found: &mut impl FnMut(&str, usize, usize)) {
    for (index, pair) in tokens.windows(2).enumerate() {
        // A function type has no name.
        if pair[0].text != "fn" || !pair[1].is_name {
            continue;
        }
        let mut brackets = 0;
        let end = tokens[index..].iter().position(|token| {
            brackets += change_of_depth(token, &["(", "["], &[")", "]"]);
            brackets == 0 && (token.text == "{" || token.text == ";")
        });
        let Some(begin) = end.map(|end| index + end).filter(|begin| tokens[*begin].text == "{") else { continue };
        let mut braces = 0;
        let last = tokens[begin..].iter().find(|token| {
            braces += change_of_depth(token, &["{"], &["}"]);
            braces == 0
        });
        found(&pair[1].text, pair[0].line, last.unwrap().line - pair[0].line + 1);
    }
}

fn change_of_depth(token: &Token, opening: &[&str], closing: &[&str]) -> i32 {
    i32::from(opening.contains(&token.text.as_str())) - i32::from(closing.contains(&token.text.as_str()))
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
