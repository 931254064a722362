//! What a calibration gives, as `calibration.json` keeps it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::CpuPeaks;
use super::{ErrorBudget, ObserverEffect, TelemetryEffect};
use crate::machine::device::{HostFacts, Placement, WaitStrategy};
use crate::measurement::clock::Clock;
use crate::measurement::ring::RingError;
use crate::measurement::session::SessionError;
use crate::statistics::Distribution;

/// Version of the layout of [`Calibration`].
pub(super) const SCHEMA_VERSION: u32 = 1;

/// Percentiles of some times, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Samples.
    pub count: u64,
    /// Median.
    pub p50: i64,
    /// 99th percentile, nearest rank.
    pub p99: i64,
    /// Largest.
    pub max: i64,
}

impl Times {
    /// Of samples in any order; `None` without any.
    pub fn of(mut samples_ns: Vec<i64>) -> Option<Times> {
        samples_ns.sort_unstable();
        let Distribution { count, p50, p99, max, .. } = Distribution::of_sorted(&samples_ns)?;
        Some(Times { count, p50, p99, max })
    }
}

/// The two cores between which tokens travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores {
    /// The engine's first core.
    pub engine: usize,
    /// The recorder's; the engine's own where none could be spared.
    pub recorder: usize,
}

impl Cores {
    /// Of a placement.
    pub fn of(placement: &Placement) -> Cores {
        let engine = placement.engine_cores.first().copied().unwrap_or(0);
        Cores { engine, recorder: placement.recorder_core.unwrap_or(engine) }
    }

    /// Whether each side has its own.
    pub fn are_two(&self) -> bool {
        self.engine != self.recorder
    }
}

/// The ring, measured between the two cores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingTimes {
    /// received - emitted with a record every 3 us; null on a single core.
    pub gap_3us_ns: Option<Times>,
    /// The same with a record every millisecond.
    pub gap_1ms_ns: Option<Times>,
    /// The same, and between two records the producer has gone through more memory than its caches hold, as a model does.
    pub gap_1ms_loaded_ns: Option<Times>,
    /// Records a second that go through in batches of 64; null where it was not measured.
    pub records_per_s: Option<f64>,
}

/// What waiting costs with one strategy, with a record every millisecond.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrategyCost {
    /// The strategy.
    pub strategy: WaitStrategy,
    /// received - emitted.
    pub transport_ns: Option<Times>,
    /// Share of a core that the waiting thread used.
    pub cpu_share: f64,
}

/// The instrument against the scripted engine: errors of what was measured, and what they are made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnownAnswer {
    /// Requests at once.
    pub concurrency: u32,
    /// Error of the TTFT: its size against the instant at which the engine had the first token.
    pub ttft_error_ns: Times,
    /// The same of the first tokens for which the recorder had looked within the last microsecond before.
    pub ttft_error_watched_ns: Option<Times>,
    /// Error of each ITL: its size against the time between the two emissions.
    pub itl_error_ns: Option<Times>,
    /// The same of the ITLs at both ends of which the recorder had looked within the last microsecond: without those in
    /// which the machine took the recorder's core away, as each token's own bound tells.
    pub itl_error_watched_ns: Option<Times>,
    /// From the engine's having a token to its stamp.
    pub tap_ns: Times,
    /// From the stamp to the recorder's.
    pub transport_ns: Times,
    /// From the time that a request was due to the engine's seeing it.
    pub submit_ns: Times,
    /// How late the scripted engine emitted: an error of the schedule, not of the instrument.
    pub schedule_error_ns: Times,
}

/// What tap and push cost in a step, in the sidecar's Python, with the caches cold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapCost {
    /// Requests in the batch.
    pub batch: u32,
    /// Tap and push together.
    pub tap_push_ns: Times,
}

/// Everything that a calibration has measured.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    /// Version of this layout.
    pub schema_version: u32,
    /// The clock.
    pub clock: Clock,
    /// The machine's floor: a raw cache line handed from the engine's core to the recorder's; null on a single core.
    pub floor_ns: Option<Times>,
    /// The ring.
    pub ring: RingTimes,
    /// Each wait strategy.
    pub strategies: Vec<StrategyCost>,
    /// Token events a second that the recorder takes before the ring fills; null where it was not measured.
    pub recorder_events_per_s: Option<f64>,
    /// The errors, by concurrency.
    pub known_answer: Vec<KnownAnswer>,
    /// The cost in the engine, by batch.
    pub per_step: Vec<TapCost>,
    /// What observing changes in a real engine; only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observer: Option<Vec<ObserverEffect>>,
    /// What sampling the machine changes in the same engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observer_telemetry: Option<Vec<TelemetryEffect>>,
    /// What the engine's cores can do; null where it was not probed.
    pub cpu_peaks: Option<CpuPeaks>,
    /// What could not be measured, and why.
    pub warnings: Vec<String>,
    /// How the recorder waits.
    pub wait_strategy: WaitStrategy,
    /// Between which cores.
    pub cores: Cores,
    /// On which machine.
    pub host: HostFacts,
    /// Of which program.
    pub build: String,
    /// When, RFC 3339, for people only.
    pub measured_at: String,
    /// What follows for the numbers of a report.
    pub error_budget: ErrorBudget,
}

/// For what a budget holds: the same host, cores, build and strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Name, kernel and processor of the host.
    pub host: String,
    /// The two cores.
    pub cores: Cores,
    /// Version, content and age of the program.
    pub build: String,
    /// How the recorder waits.
    pub wait_strategy: WaitStrategy,
}

impl Identity {
    /// Of this program on this host.
    pub fn of(placement: &Placement, host: &HostFacts) -> Identity {
        let text = |fact: &Option<String>| fact.clone().unwrap_or_default();
        Identity {
            host: format!("{}, {}, {}", text(&host.hostname), text(&host.kernel), text(&host.cpu_model)),
            cores: Cores::of(placement),
            build: build(),
            wait_strategy: placement.wait_strategy,
        }
    }
}

/// The version, what the binary carries, and the binary's own size and time: a rebuilt one is another.
fn build() -> String {
    let file = std::env::current_exe().and_then(std::fs::metadata).ok();
    let modified = file.as_ref().and_then(|file| file.modified().ok());
    let modified_s = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).map(|age| age.as_secs());
    let bytes = file.map(|file| file.len());
    let numbers = [bytes, modified_s].map(|number| number.map_or_else(|| "?".to_owned(), |number| number.to_string()));
    format!("{} {}", env!("CARGO_PKG_VERSION"), numbers.join("-"))
}

/// The instrument could not be calibrated.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The scripted engine could not be run.
    #[error("the scripted engine: {0}")]
    Session(#[from] SessionError),
    /// A ring could not be made.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A thread could not be bound to its core.
    #[error("{0}; is it among the cores that this process may use?")]
    Pin(String),
    /// The system grants no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// What the engine said it did cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    Truth {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A known answer did not come back whole.
    #[error("{concurrency} requests at once: {problem}")]
    Answer {
        /// Requests at once.
        concurrency: u32,
        /// What is missing.
        problem: String,
    },
}
