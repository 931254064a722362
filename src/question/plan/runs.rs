//! The runs of a plan, in the order of execution, and what is counted of them.

use std::collections::{BTreeSet, HashSet};

use super::{Epoch, Plan, Point, Role};
use crate::machine::device::DeviceClass;

impl Plan {
    /// Number of runs that the plan asks for.
    pub fn num_runs(&self) -> usize {
        self.epochs.iter().flat_map(|epoch| &epoch.rounds).map(Vec::len).sum()
    }

    /// The device classes of its engines, each once.
    pub fn device_classes(&self) -> Vec<DeviceClass> {
        let classes: BTreeSet<DeviceClass> = self.epochs.iter().map(|epoch| epoch.key.device).collect();
        classes.into_iter().collect()
    }

    /// Whether the engine of an epoch has to be loaded for it. It does not where it was loaded for an earlier epoch, and
    /// only engines of other device classes, with sidecars of their own, have been measured since.
    pub fn loads_engine(&self, epoch: usize) -> bool {
        let key = &self.epochs[epoch].key;
        let before = self.epochs[..epoch].iter().rposition(|other| other.key.device == key.device);
        // Directly after each other they are to have an engine each.
        before.is_none_or(|before| before + 1 == epoch || self.epochs[before].key != *key)
    }

    /// Whether the engine of an epoch stays loaded after it, for a later one.
    pub fn keeps_engine(&self, epoch: usize) -> bool {
        let device = self.epochs[epoch].key.device;
        let next = (epoch + 1..self.epochs.len()).find(|next| self.epochs[*next].key.device == device);
        next.is_some_and(|next| !self.loads_engine(next))
    }

    /// Number of engine loads among these epochs.
    pub fn num_loads(&self, epochs: std::ops::Range<usize>) -> usize {
        epochs.filter(|epoch| self.loads_engine(*epoch)).count()
    }

    /// Number of points that are measured for their own sake; one that pairs take to several engine loads counts once.
    pub fn num_points(&self) -> usize {
        let points = self.epochs.iter().flat_map(|epoch| &epoch.points).filter(|point| point.role.is_measured());
        points.map(|point| point.point.as_str()).collect::<HashSet<&str>>().len()
    }

    /// Number of runs of points with this role.
    pub fn num_runs_of(&self, role: Role) -> usize {
        self.epochs.iter().flat_map(Epoch::runs).filter(|run| run.point.role == role).count()
    }
}

/// A run that is planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedRun<'p> {
    /// What is run.
    pub point: &'p Point,
    /// In which round, from 0.
    pub round: u32,
    /// Which of the point's runs, from 0.
    pub repeat: u32,
}

impl Epoch {
    /// Its runs in the order of execution.
    pub fn runs(&self) -> impl Iterator<Item = PlannedRun<'_>> {
        let mut of_round = vec![0; self.points.len()];
        let in_order = (self.first_round..).zip(&self.rounds);
        in_order.flat_map(|(round, points)| points.iter().map(move |point| (round, *point))).map(
            move |(round, index)| {
                let point = &self.points[index];
                let nth = of_round[index];
                of_round[index] += 1;
                // Of points that are measured for their own sake, one run in each round.
                PlannedRun { point, round, repeat: if point.role.is_measured() { round } else { nth } }
            },
        )
    }
}
