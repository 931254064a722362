//! The timeline of a run: all events as they were recorded. Everything reported is a pure function of it.

mod event;
mod run;

pub use event::*;
pub use run::*;
