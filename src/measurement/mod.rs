//! What measures: engines, rings, the recorder, and the timeline that they leave.

pub mod calibration;
pub mod clock;
pub mod load;
pub mod recorder;
pub mod results;
pub mod ring;
pub mod session;
pub mod telemetry;
pub mod timeline;
