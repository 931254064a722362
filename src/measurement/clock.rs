//! The clock that everything is stamped with, as measured on this machine.

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::measurement::ring::clock_ns;

/// A clock, as measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// Its name: `CLOCK_MONOTONIC`.
    pub name: String,
    /// Smallest difference that it shows, in nanoseconds.
    pub resolution_ns: f64,
    /// What one reading costs, in nanoseconds.
    pub read_ns: f64,
}

/// Readings in one measurement; about a millisecond in all.
const READINGS: usize = 20_000;

/// Measures the resolution (smallest step seen) and the cost of one reading of CLOCK_MONOTONIC.
pub fn measure() -> Clock {
    let mut smallest_ns = u64::MAX;
    let began_ns = clock_ns();
    let mut last_ns = began_ns;
    for _ in 0..READINGS {
        let now_ns = clock_ns();
        if now_ns > last_ns {
            smallest_ns = smallest_ns.min(now_ns - last_ns);
        }
        last_ns = now_ns;
    }
    let read_ns = (last_ns - began_ns) as f64 / READINGS as f64;
    Clock { name: "CLOCK_MONOTONIC".to_owned(), resolution_ns: smallest_ns as f64, read_ns }
}

/// Processor time that the calling thread has used, in nanoseconds. Every Linux has this clock.
pub(crate) fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
