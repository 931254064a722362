//! The resolved plan: what will be measured, in which order, on which engines. Nothing downstream of it sees YAML
//! or command-line flags.

mod checkpoint;
mod class;
mod epochs;
mod estimate;
mod history;
mod kv_cache;
mod label;
mod local_model;
mod model;
mod order;
mod prefix;
mod quantization;
mod ranks;
mod render;
mod resolve;
mod role;
mod runs;
mod scripted;
mod seed;

pub use class::{SettingClass, VaryingSetting};
pub use estimate::{EpochEstimate, Estimate, estimate};
pub use history::{History, HistoryError, LoadTimes, RunTimes};
pub use model::*;
pub use quantization::QuantizationSwitches;
pub use render::{Detail, render};
pub use resolve::{MAX_PAIR_LOADS, MAX_POINTS, MAX_RUNS, MAX_TOKENS_PER_RUN, Overrides, defaults, resolve};
pub use role::{Arm, PairMember, Role};
pub use runs::PlannedRun;
pub use scripted::of_script;
