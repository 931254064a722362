//! What one command measured with: the record from which, together with its runs, every report can be rebuilt.

mod store;

pub use store::{UNSEALED_SESSION_SCHEMA_VERSION, read_session, write_session};

use serde::{Deserialize, Serialize};

use crate::measurement::calibration::CpuPeaks;
use crate::measurement::calibration::ErrorBudget;
use crate::measurement::clock::Clock;
use crate::question::fingerprint::Fingerprint;
use crate::question::plan::Plan;

/// Version of the layout of [`SessionRecord`] that this version writes.
pub const SESSION_SCHEMA_VERSION: u32 = 2;

/// One command's raw record, `runs/session.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// [`SESSION_SCHEMA_VERSION`] of the version that wrote it.
    pub schema_version: u32,
    /// Version of `bench` that measured.
    pub bench_version: String,
    /// What was asked.
    pub plan: Plan,
    /// Host, versions and settings, as they were found.
    pub environment: serde_json::Value,
    /// What was measured with.
    pub instrument: Instrument,
    /// When the command began, RFC 3339, for people only.
    pub started_at: String,
    /// When it was gone on with after it had ended early, each time, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed_at: Vec<String>,
    /// What a command must share with this one to go on with it; null in records of older versions.
    #[serde(default)]
    pub fingerprint: Option<Fingerprint>,
}

/// The instrument: its clock, how it waits, where it runs, and its own error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instrument {
    /// The clock that every stamp comes from.
    pub clock: Clock,
    /// How the recorder waits for records, in words.
    pub wait_strategy: String,
    /// The core that the recorder is pinned to; null without one of its own.
    pub recorder_core: Option<u32>,
    /// The recorder's nice value; null if it was not raised.
    pub recorder_priority: Option<i32>,
    /// The cores that the engine is bound to; empty if it was left to the system.
    pub engine_cores: Vec<u32>,
    /// A sentence for each of pinning, priority and memory locking that the system refused.
    pub not_permitted: Vec<String>,
    /// Measured error of the whole path; null if it was not measured.
    pub error_budget: Option<ErrorBudget>,
    /// What the engine's cores can do; null if it was not probed, or where the engine runs on something else.
    #[serde(default)]
    pub cpu_peaks: Option<CpuPeaks>,
}
