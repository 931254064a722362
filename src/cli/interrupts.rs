//! Ctrl-C and SIGTERM: the first finishes the run and leaves, the second leaves now.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Counts the user's interrupts.
pub(super) struct UserInterrupts {
    interrupt: Signal,
    terminate: Signal,
    seen: u32,
}

impl UserInterrupts {
    /// Listens from now on; must be called inside the runtime.
    pub(super) fn listen() -> io::Result<UserInterrupts> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(UserInterrupts { interrupt, terminate, seen: 0 })
    }

    /// How many there were.
    pub(super) fn seen(&self) -> u32 {
        self.seen
    }

    /// Waits for the next one. Cancelling it loses none.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.seen += 1;
    }
}
