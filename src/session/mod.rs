//! A session with a sidecar: processes, control plane, loaded engines.

mod channel;
mod engine;
mod error;
mod folder;
mod privileges;
mod prompts;
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

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

pub use engine::{Ended, Engine, OBSERVED_WAYS, ObservedSteps, REQUEST_CAPACITY, RequestSpec};
pub use error::SessionError;
pub use privileges::Privileges;
pub use prompts::RunRequests;
pub use run::{Interrupts, Progress, RunRecording, execute};
pub use sidecar::{Hello, Sidecar, WarmUse};
pub use spec::{EngineSpec, SidecarOptions, TRUTH_HEADER, Warm};
pub use sweep::{Earlier, Station, Sweep, SweepError, SweepObserver};
pub use warm::{About, Holder, LoadedEngine, Registry, Status, Stopped, WarmSidecar};
pub use window::{Event, Window};

/// The last lines of a log, each after a newline and indented; empty if there are none.
fn log_tail(path: &Path) -> String {
    const BYTES: u64 = 4096;
    const LINES: usize = 6;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("\n  | {line}")).collect()
}
