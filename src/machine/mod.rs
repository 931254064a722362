//! What the measurement runs on: devices, Python environments, and what the machine has of both.

pub mod device;
pub mod doctor;
pub mod environment;
