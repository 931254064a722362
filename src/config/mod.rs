//! The configuration file.

mod error;
mod node;
mod source;

pub use error::{ConfigError, Problem};
