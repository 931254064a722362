//! The environment that a warm sidecar was started with, against the one that a command would start it with.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use sha2::{Digest, Sha256};

use super::SidecarOptions;

/// Variables of terminals, shells and sessions, and those that only `bench` itself reads: they differ from one command to the
/// next, and no engine heeds them. Every other one counts.
const IGNORED: [&str; 32] = [
    "_",
    "BENCH_PYTHON",
    "COLORTERM",
    "COLUMNS",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "EDITOR",
    "GPG_TTY",
    "HISTFILE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LINES",
    "LS_COLORS",
    "NO_COLOR",
    "OLDPWD",
    "PAGER",
    "PS1",
    "PS2",
    "PROMPT_COMMAND",
    "PWD",
    "SHLVL",
    "STY",
    "TERM",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "VTE_VERSION",
    "WAYLAND_DISPLAY",
    "WINDOW",
    "WINDOWID",
    "XAUTHORITY",
];
const IGNORED_PREFIXES: [&str; 4] = ["SSH_", "TMUX", "XDG_SESSION_", "CARGO"];
/// Most names that are told.
const TOLD: usize = 4;

/// The environment that a sidecar gets: of each variable that counts, the name and a digest of its value, which may be
/// secret. Not looked up in the process: where a version manager's shim starts Python, it has changed it.
pub(super) fn digests(options: &SidecarOptions) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    variables.extend(options.variables().into_iter().map(|(name, value)| (name.into(), value.into())));
    let digest =
        |value: &OsString| Sha256::digest(value.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let named = variables.iter().map(|(name, value)| (name.to_string_lossy().into_owned(), digest(value)));
    named.filter(|(name, _)| counts(name)).collect()
}

/// In which variables two environments differ, in words; `None` if in none.
pub(super) fn difference(its: &BTreeMap<String, String>, ours: &BTreeMap<String, String>) -> Option<String> {
    let names: BTreeSet<&String> =
        its.keys().chain(ours.keys()).filter(|name| its.get(*name) != ours.get(*name)).collect();
    if names.is_empty() {
        return None;
    }
    let told: Vec<&str> = names.iter().take(TOLD).map(|name| name.as_str()).collect();
    let more = if names.len() > TOLD { format!(" and {} more", names.len() - TOLD) } else { String::new() };
    Some(format!("its environment is another: {}{more}", told.join(", ")))
}

fn counts(name: &str) -> bool {
    !IGNORED.contains(&name) && !IGNORED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn what_is_added_changed_or_missing_is_told_by_name() {
        let one = variables(&[("A", "1"), ("B", "2"), ("D", "4")]);
        let other = variables(&[("A", "1"), ("B", "3"), ("C", "")]);
        assert_eq!(difference(&one, &other).as_deref(), Some("its environment is another: B, C, D"));
        assert_eq!(difference(&other, &one), difference(&one, &other));
        assert_eq!(difference(&one, &one), None);
    }

    #[test]
    fn what_is_of_the_terminal_alone_does_not_count() {
        assert!(counts("OMP_NUM_THREADS") && counts("PATH") && counts("VLLM_USE_V1"));
        assert!(!counts("TERM") && !counts("SSH_TTY") && !counts("SHLVL"));
    }
}
