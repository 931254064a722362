//! What a report says of hiccups, and of the ITLs that they lie in.

use serde::Serialize;

use crate::analysis::metrics::{EngineHiccups, Interruptions, RunMetrics, STEP_GAP_HICCUP_NS, TAP_PUSH_HICCUP_NS};
use crate::measurement::recorder::HICCUP_NS;

/// Hiccups in the measured window of a run, or of a point's valid runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HiccupsEntry {
    /// Of the recorder's core; null if the recorder sleeps, or if there were more than could be kept.
    pub recorder: Option<RecorderHiccupsEntry>,
    /// Of the engine's loop; null where steps were not recorded.
    pub engine: Option<EngineHiccupsEntry>,
    /// ITLs in which one of either kind lies; null if neither kind is known.
    pub itl_marked: Option<u64>,
    /// All ITLs.
    pub itl_count: u64,
    /// ITLs above their 99th percentile; null where that is not shown.
    pub itl_above_p99: Option<u64>,
    /// Those of them that are marked.
    pub itl_above_p99_marked: Option<u64>,
}

/// Times in which the recorder did not look at the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RecorderHiccupsEntry {
    /// Longer ones count.
    pub threshold_ns: u64,
    /// How many.
    pub count: u64,
    /// Their lengths together.
    pub total_ns: u64,
    /// The longest; null without any.
    pub max_ns: Option<u64>,
}

/// Times in which the engine's loop was held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EngineHiccupsEntry {
    /// Longer taps and pushes count.
    pub tap_push_threshold_ns: u64,
    /// Longer times between two steps count.
    pub step_gap_threshold_ns: u64,
    /// How many, of the three kinds below.
    pub count: u64,
    /// Lengths of the first two kinds together: that of a switch is not known.
    pub total_ns: u64,
    /// The longest of them; null without any.
    pub max_ns: Option<u64>,
    /// Taps and pushes that took longer than their threshold.
    pub tap_pushes: u64,
    /// Times between two steps that were longer than theirs.
    pub step_gaps: u64,
    /// Steps in which the kernel took the engine's thread off its core.
    pub switched_steps: u64,
}

impl HiccupsEntry {
    /// Of metrics over some run; `None` over none. `shows_p99`: whether the report shows the 99th percentile of the ITL.
    pub fn of(metrics: &RunMetrics, shows_p99: bool) -> Option<HiccupsEntry> {
        let (totals, marks) = (&metrics.totals, &metrics.itl_marks);
        (totals.requests > 0).then(|| HiccupsEntry {
            recorder: totals.recorder_hiccups.map(RecorderHiccupsEntry::of),
            engine: totals.engine_hiccups.as_ref().map(EngineHiccupsEntry::of),
            itl_marked: marks.marked,
            itl_count: marks.count,
            itl_above_p99: shows_p99.then_some(marks.above_p99),
            itl_above_p99_marked: marks.above_p99_marked.filter(|_| shows_p99),
        })
    }
}

impl RecorderHiccupsEntry {
    fn of(hiccups: Interruptions) -> RecorderHiccupsEntry {
        let Interruptions { count, total_ns, max_ns } = hiccups;
        RecorderHiccupsEntry { threshold_ns: HICCUP_NS, count, total_ns, max_ns }
    }
}

impl EngineHiccupsEntry {
    fn of(hiccups: &EngineHiccups) -> EngineHiccupsEntry {
        let timed = hiccups.timed();
        EngineHiccupsEntry {
            tap_push_threshold_ns: TAP_PUSH_HICCUP_NS.into(),
            step_gap_threshold_ns: STEP_GAP_HICCUP_NS,
            count: hiccups.count(),
            total_ns: timed.total_ns,
            max_ns: timed.max_ns,
            tap_pushes: hiccups.tap_pushes.count,
            step_gaps: hiccups.step_gaps.count,
            switched_steps: hiccups.switched_steps,
        }
    }
}
