//! The timeline of a run: all events as they were recorded. Everything reported is a pure function of it.

pub mod csv;
mod event;
mod lines;
mod run;
mod seal;
mod session;
mod setting;
mod speculation;
pub mod store;
mod weights;

pub use crate::ring::Hiccup;
pub use event::*;
pub use run::*;
pub use session::*;
pub use setting::*;
pub use speculation::*;
pub use weights::*;
