//! What is asked: the configuration, and the plan that it resolves to.

pub mod config;
pub mod fingerprint;
pub mod plan;
pub mod resolve;
