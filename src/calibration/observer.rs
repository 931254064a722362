//! The observer effect: by how much a step of a real engine is slower for being observed.

use serde::{Deserialize, Serialize};

use super::CalibrationError;
use crate::session::{EngineSpec, ObservedSteps, Sidecar, SidecarOptions};
use crate::statistics::{TrimmedMean, trimmed_mean};

/// Batch sizes of which the effect is measured.
const BATCHES: [u32; 3] = [1, 8, 64];
/// Share of the rounds that is left out at either end: steps that the host interrupted are no effect of ours.
const TRIM: f64 = 0.2;

/// The effect on the steps of one batch size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObserverEffect {
    /// Requests in the batch.
    pub batch: u32,
    /// Rounds, each with one step of every way.
    pub rounds: u64,
    /// Step time without the tap, median, nanoseconds.
    pub step_ns: u64,
    /// Change of the step time by the tap: the driver's loop with it against the same loop without it.
    #[serde(flatten)]
    pub tap: Change,
    /// Change of all that bench adds, against a bare loop over EngineCore's step function.
    pub against_engine_core: Change,
    /// The same against a bare loop over LLMEngine.step(), which also makes request outputs.
    pub against_llm_engine: Change,
    /// Instructions of the engine's thread that the tap adds to a step, in per cent; null where they are not counted.
    pub instructions_change_pct: Option<f64>,
}

/// A change in per cent with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The change.
    pub change_pct: f64,
    /// Lower end.
    pub ci_low_pct: f64,
    /// Upper end.
    pub ci_high_pct: f64,
}

/// Measures the effect on the engine that `spec` describes, with `rounds` steps of each way at every batch size.
///
/// # Errors
/// [`CalibrationError`]: the engine cannot be loaded, or does not take the batch.
pub async fn observer_effect(
    options: &SidecarOptions,
    spec: &EngineSpec,
    rounds: u32,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<ObserverEffect>, CalibrationError> {
    say("loading vLLM, to observe its steps");
    let mut sidecar = Sidecar::start(options).await?;
    let mut engine = sidecar.load(spec).await?;
    let mut effects = Vec::new();
    for batch in BATCHES {
        say(&format!("steps of {batch} requests, with and without the tap in random order"));
        let steps = engine.observe(batch, rounds, &options.placement).await?;
        let missing = || CalibrationError::Answer { concurrency: batch, problem: "no steps were taken".to_owned() };
        effects.push(effect(batch, &steps).ok_or_else(missing)?);
    }
    engine.shutdown().await;
    sidecar.shutdown().await;
    Ok(effects)
}

fn effect(batch: u32, steps: &ObservedSteps) -> Option<ObserverEffect> {
    let of = |way: &str| steps.times_ns.get(way).map(Vec::as_slice);
    let on = of("on")?;
    let mut off = of("off")?.to_vec();
    let counted = steps.instructions.as_ref();
    let instructions_change_pct = counted.and_then(|ways| Some(change(ways.get("on")?, ways.get("off")?)?.change_pct));
    let effect = ObserverEffect {
        batch,
        rounds: on.len() as u64,
        tap: change(on, &off)?,
        against_engine_core: change(on, of("engine_core")?)?,
        against_llm_engine: change(on, of("llm_engine")?)?,
        instructions_change_pct,
        step_ns: {
            off.sort_unstable();
            *off.get(off.len() / 2)?
        },
    };
    Some(effect)
}

/// Trimmed mean of the logarithms of the rounds' ratios, as a change in per cent.
fn change(with: &[u64], without: &[u64]) -> Option<Change> {
    let ratios: Vec<f64> =
        with.iter().zip(without).map(|(with, without)| (*with as f64 / *without as f64).ln()).collect();
    let TrimmedMean { mean, low, high } = trimmed_mean(&ratios, TRIM)?;
    let pct = |log: f64| (log.exp() - 1.0) * 100.0;
    Some(Change { change_pct: pct(mean), ci_low_pct: pct(low), ci_high_pct: pct(high) })
}
