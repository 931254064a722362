//! What a comparison of one metric comes to.

use serde::Serialize;

use crate::statistics::PairedEffect;

/// What is decided of B against A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Shorter times, or higher rates.
    Faster,
    /// Longer times, or lower rates.
    Slower,
    /// The interval holds no difference that matters.
    Equivalent,
    /// No difference that this instrument and this number of pairs can see.
    NoDifference,
    /// Too few pairs, or too few samples, to decide anything.
    Insufficient,
    /// Two results that were not interleaved.
    Unverified,
}

impl Decision {
    /// In words, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Faster => "faster",
            Decision::Slower => "slower",
            Decision::Equivalent => "equivalent",
            Decision::NoDifference => "no difference seen",
            Decision::Insufficient => "not decided",
            Decision::Unverified => "unverified",
        }
    }

    /// What an effect comes to. `is_seen` tells whether it is larger than the instrument's own error.
    pub(super) fn of(effect: Option<&PairedEffect>, higher_is_better: bool, threshold: f64, is_seen: bool) -> Decision {
        let Some(effect) = effect else { return Decision::Insufficient };
        match (leaves_1_out(effect) && is_seen, is_equivalent(effect, threshold)) {
            (true, _) if (effect.ratio > 1.0) == higher_is_better => Decision::Faster,
            (true, _) => Decision::Slower,
            (false, true) => Decision::Equivalent,
            (false, false) => Decision::NoDifference,
        }
    }
}

/// Whether the interval speaks for a difference.
pub(super) fn leaves_1_out(effect: &PairedEffect) -> bool {
    effect.low > 1.0 || effect.high < 1.0
}

/// Whether the whole interval lies within 1 / (1 + threshold) and 1 + threshold.
pub(super) fn is_equivalent(effect: &PairedEffect, threshold: f64) -> bool {
    effect.high < 1.0 + threshold && effect.low > 1.0 / (1.0 + threshold)
}
