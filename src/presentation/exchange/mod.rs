//! Timelines in the formats of other programs.

pub mod csv;
mod lines;
