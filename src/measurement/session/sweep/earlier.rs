//! What an interrupted sweep has left to do.

use std::collections::BTreeSet;

use crate::measurement::timeline::{Outcome, RunRecord};

/// Runs that were measured before, by a command that did not come to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Planned runs that are finished, by point and repeat.
    pub(super) finished: BTreeSet<(String, u32)>,
    /// The runs that there are, likewise.
    pub(super) taken: BTreeSet<(String, u32)>,
    /// Position of the next run among all.
    pub(super) next_order: u32,
}

impl Earlier {
    /// Takes account of a run that is kept.
    pub fn add(&mut self, run: &RunRecord) {
        let point = || run.point.point.clone();
        self.next_order = self.next_order.max(run.order + 1);
        self.taken.insert((point(), run.repeat));
        if run.outcome == Outcome::Completed {
            self.finished.insert((point(), run.planned_repeat()));
        }
    }

    /// Planned runs that are finished.
    pub fn num_finished(&self) -> usize {
        self.finished.len()
    }
}
