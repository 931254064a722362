//! Metrics: pure functions of a timeline. Nobody here reads a clock. `docs/metrics.md` has the definitions.
//!
//! [`Samples`] are the latencies themselves, [`RunMetrics`] what is kept of them in the timeline's own units, and
//! [`Metric`] their names and values in a report.

mod fraction;
mod hiccups;
mod metric;
mod request;
mod run;
mod samples;
mod steady;

pub use fraction::Fraction;
pub use hiccups::*;
pub use metric::{Metric, Series, Spread, Statistic, Total};
pub use request::*;
pub use run::{CrossCheck, ItlMarks, RunMetrics, pooled};
pub use samples::{Samples, Share, Totals, Window};

use crate::measurement::timeline::Timeline;

impl RunMetrics {
    /// The metrics of one timeline.
    pub fn of_timeline(timeline: &Timeline) -> RunMetrics {
        RunMetrics::of(&[Samples::of(timeline)])
    }
}
