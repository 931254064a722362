//! The observer effect: by how much a step of a real engine is slower for being observed.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::CalibrationError;
use crate::machine::device::Placement;
use crate::measurement::session::{
    Engine, EngineSpec, OBSERVED_WAYS, ObservedSteps, SessionError, Sidecar, SidecarOptions,
};
use crate::measurement::telemetry::{Places, Telemetry};
use crate::question::plan::DEFAULT_TELEMETRY_HZ;
use crate::statistics::{TrimmedMean, trimmed_mean};

/// Batch sizes of which the effect is measured.
const BATCHES: [u32; 3] = [1, 8, 64];
/// Share of the rounds that is left out at either end: steps that the host interrupted are no effect of ours.
const TRIM: f64 = 0.2;
/// Rounds between two looks at the time.
const ROUNDS: u32 = 50;
/// Share of the time in which the ways are compared; in the rest, blocks with and without telemetry.
const SHARE_OF_WAYS: f64 = 0.75;
/// Stepping in a block that is sampled or not: ten samples.
const BLOCK_NS: u64 = 1_000_000_000;
/// Pairs of blocks at least.
const FEWEST_PAIRS: u64 = 3;

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

/// What sampling the machine changes in the steps of one batch size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TelemetryEffect {
    /// Requests in the batch.
    pub batch: u32,
    /// Samples a second.
    pub rate_hz: u32,
    /// Pairs of a block of steps that was sampled and one that was not.
    pub pairs: u64,
    /// Steps of a block.
    pub steps: u64,
    /// Looks at the host in the sampled blocks.
    pub samples: u64,
    /// Share of a core that the sampling thread used: the change could be no larger if all of it were the engine's.
    pub cpu_share: f64,
    /// Change of a block's mean step time by the sampling.
    #[serde(flatten)]
    pub change: Change,
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

/// Measures the effect on the engine that `spec` describes, for about as long as `time` in all. Every batch size has the same
/// time: the noise of a step does not shrink with it, so that short steps need more rounds for the same interval.
///
/// # Errors
/// [`CalibrationError`]: the engine cannot be loaded, or does not take the batch.
pub async fn observer_effect(
    options: &SidecarOptions,
    spec: &EngineSpec,
    time: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<(Vec<ObserverEffect>, Vec<TelemetryEffect>), CalibrationError> {
    say("loading vLLM, to observe its steps");
    let mut sidecar = Sidecar::start(options).await?;
    let mut engine = sidecar.load(spec).await?;
    let per_batch = time / BATCHES.len() as u32;
    let of_ways = per_batch.mul_f64(SHARE_OF_WAYS);
    let mut effects = Vec::new();
    let mut telemetry = Vec::new();
    for batch in BATCHES {
        say(&format!("steps of {batch} requests, with and without the tap in random order"));
        let steps = observe_for(&mut engine, batch, of_ways, &options.placement).await?;
        let missing = || CalibrationError::Answer { concurrency: batch, problem: "no steps were taken".to_owned() };
        let effect = effect(batch, &steps).ok_or_else(missing)?;
        say(&format!("steps of {batch} requests, with and without telemetry in turn"));
        let sampled = telemetry_effect(&mut engine, &effect, per_batch - of_ways, options).await?;
        telemetry.push(sampled.ok_or_else(missing)?);
        effects.push(effect);
    }
    engine.shutdown().await;
    sidecar.shutdown().await;
    Ok((effects, telemetry))
}

/// Steps of all ways, until the time is over.
async fn observe_for(
    engine: &mut Engine,
    batch: u32,
    time: Duration,
    placement: &Placement,
) -> Result<ObservedSteps, CalibrationError> {
    let began = Instant::now();
    let mut all = engine.observe(batch, ROUNDS, &OBSERVED_WAYS, placement).await?;
    while began.elapsed() < time {
        all.append(engine.observe(batch, ROUNDS, &OBSERVED_WAYS, placement).await?);
    }
    Ok(all)
}

/// A sample falls into one of dozens of steps, so that blocks of steps are compared: a sampled one and another one in turn,
/// first the one and then the other first. `None` if no step was taken.
async fn telemetry_effect(
    engine: &mut Engine,
    effect: &ObserverEffect,
    time: Duration,
    options: &SidecarOptions,
) -> Result<Option<TelemetryEffect>, CalibrationError> {
    let (batch, placement) = (effect.batch, &options.placement);
    let steps = (BLOCK_NS / effect.step_ns.max(1)).clamp(1, u32::MAX.into());
    let pairs = (time.as_nanos() as u64 / (2 * BLOCK_NS)).max(FEWEST_PAIRS);
    let mut telemetry = Telemetry::open(&Places::of_this_machine(), options.device, 1, placement);
    let (mut on_ns, mut off_ns) = (Vec::new(), Vec::new());
    let (mut samples, mut cpu_ns, mut wall_ns) = (0, 0, 0);
    for pair in 0..pairs {
        for is_sampled in [pair % 2 == 0, pair % 2 != 0] {
            if !is_sampled {
                let block = engine.observe(batch, steps as u32, &OBSERVED_WAYS[..1], placement).await?;
                off_ns.extend(mean_ns(&block));
                continue;
            }
            let sampling = telemetry.start(DEFAULT_TELEMETRY_HZ, placement);
            let sampling = sampling.map_err(SessionError::io("starting the telemetry's thread"))?;
            let block = engine.observe(batch, steps as u32, &OBSERVED_WAYS[..1], placement).await;
            let (sources, record, taken) = sampling.stop();
            telemetry = sources;
            on_ns.extend(mean_ns(&block?));
            (samples, cpu_ns, wall_ns) =
                (samples + taken.len() as u64, cpu_ns + record.cpu_ns, wall_ns + record.wall_ns);
        }
    }
    let cpu_share = cpu_ns as f64 / wall_ns.max(1) as f64;
    let effect =
        |change| TelemetryEffect { batch, rate_hz: DEFAULT_TELEMETRY_HZ, pairs, steps, samples, cpu_share, change };
    Ok(change(&on_ns, &off_ns).map(effect))
}

fn mean_ns(block: &ObservedSteps) -> Option<u64> {
    let times_ns = block.times_ns.get(OBSERVED_WAYS[0])?;
    times_ns.iter().sum::<u64>().checked_div(times_ns.len() as u64)
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
