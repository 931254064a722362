//! What a report says of the engine's own stamps against ours.

use serde::Serialize;

use crate::analysis::metrics::CrossCheck;
use crate::statistics::Distribution;

/// The engine's own stamps against ours, by request of the measured phase. Null where no request has the stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CrossCheckEntry {
    /// QUEUED - submitted.
    pub queued_ns: Option<NsRange>,
    /// received(first token) - the engine's stamp of it.
    pub first_token_ns: Option<NsRange>,
    /// received(last token) - the engine's stamp of it.
    pub last_token_ns: Option<NsRange>,
}

/// Four numbers of a set of differences, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NsRange {
    /// Smallest.
    pub min: i64,
    /// Median.
    pub p50: i64,
    /// 99th percentile.
    pub p99: i64,
    /// Largest.
    pub max: i64,
}

impl CrossCheckEntry {
    /// Of the metrics of a run or a point.
    pub fn of(check: &CrossCheck) -> CrossCheckEntry {
        CrossCheckEntry {
            queued_ns: NsRange::of(&check.queued_ns),
            first_token_ns: NsRange::of(&check.first_token_ns),
            last_token_ns: NsRange::of(&check.last_token_ns),
        }
    }
}

impl NsRange {
    fn of(times: &Option<Distribution<i64>>) -> Option<NsRange> {
        times.as_ref().map(|times| NsRange { min: times.min, p50: times.p50, p99: times.p99, max: times.max })
    }
}
