//! A session with a sidecar: processes, control plane, loaded engines.

mod channel;
mod engine;
mod error;
mod folder;
mod labels;
mod privileges;
mod prompts;
mod replaced;
mod run;
mod run_queue;
mod sidecar;
mod spec;
mod sweep;
mod variables;
mod warm;
mod warm_up;
mod watchdog;
mod window;
mod work;

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::base::bounded_file::open_regular;
use crate::base::printable::printable;

pub use engine::{Ended, Engine, OBSERVED_WAYS, ObservedSteps, REQUEST_CAPACITY, RequestSpec};
pub use error::SessionError;
pub(crate) use folder::PrivateFolder;
pub use labels::ParsedLabels;
pub use privileges::Privileges;
pub use prompts::RunRequests;
pub use replaced::{Replaced, user_variable};
pub use run::{Interrupts, Progress, RunRecording, execute};
pub use sidecar::{Hello, Sidecar, WarmUse};
pub use spec::{EngineSpec, SidecarOptions, TRUTH_HEADER, Warm};
pub use sweep::{Earlier, Station, Sweep, SweepError, SweepObserver};
pub use warm::{About, Holder, LoadedEngine, Registry, Status, Stopped, WarmSidecar};
pub use window::{Event, Window};

/// What is said of a line of the control plane where another message is expected: of a sidecar, of an engine process, and of a
/// warm sidecar. For the fuzz target: the texts are bounded.
#[doc(hidden)]
pub fn describe_message(line: &[u8]) -> Vec<String> {
    let said = [
        channel::parse::<sidecar::FromSidecar>(line)
            .map(|message| SessionError::unexpected(&message, "another message")),
        channel::parse::<engine::FromEngine>(line).map(|message| SessionError::unexpected(&message, "another message")),
        channel::parse::<warm::Answer>(line).map(|message| SessionError::unexpected(&message, "another message")),
    ];
    said.into_iter().map(|said| said.unwrap_or_else(|error| error).to_string()).collect()
}

/// The last lines of a log, each after a newline and indented; empty if there are none.
fn log_tail(path: &Path) -> String {
    const BYTES: u64 = 4096;
    const LINES: usize = 6;
    let read = || -> std::io::Result<String> {
        let mut file = open_regular(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("\n  | {}", printable(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_of_a_log_are_shown_and_not_obeyed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "one\n\n\u{1b}[31mtwo\rthree\u{9b}2J\n").unwrap();
        assert_eq!(log_tail(&log), "\n  | one\n  | \\u{1b}[31mtwo\\rthree\\u{9b}2J");
        assert_eq!(log_tail(&folder.path().join("none")), "");
    }
}
