//! How long a plan will take, from measurements alone.

use std::collections::BTreeMap;

use super::history::{EngineHistory, PointHistory, batch_of};
use super::{EngineKey, Epoch, History, Plan, Point};
use crate::statistics::Spread;

/// How long each part of a plan will take, as far as it has been measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// In the order of the plan's epochs; `None` where this engine has never been measured on this machine.
    pub epochs: Vec<Option<EpochEstimate>>,
    /// Seconds to import vLLM once for each device class; `None` where one of them was never timed on this machine.
    pub imports_s: Option<f64>,
    /// By metric, how much B / A spread in each pair of points; `None` unless every pair has been measured on this machine, and
    /// where an engine is loaded between the members of a pair: how loads differ was not measured.
    pub pair_spreads: Option<BTreeMap<String, Vec<Spread>>>,
}

/// How long an epoch will take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochEstimate {
    /// Whether the engine has to be loaded for it.
    pub is_loaded: bool,
    /// Seconds to load the engine: those of its latest load.
    pub load_s: f64,
    /// Seconds of warming up the new engine; `None` if that was never timed.
    pub warm_up_s: Option<f64>,
    /// Seconds of all runs.
    pub runs_s: f64,
    /// Runs of points that have themselves been measured.
    pub measured_runs: usize,
    /// Runs that are worked out from the rates of other points on the same engine.
    pub derived_runs: usize,
}

impl Estimate {
    /// Seconds of the whole plan; `None` if any epoch is not known. The import and a warm-up count as far as they are known.
    pub fn total_s(&self) -> Option<f64> {
        let epochs_s: Option<f64> = self.epochs.iter().map(|epoch| epoch.as_ref().map(EpochEstimate::total_s)).sum();
        epochs_s.map(|epochs_s| self.imports_s.unwrap_or(0.0) + epochs_s)
    }
}

impl EpochEstimate {
    /// Seconds of the epoch: load and warm-up where it takes one, and runs.
    pub fn total_s(&self) -> f64 {
        self.of_load_s(self.load_s + self.warm_up_s.unwrap_or(0.0)) + self.runs_s
    }

    /// Those seconds of a load, if it takes one.
    pub(crate) fn of_load_s(&self, seconds: f64) -> f64 {
        if self.is_loaded { seconds } else { 0.0 }
    }
}

/// Estimates `plan` on a machine with `cores` cores from what `history` holds.
pub fn estimate(plan: &Plan, history: &History, cores: usize) -> Estimate {
    let of_epoch = |(index, epoch): (usize, &Epoch)| {
        let engine = history.engine(&epoch.key, cores)?;
        estimate_epoch(epoch, engine, plan.loads_engine(index))
    };
    let imports_s = plan.device_classes().into_iter().map(|device| history.import_s(device)).sum();
    let epochs = plan.epochs.iter().enumerate().map(of_epoch).collect();
    Estimate { epochs, imports_s, pair_spreads: pair_spreads(plan, history, cores) }
}

fn pair_spreads(plan: &Plan, history: &History, cores: usize) -> Option<BTreeMap<String, Vec<Spread>>> {
    // Both members of each pair, whichever epochs they are in.
    let mut members: BTreeMap<u32, BTreeMap<_, (&PointHistory, &EngineKey)>> = BTreeMap::new();
    for epoch in &plan.epochs {
        for (point, member) in epoch.points.iter().filter_map(|point| Some((point, point.pair.as_ref()?))) {
            let measured = history.engine(&epoch.key, cores)?.point(point)?;
            members.entry(member.pair).or_default().insert(member.arm, (measured, &epoch.key));
        }
    }
    let mut spreads: BTreeMap<String, Vec<Spread>> = BTreeMap::new();
    for pair in members.values() {
        let [(a, key_of_a), (b, key_of_b)] = pair.values().collect::<Vec<_>>().try_into().ok()?;
        if key_of_a != key_of_b {
            return None;
        }
        for (metric, of_a) in &a.spreads {
            spreads
                .entry(metric.clone())
                .or_default()
                .extend(b.spreads.get(metric).map(|of_b| Spread::of_pair(*of_a, *of_b)));
        }
    }
    spreads.retain(|_, of_pairs| of_pairs.len() == members.len());
    Some(spreads).filter(|spreads| !spreads.is_empty())
}

fn estimate_epoch(epoch: &Epoch, engine: &EngineHistory, is_loaded: bool) -> Option<EpochEstimate> {
    let (load_s, warm_up_s) = (engine.load_s, engine.warm_up_s);
    let mut estimate = EpochEstimate { is_loaded, load_s, warm_up_s, runs_s: 0.0, measured_runs: 0, derived_runs: 0 };
    let rates = Rates::of(engine)?;
    let mut runs_of = vec![0; epoch.points.len()];
    for point in epoch.rounds.iter().flatten() {
        runs_of[*point] += 1;
    }
    for (point, runs) in epoch.points.iter().zip(runs_of) {
        let run_s = match engine.point(point) {
            Some(measured) => {
                estimate.measured_runs += runs;
                measured.run_s
            }
            None => {
                estimate.derived_runs += runs;
                rates.run_s(point)
            }
        };
        estimate.runs_s += run_s * runs as f64;
    }
    Some(estimate)
}

/// What an engine's measured points say about one that was not measured.
struct Rates<'h> {
    /// Mean seconds of a run that no step accounts for.
    overhead_s: f64,
    prefill_s_per_token: f64,
    /// Points that took steps without prompt tokens.
    decoding: Vec<&'h PointHistory>,
}

impl<'h> Rates<'h> {
    /// `None` if nothing but a load has been measured.
    fn of(engine: &'h EngineHistory) -> Option<Rates<'h>> {
        let points: Vec<&PointHistory> = engine.points.values().collect();
        if points.is_empty() {
            return None;
        }
        let sum = |value: fn(&PointHistory) -> f64| points.iter().map(|point| value(point)).sum::<f64>();
        let prefill_tokens = sum(|point| point.prefill_tokens);
        Some(Rates {
            overhead_s: sum(|point| (point.run_s - point.prefill_s - point.decode_s).max(0.0)) / points.len() as f64,
            prefill_s_per_token: if prefill_tokens > 0.0 { sum(|point| point.prefill_s) / prefill_tokens } else { 0.0 },
            decoding: points.into_iter().filter(|point| point.decode_steps > 0.0).collect(),
        })
    }

    /// Overhead, prompt tokens at the mean rate, and the steps of every wave of requests, each as long as at the
    /// measured batch that is nearest in ratio.
    fn run_s(&self, point: &Point) -> f64 {
        let batch = batch_of(point);
        let waves = point.num_prompts.div_ceil(batch);
        let steps = f64::from(waves) * f64::from(point.output_len.saturating_sub(1));
        let distance = |measured: &PointHistory| (f64::from(measured.batch) / f64::from(batch)).ln().abs();
        let nearest = self.decoding.iter().min_by(|one, other| distance(one).total_cmp(&distance(other)));
        let step_s = nearest.map_or(0.0, |measured| measured.decode_s / measured.decode_steps);
        let new_tokens =
            f64::from(point.num_prompts) * f64::from(point.input_len - point.prefix_len.min(point.input_len));
        let prefill_tokens = new_tokens + f64::from(point.prefix_len) * f64::from(point.primed_prefixes());
        self.overhead_s + prefill_tokens * self.prefill_s_per_token + steps * step_s
    }
}
