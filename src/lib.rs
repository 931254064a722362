//! `bench` measures a vLLM engine from inside the machine: a persistent engine in a Python sidecar, shared-memory
//! rings between it and this process, and every token stamped in nanoseconds of `CLOCK_MONOTONIC` on the Rust side.
//!
//! Data flows one way, through rooms that a newcomer finds by asking what happens to it:
//!
//! | room | what is in it |
//! |---|---|
//! | [`question`] | what is asked: the configuration, and the plan that it resolves to |
//! | [`measurement`] | what measures: engines, rings, the recorder, and the timeline that they leave |
//! | [`analysis`] | what is worked out from a timeline: metrics, causes, and the verdict |
//! | [`presentation`] | what is shown: reports, comparisons, charts, and files for other programs |
//! | [`cli`] | the command `bench` |
//!
//! Below them stand [`base`] (files and texts), [`machine`] (devices and Python environments) and [`statistics`]. A module
//! uses only modules that stand before it in the list of `tests/tidy/layers.rs`.

// What cannot be printed and a thread that cannot be had are no reasons to panic; `clippy.toml` has the list.
#![cfg_attr(not(test), warn(clippy::disallowed_macros, clippy::disallowed_methods))]

pub mod analysis;
pub mod base;
pub mod cli;
pub mod machine;
pub mod measurement;
pub mod presentation;
pub mod question;
pub mod statistics;
