//! Telemetry: what the machine says of itself while a run goes on, on a thread of its own.
//!
//! [`Telemetry`] holds the sources that a device class has, [`Sampling`] reads them at a rate until it is stopped. What the
//! samples say of a measured window is in [`crate::analysis::conditions`]. `docs/telemetry.md` has the quantities.

mod host;
mod libtpu;
mod nvml;
mod sample;
mod sampling;
mod store;

pub use host::HostRoot;
pub use sample::{DeviceKind, Quantity, Sample, SampledDevice, TelemetryRecord};
pub use sampling::{Places, Sampling, Telemetry};
pub use store::{read_samples, write_samples};
