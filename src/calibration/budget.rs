//! The error budget: by how much a number of a report can be wrong because of the instrument, and what that is made of.

use serde::{Deserialize, Serialize};

use super::{Identity, KnownAnswer, RingTimes, Times};

/// The error of the instrument on one machine, with one wait strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBudget {
    /// For what it holds.
    pub identity: Identity,
    /// When it was measured, RFC 3339.
    pub measured_at: String,
    /// By concurrency, ascending.
    pub rows: Vec<BudgetRow>,
}

/// The budget at one concurrency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetRow {
    /// Requests at once.
    pub concurrency: u32,
    /// Error of a TTFT against the known answer.
    pub ttft_error_ns: Times,
    /// Error of an ITL; null if requests of one token were all there was.
    pub itl_error_ns: Option<Times>,
    /// What the error of a TTFT is made of, medians.
    pub stages: Stages,
}

/// Medians of what a token passes between the engine's having it and the recorder's stamp. Null on a single core, where
/// the ring cannot be measured by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stages {
    /// The tap: from the engine's having the token to its stamp.
    pub tap_ns: i64,
    /// A cache line that changes cores, with the reading of the clock.
    pub cache_line_ns: Option<i64>,
    /// What the ring adds to that.
    pub ring_ns: Option<i64>,
    /// What is left of the measured error.
    pub unexplained_ns: Option<i64>,
}

/// The error bounds of a report's numbers, in the unit of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricErrors {
    /// Of TTFT, and of all else that ends with one stamp, seconds.
    pub ttft_s: f64,
    /// Of ITL, seconds.
    pub itl_s: f64,
}

impl ErrorBudget {
    pub(super) fn of(
        identity: &Identity,
        floor_ns: Option<&Times>,
        ring: &RingTimes,
        answers: &[KnownAnswer],
    ) -> ErrorBudget {
        let rows = answers.iter().map(|answer| BudgetRow {
            concurrency: answer.concurrency,
            ttft_error_ns: answer.ttft_error_ns,
            itl_error_ns: answer.itl_error_ns,
            stages: Stages::of(answer, floor_ns, ring),
        });
        let measured_at = jiff::Timestamp::now().to_string();
        ErrorBudget { identity: identity.clone(), measured_at, rows: rows.collect() }
    }

    /// The bounds for so many requests at once: 99 % of the known answers were within them. Those of the next larger
    /// concurrency that was calibrated, and of the largest beyond it.
    pub fn errors(&self, concurrency: u32) -> Option<MetricErrors> {
        self.errors_at(concurrency, |times| times.p99)
    }

    /// The median errors for so many requests at once: what moves the middle of many stamps. What moves single ones shows in the
    /// spread over runs.
    pub fn typical_errors(&self, concurrency: u32) -> Option<MetricErrors> {
        self.errors_at(concurrency, |times| times.p50)
    }

    fn errors_at(&self, concurrency: u32, of: impl Fn(&Times) -> i64) -> Option<MetricErrors> {
        let row = self.rows.iter().find(|row| row.concurrency >= concurrency).or(self.rows.last())?;
        let ttft_s = of(&row.ttft_error_ns) as f64 / 1e9;
        // Without gaps of its own, an ITL can be wrong at both of its ends.
        let itl_s = row.itl_error_ns.map_or(2.0 * ttft_s, |times| of(&times) as f64 / 1e9);
        Some(MetricErrors { ttft_s, itl_s })
    }
}

impl Stages {
    fn of(answer: &KnownAnswer, floor_ns: Option<&Times>, ring: &RingTimes) -> Stages {
        let cache_line_ns = floor_ns.map(|times| times.p50);
        let ring_ns = ring.gap_1ms_ns.zip(cache_line_ns).map(|(times, line_ns)| times.p50 - line_ns);
        let explained_ns = cache_line_ns.zip(ring_ns).map(|(line_ns, ring_ns)| answer.tap_ns.p50 + line_ns + ring_ns);
        Stages {
            tap_ns: answer.tap_ns.p50,
            cache_line_ns,
            ring_ns,
            unexplained_ns: explained_ns.map(|explained_ns| answer.ttft_error_ns.p50 - explained_ns),
        }
    }
}
