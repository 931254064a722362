//! What an interrupted sweep has left to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::timeline::{Outcome, RunRecord};

/// Runs that were measured before, by a command that did not come to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Planned runs that are finished, by point and round.
    pub(super) finished: BTreeSet<(String, u32)>,
    /// Position of the next run among all.
    pub(super) next_order: u32,
    /// By point, repeats beyond the planned ones that are taken.
    pub(super) extra_repeats: BTreeMap<String, u32>,
}

impl Earlier {
    /// Takes account of a run that is kept.
    pub fn add(&mut self, run: &RunRecord) {
        self.next_order = self.next_order.max(run.order + 1);
        if run.outcome == Outcome::Completed {
            self.finished.insert((run.point.point.clone(), run.round));
        }
        if let Some(extra) = (run.repeat + 1).checked_sub(run.point.repeats).filter(|extra| *extra > 0) {
            let taken = self.extra_repeats.entry(run.point.point.clone()).or_insert(0);
            *taken = extra.max(*taken);
        }
    }

    /// Planned runs that are finished.
    pub fn num_finished(&self) -> usize {
        self.finished.len()
    }
}
