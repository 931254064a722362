//! Objectives that a configuration sets, and whether they are met. An objective that is missed is a result, not a fault.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::analysis::metrics::{Metric, RunMetrics};

/// One objective and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Objective {
    /// The metric's name: `p99_ttft_s`.
    pub metric: String,
    /// The bound: an upper one for times, a lower one for rates.
    pub bound: f64,
    /// The metric's value; null if it was not measured.
    pub value: Option<f64>,
    /// Whether the value keeps the bound; null without a value.
    pub met: Option<bool>,
}

/// The objectives of a point against values of its metrics.
pub fn objectives(slo: &BTreeMap<String, f64>, value: impl Fn(Metric) -> Option<f64>) -> Vec<Objective> {
    let judge = |(name, bound): (&String, &f64)| {
        let metric = Metric::named(name);
        let value = metric.and_then(&value);
        let higher_is_better = metric.is_some_and(Metric::higher_is_better);
        let met = value.map(|value| if higher_is_better { value >= *bound } else { value <= *bound });
        Objective { metric: name.clone(), bound: *bound, value, met }
    };
    slo.iter().map(judge).collect()
}

impl Objective {
    /// The objectives of a run.
    pub fn of_run(slo: &BTreeMap<String, f64>, metrics: &RunMetrics) -> Vec<Objective> {
        objectives(slo, |metric| metric.value(metrics))
    }
}
