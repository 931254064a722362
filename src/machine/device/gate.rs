//! Threads that begin together, or not at all.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Holds threads back until all of them are started. Without it, a thread that the system does not grant would leave the
/// others at their barrier for ever.
#[derive(Debug, Default)]
pub struct StartGate(Mutex<bool>);

impl StartGate {
    /// Closes the gate while threads are started. [`Starting::open`] lets them begin; dropped, it sends them home.
    pub fn close(&self) -> Starting<'_> {
        Starting(self.state())
    }

    /// In a thread: waits until the gate is open. False if a thread is missing, and no thread may begin.
    pub fn wait(&self) -> bool {
        *self.state()
    }

    fn state(&self) -> MutexGuard<'_, bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // a flag has no half-written state
    }
}

/// A gate that is closed.
#[derive(Debug)]
pub struct Starting<'a>(MutexGuard<'a, bool>);

impl Starting<'_> {
    /// All threads are started: they begin.
    pub fn open(mut self) {
        *self.0 = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_missing_sends_the_others_home() {
        let has_begun = |all_started: bool| {
            let gate = StartGate::default();
            std::thread::scope(|scope| {
                let starting = gate.close();
                let thread = scope.spawn(|| gate.wait());
                if all_started {
                    starting.open()
                } else {
                    drop(starting)
                }
                thread.join().unwrap()
            })
        };
        assert!(has_begun(true));
        assert!(!has_begun(false));
    }
}
