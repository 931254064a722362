//! Stand-ins for interpreters.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes an executable shell script. Another process does it: a file that this one has open for writing could be
/// inherited by a child that another test starts at that moment, and would then count as busy.
pub(super) fn write_script(path: &Path, lines: &[&str]) {
    let mut text = String::from("#!/bin/sh\n");
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
