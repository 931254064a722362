//! The conditions of a measured window: what the telemetry of a run says of the machine in it.

mod throttling;
mod window;

pub use throttling::throttled_times;
pub use window::{Counted, DeviceTelemetry, Gauge, ThrottleReason, WindowTelemetry};
