//! The resolved plan: what will be measured, in which order, on which engines. Nothing downstream of it sees YAML
//! or command-line flags.

pub(crate) mod class;
pub(crate) mod epochs;
mod estimate;
mod flags;
mod history;
pub(crate) mod label;
mod model;
mod order;
pub(crate) mod ranks;
mod role;
mod runs;
pub(crate) mod seed;
mod switches;
mod whole_sweep;

pub use class::{SettingClass, VaryingSetting};
pub use estimate::{EpochEstimate, Estimate, estimate};
pub use history::{History, HistoryError, LoadTimes, RunTimes};
pub use model::*;
pub use role::{Arm, PairMember, Role};
pub use runs::PlannedRun;
pub use switches::QuantizationSwitches;
pub use whole_sweep::{Sentinel, WholeSweep};

pub(crate) use flags::{flag_is_off, flag_value, has_flag, human_readable_int, switch};

/// Metrics that a comparison compares where nothing else is asked for: each is a test that needs its pairs.
pub const COMPARED_METRICS: usize = 8;

/// Samples of the telemetry a second where the configuration asks for none in particular.
pub const DEFAULT_TELEMETRY_HZ: u32 = 10;
/// Most samples a second: reading all sources takes up to a millisecond.
pub const MAX_TELEMETRY_HZ: u32 = 100;
