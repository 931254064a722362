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
    /// The same where the recorder watched: without the calibration's own stalls. Null in budgets of older versions, and for a
    /// recorder that sleeps.
    #[serde(default)]
    pub ttft_error_watched_ns: Option<Times>,
    /// Error of an ITL; null if requests of one token were all there was.
    pub itl_error_ns: Option<Times>,
    /// The same where the recorder watched at both ends.
    #[serde(default)]
    pub itl_error_watched_ns: Option<Times>,
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
            ttft_error_watched_ns: answer.ttft_error_watched_ns,
            itl_error_ns: answer.itl_error_ns,
            itl_error_watched_ns: answer.itl_error_watched_ns,
            stages: Stages::of(answer, floor_ns, ring),
        });
        let measured_at = jiff::Timestamp::now().to_string();
        ErrorBudget { identity: identity.clone(), measured_at, rows: rows.collect() }
    }

    /// The bounds for so many requests at once: 99 % of the known answers were within them, of those that the recorder watched
    /// for where these are known. Those of the next larger concurrency that was calibrated, and of the largest beyond it.
    pub fn errors(&self, concurrency: u32) -> Option<MetricErrors> {
        self.errors_at(concurrency, |times| times.p99)
    }

    /// The median errors for so many requests at once: what moves the middle of many stamps. What moves single ones shows in the
    /// spread over runs.
    pub fn typical_errors(&self, concurrency: u32) -> Option<MetricErrors> {
        self.errors_at(concurrency, |times| times.p50)
    }

    /// Whether the bounds for so many requests at once are of answers that the recorder watched for. Otherwise the calibration's
    /// own stalls are in them.
    pub fn is_watched(&self, concurrency: u32) -> bool {
        self.row(concurrency).is_some_and(BudgetRow::is_watched)
    }

    /// Whether this is so at every concurrency.
    pub(super) fn is_watched_everywhere(&self) -> bool {
        self.rows.iter().all(BudgetRow::is_watched)
    }

    fn row(&self, concurrency: u32) -> Option<&BudgetRow> {
        self.rows.iter().find(|row| row.concurrency >= concurrency).or(self.rows.last())
    }

    fn errors_at(&self, concurrency: u32, of: impl Fn(&Times) -> i64) -> Option<MetricErrors> {
        let row = self.row(concurrency)?;
        let [ttft, itl] = row.bounds();
        let ttft_s = of(&ttft.unwrap_or(row.ttft_error_ns)) as f64 / 1e9;
        // Without gaps of its own, an ITL can be wrong at both of its ends.
        let itl_s = itl.or(row.itl_error_ns).map_or(2.0 * ttft_s, |times| of(&times) as f64 / 1e9);
        Some(MetricErrors { ttft_s, itl_s })
    }
}

impl BudgetRow {
    /// The errors of TTFT and ITL where the recorder watched. A stall of the calibration is not in them; that of a run is in the
    /// bounds of the numbers that the run's own late stamps moved. `None` where it watched for less than half of the answers:
    /// what is left then is no sample of all.
    fn bounds(&self) -> [Option<Times>; 2] {
        let watched = |watched: Option<Times>, all: Option<Times>| {
            watched.zip(all).filter(|(watched, all)| 2 * watched.count >= all.count).map(|(watched, _)| watched)
        };
        [
            watched(self.ttft_error_watched_ns, Some(self.ttft_error_ns)),
            watched(self.itl_error_watched_ns, self.itl_error_ns),
        ]
    }

    fn is_watched(&self) -> bool {
        let [ttft, itl] = self.bounds();
        ttft.is_some() && (itl.is_some() || self.itl_error_ns.is_none())
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

#[cfg(test)]
mod tests {
    use super::super::Cores;
    use super::*;
    use crate::machine::device::WaitStrategy;

    /// A calibration of eight requests, in which the recorder lost its core for 4 ms; `watched` tokens were not hit.
    fn with_a_stall(watched: u64) -> ErrorBudget {
        let stalled = Times { count: 24, p50: 500, p99: 4_000_000, max: 4_000_000 };
        let quiet = Times { count: watched, p50: 450, p99: 1_100, max: 1_100 };
        let row = BudgetRow {
            concurrency: 8,
            ttft_error_ns: stalled,
            ttft_error_watched_ns: Some(quiet),
            itl_error_ns: Some(stalled),
            itl_error_watched_ns: Some(quiet),
            stages: Stages { tap_ns: 100, cache_line_ns: None, ring_ns: None, unexplained_ns: None },
        };
        ErrorBudget {
            identity: Identity {
                host: "host".to_owned(),
                cores: Cores { engine: 0, recorder: 1 },
                build: "0.1.0".to_owned(),
                wait_strategy: WaitStrategy::Spin,
            },
            measured_at: "2026-01-01T00:00:00Z".to_owned(),
            rows: vec![row],
        }
    }

    #[test]
    fn stall_of_a_calibration_is_in_no_bound_where_the_recorder_watched() {
        let budget = with_a_stall(22);
        assert!(budget.is_watched(8) && budget.is_watched_everywhere());
        assert_eq!(budget.errors(8), Some(MetricErrors { ttft_s: 1.1e-6, itl_s: 1.1e-6 }));
        assert_eq!(budget.typical_errors(8), Some(MetricErrors { ttft_s: 0.45e-6, itl_s: 0.45e-6 }));
    }

    #[test]
    fn bounds_are_of_all_answers_where_the_recorder_watched_for_few_or_slept() {
        let mut older = with_a_stall(22);
        (older.rows[0].ttft_error_watched_ns, older.rows[0].itl_error_watched_ns) = (None, None);
        for budget in [with_a_stall(11), older] {
            assert!(!budget.is_watched(1) && !budget.is_watched_everywhere());
            assert_eq!(budget.errors(8), Some(MetricErrors { ttft_s: 4e-3, itl_s: 4e-3 }));
        }
    }
}
