//! The environment that a warm sidecar was started with, against the one that a command would start it with.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::{fs, io};

use super::SidecarOptions;

/// Variables of terminals, shells and sessions, and those that only `bench` itself reads: they differ from one command to the
/// next, and no engine heeds them. Every other one counts.
const IGNORED: [&str; 32] = [
    "_", "BENCH_PYTHON", "COLORTERM", "COLUMNS", "CLICOLOR", "CLICOLOR_FORCE", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY",
    "EDITOR", "GPG_TTY", "HISTFILE", "INVOCATION_ID", "JOURNAL_STREAM", "LINES", "LS_COLORS", "NO_COLOR", "OLDPWD",
    "PAGER", "PS1", "PS2", "PROMPT_COMMAND", "PWD", "SHLVL", "STY", "TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION",
    "VTE_VERSION", "WAYLAND_DISPLAY", "WINDOW", "WINDOWID", "XAUTHORITY",
];
const IGNORED_PREFIXES: [&str; 4] = ["SSH_", "TMUX", "XDG_SESSION_", "CARGO"];
/// Most names that are told.
const TOLD: usize = 4;

/// Names of the variables in which the environment of process `pid` is another than these options give; `None` if none is.
/// Values may be secret, and are not told.
pub(super) fn difference(pid: u32, options: &SidecarOptions) -> Option<String> {
    let its = match of_process(pid) {
        Ok(its) => its,
        Err(err) => return Some(format!("its environment cannot be read: {err}")),
    };
    let mut ours: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    ours.extend(options.variables().into_iter().map(|(name, value)| (name.into(), value.into())));
    let names = differing(&its, &ours);
    if names.is_empty() {
        return None;
    }
    let told = names[..names.len().min(TOLD)].join(", ");
    let more = if names.len() > TOLD { format!(" and {} more", names.len() - TOLD) } else { String::new() };
    Some(format!("its environment is another: {told}{more}"))
}

fn of_process(pid: u32) -> io::Result<BTreeMap<OsString, OsString>> {
    let text = fs::read(format!("/proc/{pid}/environ"))?;
    let pairs = text.split(|byte| *byte == 0).filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((OsString::from_vec(pair[..at].to_vec()), OsString::from_vec(pair[at + 1..].to_vec())))
    });
    Ok(pairs.collect())
}

fn differing(one: &BTreeMap<OsString, OsString>, other: &BTreeMap<OsString, OsString>) -> Vec<String> {
    let mut names: Vec<&OsStr> = one.keys().chain(other.keys()).map(OsString::as_os_str).collect();
    names.sort_unstable();
    names.dedup();
    let differ = |name: &&OsStr| one.get(*name) != other.get(*name);
    names.into_iter().filter(differ).map(|name| name.to_string_lossy().into_owned()).filter(|name| counts(name)).collect()
}

fn counts(name: &str) -> bool {
    !IGNORED.contains(&name) && !IGNORED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn what_is_added_changed_or_missing_counts_unless_it_is_of_the_terminal() {
        let one = variables(&[("A", "1"), ("B", "2"), ("TERM", "xterm"), ("SSH_TTY", "/dev/pts/1")]);
        let other = variables(&[("A", "1"), ("B", "3"), ("C", ""), ("TERM", "dumb"), ("PWD", "/")]);
        assert_eq!(differing(&one, &other), ["B", "C"]);
        assert_eq!(differing(&other, &one), ["B", "C"]);
        assert!(differing(&one, &one).is_empty());
    }
}
