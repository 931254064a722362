//! The instrument's own error, measured against known answers: what `bench calibrate` does, and a short form of it
//! before a command measures.
//!
//! The known answer comes from the scripted engine, which knows when it really emitted each token; everything between
//! that instant and the recorder's stamp is the instrument's error. The other figures say what it is made of.

mod budget;
mod cache;
mod capacity;
mod cpu_peaks;
mod floor;
mod known_answer;
mod model;
mod observer;
mod pair;
mod render;
mod transport;

use std::path::Path;

pub use budget::{BudgetRow, ErrorBudget, MetricErrors, Stages};
pub use cache::{cached, cached_cpu_peaks, keep, keep_cpu_peaks};
pub use cpu_peaks::{CpuPeaks, measure_cpu_peaks};
pub use floor::cache_line;
pub use model::{Calibration, CalibrationError, Cores, Identity, KnownAnswer, RingTimes, StrategyCost, TapCost, Times};
pub use observer::{Change, ObserverEffect, TelemetryEffect, observer_effect};
pub use pair::{on_both, wait_until};
pub use render::render;

use crate::machine::device::{HostFacts, WaitStrategy};
use crate::measurement::clock;
use crate::measurement::session::SidecarOptions;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// What an error budget needs, in under 3 seconds.
    Short,
    /// Everything, in a little over a minute.
    Full,
}

impl Effort {
    fn pick<T>(self, short: T, full: T) -> T {
        match self {
            Effort::Short => short,
            Effort::Full => full,
        }
    }
}

/// A short calibration that was stalled is repeated, up to so many in all.
const ATTEMPTS: u32 = 3;

/// Batches of which the cost of tap and push is measured.
const BATCHES: [u32; 4] = [1, 8, 64, 256];

/// Calibrates the instrument on `options`' cores, with a sidecar that needs no vLLM. `say` is told what goes on.
///
/// # Errors
/// [`CalibrationError`].
pub async fn calibrate(
    options: &SidecarOptions,
    effort: Effort,
    say: &mut dyn FnMut(&str),
) -> Result<Calibration, CalibrationError> {
    let placement = &options.placement;
    let clock = clock::measure();
    say("the machine's floor and the ring");
    let floor_ns = floor::measure(placement, effort.pick(5_000, 50_000))?;
    let ring = transport::measure(placement, effort)?;
    let strategies = match effort {
        Effort::Short => Vec::new(),
        Effort::Full => transport::strategies(placement)?,
    };
    let recorder_events_per_s = match effort {
        Effort::Short => None,
        Effort::Full => Some(capacity::recorder_events_per_s(placement)?),
    };
    let measured = known_answer::measure(options, effort, say).await?;
    let identity = Identity::of(&options.placement, &HostFacts::read());
    let mut warnings = Vec::new();
    let cpu_peaks = match effort {
        Effort::Short => None,
        Effort::Full => {
            say("the memory and the arithmetic of the engine's cores");
            let peaks = measure_cpu_peaks(&identity.host, &placement.engine_cores);
            peaks.map_err(|why| warnings.push(format!("the engine's cores were not probed: {why}"))).ok()
        }
    };
    let budget = ErrorBudget::of(&identity, floor_ns.as_ref(), &ring, &measured.answers);
    Ok(Calibration {
        schema_version: model::SCHEMA_VERSION,
        clock,
        floor_ns,
        ring,
        strategies,
        recorder_events_per_s,
        known_answer: measured.answers,
        per_step: measured.per_step,
        observer: None,
        observer_telemetry: None,
        cpu_peaks,
        warnings,
        wait_strategy: options.placement.wait_strategy,
        cores: Cores::of(placement),
        host: HostFacts::read(),
        build: identity.build.clone(),
        measured_at: jiff::Timestamp::now().to_string(),
        error_budget: budget,
    })
}

/// The error budget for a command: the one measured before on the same host, cores, build and strategy, else one from a
/// short calibration, which is kept in `cache`.
///
/// # Errors
/// [`CalibrationError`] of the short calibration.
pub async fn budget(
    options: &SidecarOptions,
    cache: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<ErrorBudget, CalibrationError> {
    let identity = Identity::of(&options.placement, &HostFacts::read());
    if let Some(budget) = cached(cache, &identity) {
        return Ok(budget);
    }
    say("calibrating the instrument on this machine");
    let mut budget = calibrate(options, Effort::Short, &mut |_| ()).await?.error_budget;
    for _ in 1..ATTEMPTS {
        // A recorder that sleeps watches for no token.
        if budget.is_watched_everywhere() || options.placement.wait_strategy != WaitStrategy::Spin {
            break;
        }
        say("calibrating again: the machine was busy");
        budget = calibrate(options, Effort::Short, &mut |_| ()).await?.error_budget;
    }
    keep(cache, &identity, &budget);
    Ok(budget)
}
