//! What the runs of a point are for, and which points are compared with each other.

use serde::{Deserialize, Serialize};

/// What the runs of a point are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// They are measured for their own sake.
    #[default]
    Measured,
    /// The same work again and again through an epoch, to see whether the machine or the engine drifts.
    Sentinel,
    /// On an engine that was reset after all other runs of its epoch, for the comparison with a fresh one.
    AfterReset,
    /// The same work on a fresh engine of the same settings.
    FreshEngine,
}

impl Role {
    /// Whether the point is measured for its own sake.
    pub fn is_measured(&self) -> bool {
        *self == Role::Measured
    }
}

/// One of the two sides of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The first value of the axis.
    A,
    /// The second.
    B,
}

/// The place of a point in a comparison. The two runs of a pair are those of the same pair and the same round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairMember {
    /// Which pair of points, from 0 in the plan.
    pub pair: u32,
    /// Which side.
    pub arm: Arm,
    /// The setting that is compared.
    pub axis: String,
    /// Its value on this side.
    pub value: String,
}
