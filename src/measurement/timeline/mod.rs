//! The timeline of a run: all events as they were recorded. Everything reported is a pure function of it.

mod event;
mod run;
pub(crate) mod seal;
mod setting;
mod speculation;
pub mod store;
mod weights;

pub use crate::measurement::ring::Hiccup;
pub use event::*;
pub use run::*;
pub use setting::*;
pub use speculation::*;
pub use weights::*;
