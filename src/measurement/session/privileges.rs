//! What the system grants to a measurement, found by trying before anything is measured.

use super::SessionError;
use super::engine::Rings;
use crate::machine::device::{Placement, RecorderSeat};

/// What this process may do for its recorder and its rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// The recorder's nice value; `None` if it was not raised.
    pub recorder_priority: Option<i32>,
    /// A sentence for each of pinning, priority and memory locking that the system refused.
    pub not_permitted: Vec<String>,
}

impl Privileges {
    /// Tries everything, on a thread and on rings that are given up at once.
    ///
    /// # Errors
    /// The rings could not be made at all.
    pub fn try_out(placement: &Placement) -> Result<Privileges, SessionError> {
        let mut seat = RecorderSeat::default();
        std::thread::scope(|scope| {
            let tried = std::thread::Builder::new().spawn_scoped(scope, || seat = placement.seat_recorder());
            tried.map(drop).map_err(SessionError::io("starting a thread for the recorder"))
        })?;
        let not_locked = (!Rings::can_be_locked()?).then(not_locked);
        let refused = [seat.not_pinned, seat.not_raised, not_locked];
        Ok(Privileges { recorder_priority: seat.nice, not_permitted: refused.into_iter().flatten().collect() })
    }
}

fn not_locked() -> String {
    "memory locking: the rings could not be locked in memory (it takes a larger RLIMIT_MEMLOCK, `ulimit -l`)".to_owned()
}
