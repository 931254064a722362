//! Two threads, each bound to its core, that begin together.

use std::io;
use std::sync::Barrier;
use std::thread::Builder;
use std::time::Duration;

use super::CalibrationError;
use crate::machine::device::{Placement, StartGate};
use crate::measurement::ring::clock_ns;

/// Runs `engine` on the engine's core and `recorder` on the recorder's, with the priorities that they have in a run. Both
/// begin together, and both must end by themselves.
///
/// # Errors
/// [`CalibrationError::Pin`] if one could not be bound; the other has run then. [`CalibrationError::Thread`] if one could not
/// be started; neither has run then.
pub fn on_both<E: Send, R: Send>(
    placement: &Placement,
    engine: impl FnOnce() -> E + Send,
    recorder: impl FnOnce() -> R + Send,
) -> Result<(E, R), CalibrationError> {
    let (gate, together) = (&StartGate::default(), &Barrier::new(2));
    std::thread::scope(|scope| {
        let starting = gate.close();
        let engine = move || seated(gate, || placement.seat_engine(), together, engine);
        let engine = Builder::new().spawn_scoped(scope, engine).map_err(CalibrationError::Thread)?;
        let recorder = move || seated(gate, || seat_recorder(placement), together, recorder);
        let recorder = Builder::new().spawn_scoped(scope, recorder).map_err(CalibrationError::Thread)?;
        starting.open();
        // A panic in one of them is a defect of this program, and goes on as one.
        let engine = engine.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let recorder = recorder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((engine?, recorder?))
    })
}

/// Without a core of its own the recorder shares the engine's.
fn seat_recorder(placement: &Placement) -> Result<(), String> {
    let seat = placement.seat_recorder();
    match placement.recorder_core {
        Some(_) => seat.not_pinned.map_or(Ok(()), Err),
        None => placement.seat_engine(),
    }
}

/// Both sides reach the barrier whether they could be bound or not, so that neither waits for ever; a side that could not
/// does not run, and the other's loops are bounded in time.
fn seated<T>(
    gate: &StartGate,
    take_seat: impl FnOnce() -> Result<(), String>,
    together: &Barrier,
    work: impl FnOnce() -> T,
) -> Result<T, CalibrationError> {
    if !gate.wait() {
        return Err(CalibrationError::Thread(io::ErrorKind::WouldBlock.into()));
    }
    let seat = take_seat();
    together.wait();
    seat.map_err(CalibrationError::Pin)?;
    Ok(work())
}

/// How long before a time that is waited for its thread is awake again.
const AWAKE_NS: u64 = 300_000;

/// Sleeps until shortly before `at_ns`, then looks at the clock; when it was reached. A thread that spun through gaps of a
/// millisecond would leave the system's other work, on a machine of two cores, none but the receiver's.
pub fn wait_until(at_ns: u64) -> u64 {
    let sleep_ns = at_ns.saturating_sub(clock_ns() + AWAKE_NS);
    if sleep_ns > 0 {
        std::thread::sleep(Duration::from_nanos(sleep_ns));
    }
    loop {
        let now_ns = clock_ns();
        if now_ns >= at_ns {
            return now_ns;
        }
    }
}

/// How long a loop of the other side may wait for what never comes.
pub(super) const GIVE_UP_NS: u64 = 10_000_000_000;
