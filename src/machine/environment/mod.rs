//! The Python that an engine runs on: one that the user names, or one that `bench` makes and keeps; and what the
//! sidecar needs beside it.

pub mod assets;
mod base;
mod error;
mod host;
mod installation;
mod interpreter;
mod lock;
mod managed;
mod process;
mod progress;
#[cfg(test)]
mod testing;
mod uv;

pub use error::EnvironmentError;
pub use host::Host;
pub use interpreter::{Interpreter, PythonVersion, VllmSource};
pub use lock::Lock;
pub use managed::{ManagedState, is_managed, managed, managed_state};
pub(crate) use progress::gib;
pub use progress::{OnProgress, Progress};
