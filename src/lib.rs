//! `bench` measures a vLLM engine from inside the machine: a persistent engine in a Python sidecar, shared-memory
//! rings between it and this process, and every token stamped in nanoseconds of `CLOCK_MONOTONIC` on the Rust side.
//!
//! Data flows one way: `cli` + [`config`] -> [`plan`] -> [`session`] -> [`ring`] -> [`recorder`] -> [`timeline`] ->
//! [`metrics`] -> [`report`], [`plot`].

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
