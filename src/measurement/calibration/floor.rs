//! The machine's floor: a time stamp handed over in one cache line, with nothing around it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::pair::{GIVE_UP_NS, on_both, wait_until};
use super::{CalibrationError, Cores, Times};
use crate::machine::device::Placement;
use crate::measurement::ring::clock_ns;

/// Time between two stamps.
const GAP_NS: u64 = 3_000;
/// Stands in the line when nothing follows.
const DONE: u64 = u64::MAX;

/// A cache line of its own, and the one that the prefetcher takes with it.
#[repr(align(128))]
struct Line(AtomicU64);

/// The floor of the machine, from `count` stamps; `None` on one core.
pub(super) fn measure(placement: &Placement, count: usize) -> Result<Option<Times>, CalibrationError> {
    if !Cores::of(placement).are_two() {
        return Ok(None);
    }
    Ok(Times::of(cache_line(placement, GAP_NS, count)?))
}

/// One-way times, in nanoseconds, of `count` stamps that are handed over in a raw cache line, one every `gap_ns`: from
/// reading the clock on the engine's core to reading it on the recorder's, which must be another.
///
/// # Errors
/// [`CalibrationError::Pin`].
pub fn cache_line(placement: &Placement, gap_ns: u64, count: usize) -> Result<Vec<i64>, CalibrationError> {
    let line = Line(AtomicU64::new(0));
    let give_up_ns = clock_ns() + GIVE_UP_NS + count as u64 * gap_ns;
    let (_, samples_ns) = on_both(placement, || send(&line, gap_ns, count), || receive(&line, count, give_up_ns))?;
    Ok(samples_ns)
}

fn send(line: &Line, gap_ns: u64, count: usize) {
    let mut due_ns = clock_ns();
    for _ in 0..count {
        due_ns = wait_until(due_ns + gap_ns);
        line.0.store(clock_ns(), Ordering::Release); // partner: the load in `receive`
    }
    wait_until(due_ns + gap_ns);
    line.0.store(DONE, Ordering::Release); // partner: the load in `receive`
}

/// A stamp that is overwritten before it is seen is lost, and the next one counts.
fn receive(line: &Line, count: usize, give_up_ns: u64) -> Vec<i64> {
    let mut samples_ns = Vec::with_capacity(count);
    let mut last = 0;
    loop {
        let sent_ns = line.0.load(Ordering::Acquire); // partner: the stores in `send`
        if sent_ns == last {
            if clock_ns() > give_up_ns {
                return samples_ns;
            }
            continue;
        }
        let received_ns = clock_ns();
        if sent_ns == DONE {
            return samples_ns;
        }
        samples_ns.push(received_ns as i64 - sent_ns as i64);
        last = sent_ns;
    }
}
