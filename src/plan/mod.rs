//! The resolved plan: what will be measured, in which order, on which engines. Nothing downstream of it sees YAML
//! or command-line flags.

mod model;

pub use model::*;
