//! Two threads, each bound to its core, that begin together.

use std::sync::Barrier;

use super::{CalibrationError, Cores};
use crate::device::pin_current_thread;
use crate::ring::clock_ns;

/// Runs `engine` on the engine's core and `recorder` on the recorder's.
pub(super) fn on_both<E: Send, R: Send>(
    cores: &Cores,
    engine: impl FnOnce() -> E + Send,
    recorder: impl FnOnce() -> R + Send,
) -> Result<(E, R), CalibrationError> {
    let together = &Barrier::new(2);
    std::thread::scope(|scope| {
        let engine = scope.spawn(move || bound(cores.engine, together, engine));
        let recorder = scope.spawn(move || bound(cores.recorder, together, recorder));
        // A panic in one of them is a defect of this program, and goes on as one.
        let engine = engine.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let recorder = recorder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((engine?, recorder?))
    })
}

/// Both sides reach the barrier whether they could be bound or not, so that neither waits for ever; a side that could not
/// does not run, and the other's loops are bounded in time.
fn bound<T>(core: usize, together: &Barrier, work: impl FnOnce() -> T) -> Result<T, CalibrationError> {
    let pinned = pin_current_thread(&[core]);
    together.wait();
    pinned.map_err(|source| CalibrationError::Pin { core, source })?;
    Ok(work())
}

/// Looks at the clock until `at_ns`; when it was reached.
pub(super) fn spin_until(at_ns: u64) -> u64 {
    loop {
        let now_ns = clock_ns();
        if now_ns >= at_ns {
            return now_ns;
        }
    }
}

/// How long a loop of the other side may wait for what never comes.
pub(super) const GIVE_UP_NS: u64 = 10_000_000_000;
