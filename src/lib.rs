//! `bench` measures a vLLM engine from inside the machine: a persistent engine in a Python sidecar, shared-memory
//! rings between it and this process, and every token stamped in nanoseconds of `CLOCK_MONOTONIC` on the Rust side.
//!
//! Data flows one way: `cli` + [`config`] -> [`plan`] -> [`session`] -> [`ring`] -> [`recorder`] -> [`timeline`] ->
//! [`metrics`] -> [`report`], [`plot`].

// What cannot be printed and a thread that cannot be had are no reasons to panic; `clippy.toml` has the list.
#![cfg_attr(not(test), warn(clippy::disallowed_macros, clippy::disallowed_methods))]

pub mod absent;
pub mod atomic_file;
pub mod bounded_file;
pub mod calibration;
pub mod causes;
pub mod checked_file;
pub mod cli;
pub mod clock;
pub mod comparison;
pub mod conditions;
pub mod config;
pub mod device;
pub mod doctor;
pub mod environment;
pub mod exchange;
pub mod fingerprint;
pub mod load;
pub mod metrics;
pub mod owned_folder;
pub mod plan;
pub mod plan_text;
pub mod plot;
pub mod printable;
pub mod recorder;
pub mod report;
pub mod resolve;
pub mod results;
pub mod ring;
pub mod roofline;
pub mod session;
pub mod statistics;
pub mod telemetry;
pub mod timeline;
pub mod verdict;
