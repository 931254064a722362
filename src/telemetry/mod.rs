//! Telemetry: what the machine says of itself while a run goes on, on a thread of its own.
//!
//! [`Telemetry`] holds the sources that a device class has, [`Sampling`] reads them at a rate until it is stopped, and
//! [`WindowTelemetry`] is what the samples say of a measured window. `docs/telemetry.md` has the quantities.

mod host;
mod libtpu;
mod nvml;
mod sample;
mod sampling;
mod store;
mod throttling;
mod window;

pub use host::HostRoot;
pub use sample::{DeviceKind, Quantity, Sample, SampledDevice, TelemetryRecord};
pub use sampling::{Places, Sampling, Telemetry};
pub use store::{read_samples, write_samples};
pub use throttling::throttled_times;
pub use window::{Counted, DeviceTelemetry, Gauge, ThrottleReason, WindowTelemetry};

/// Samples a second where the configuration asks for none in particular.
pub const DEFAULT_HZ: u32 = 10;
/// Most samples a second: reading all sources takes up to a millisecond.
pub const MAX_HZ: u32 = 100;
