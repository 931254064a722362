//! Telemetry's sources, each against something that stands in for what it reads: files, a library, a service.

mod host;
mod libtpu;
mod machine;
mod nvml;
mod sampling;
