//! Roofline: the bytes and operations that each step needs, and what share of the device's limit the steps reached.
//!
//! A [`Shape`] says what a token costs, [`chunks`] which tokens each step computed, [`Peak`] what the device can do at most,
//! and [`Roofline`] puts them together over the measured window. `docs/roofline.md` has the formulas.

mod chunks;
mod peak;
mod shape;
mod window;

pub use chunks::{Chunk, StepChunks, chunks};
pub use peak::{Arithmetic, DEVICE_PEAKS, DevicePeaks, Peak};
pub use shape::{Shape, Sizes, Work};
pub use window::{PhaseShare, Roofline};
