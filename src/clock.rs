//! The clock that everything is stamped with, as measured on this machine.

use crate::ring::clock_ns;
use crate::timeline::Clock;

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
