//! `bench` measures a vLLM engine from inside the machine: a persistent engine in a Python sidecar, shared-memory
//! rings between it and this process, and every token stamped in nanoseconds of `CLOCK_MONOTONIC` on the Rust side.
//!
//! Data flows one way: `cli` + [`config`] -> [`plan`] -> session -> ring -> recorder -> [`timeline`] -> metrics ->
//! report.

pub mod config;
pub mod device;
pub mod plan;
pub mod timeline;
