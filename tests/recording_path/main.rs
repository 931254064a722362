//! The recording path allocates nothing, and makes no system call but those of a sleep.

mod allocations;
mod rehearsal;
mod system_calls;
