//! Arrival processes: which staged request is due when.

/// A closed loop: at most `concurrency` requests in flight, and the next one is due the instant one has finished.
///
/// It hands out the requests of one phase in their staged order, by index.
#[derive(Clone, Debug)]
pub struct ClosedLoop {
    next: u32,
    end: u32,
    concurrency: u32,
}

impl ClosedLoop {
    /// The requests `first..first + count`; `concurrency` of `None` wants them all at once.
    pub fn new(first: u32, count: u32, concurrency: Option<u32>) -> ClosedLoop {
        ClosedLoop { next: first, end: first + count, concurrency: concurrency.unwrap_or(count).max(1) }
    }

    /// The requests that are due at the start of the phase.
    pub fn start(&mut self) -> std::ops::Range<u32> {
        let first = self.next;
        self.next = self.end.min(first.saturating_add(self.concurrency));
        first..self.next
    }

    /// The request that is due because one has finished.
    pub fn finished(&mut self) -> Option<u32> {
        (self.next < self.end).then(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_at_once_leaves_nothing_for_later() {
        let mut load = ClosedLoop::new(3, 4, None);
        assert_eq!(load.start(), 3..7);
        assert_eq!(load.finished(), None);
    }

    #[test]
    fn a_slot_is_refilled_until_the_requests_run_out() {
        let mut load = ClosedLoop::new(0, 3, Some(2));
        assert_eq!(load.start(), 0..2);
        assert_eq!(load.finished(), Some(2));
        assert_eq!(load.finished(), None);
    }

    #[test]
    fn more_slots_than_requests_is_all_at_once() {
        assert_eq!(ClosedLoop::new(0, 3, Some(8)).start(), 0..3);
    }
}
