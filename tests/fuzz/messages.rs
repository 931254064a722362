//! Control messages of a sidecar and of an engine process: understood, or refused with an error of bounded length.

use std::path::Path;

use bench::measurement::session::describe_message;

/// Longest error: the parts of a message that it quotes are bounded.
const LONGEST: usize = 4_096;

pub fn run(input: &[u8], _folder: &Path) {
    for line in input.split(|byte| *byte == b'\n') {
        for error in describe_message(line) {
            assert!(error.len() <= LONGEST, "an error of {} bytes", error.len());
            assert!(!error.contains('\u{1b}'), "an escape sequence in an error");
        }
    }
}
