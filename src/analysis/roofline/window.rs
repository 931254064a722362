//! The roofline of a measured window: what the steps of each phase needed, and what share of the limit they reached.

use serde::Serialize;
use serde_json::Value;

use super::{Arithmetic, Peak, Shape, Sizes, StepChunks, Work, chunks};
use crate::analysis::metrics::Window;
use crate::machine::device::DeviceClass;
use crate::measurement::calibration::CpuPeaks;
use crate::measurement::timeline::{EngineFacts, RunRecord, Timeline};
use crate::question::plan::Quantization;

/// The roofline of a run's measured window. Null stands for what is not known, and `notes` say why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// Matrix operations a second that the engine's devices can do at most, with the numbers that the engine multiplies.
    pub peak_operations_per_s: Option<f64>,
    /// Bytes a second from and to their memory at most.
    pub peak_bytes_per_s: Option<f64>,
    /// Where the two are from.
    pub peak_source: String,
    /// Steps that computed prompt tokens, whatever else they did.
    pub prefill: PhaseShare,
    /// Steps that computed none.
    pub decode: PhaseShare,
    /// Why something is null.
    pub notes: Vec<String>,
}

/// The steps of one phase that began in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PhaseShare {
    /// How many.
    pub steps: u64,
    /// Time in the engine's step function, seconds.
    pub time_s: f64,
    /// Operations that they needed.
    pub operations: Option<f64>,
    /// Bytes that they needed.
    pub bytes: Option<f64>,
    /// Model FLOPs utilization: operations over what the peak allows in the time.
    pub mfu: Option<f64>,
    /// Model bandwidth utilization: bytes over what the peak allows in the time.
    pub mbu: Option<f64>,
    /// Of each step the longer of its two least times, summed, over the time: 1 is the roofline itself.
    pub limit_share: Option<f64>,
}

impl Roofline {
    /// Of a run's window. `None` where nothing is known of the engine or of its steps: an imported timeline, a scripted engine.
    pub fn of(timeline: &Timeline, window: Window, cpu_peaks: Option<&CpuPeaks>) -> Option<Roofline> {
        let run = &timeline.run;
        let facts = run.engine_facts.as_ref()?;
        let config = facts.other.get("model_config")?;
        if timeline.steps.is_empty() {
            return None;
        }
        let mut notes = Vec::new();
        let peak = peak(run, facts, cpu_peaks);
        if peak.operations_per_s.is_none() || peak.bytes_per_s.is_none() {
            notes.push(format!("no peak: {}", peak.source));
        }
        let costs = Shape::of_config(config).and_then(|shape| Ok((shape, sizes(run, facts)?)));
        let work = costs.and_then(|(shape, sizes)| Ok((shape, sizes, chunks(timeline)?)));
        let work = work.map_err(|why| notes.push(format!("no operations and bytes: {why}"))).ok();
        let mut phases = [Sum::default(), Sum::default()];
        for (index, step) in timeline.steps.iter().enumerate().filter(|(_, step)| window.has(step)) {
            let needed = work.as_ref().map(|(shape, sizes, steps)| {
                let StepChunks { chunks, sampled } = &steps[index];
                shape.work(sizes, chunks, *sampled)
            });
            let phase = &mut phases[usize::from(step.prefill_requests == 0)];
            phase.add(step.ended_ns.saturating_sub(step.started_ns) as f64 / 1e9, needed, &peak);
        }
        let [prefill, decode] = phases.map(|phase| phase.share(work.is_some(), &peak));
        Some(Roofline {
            peak_operations_per_s: peak.operations_per_s,
            peak_bytes_per_s: peak.bytes_per_s,
            peak_source: peak.source,
            prefill,
            decode,
            notes,
        })
    }
}

/// The sum over the steps of a phase.
#[derive(Clone, Copy, Default)]
struct Sum {
    steps: u64,
    time_s: f64,
    work: Work,
    least_s: f64,
}

impl Sum {
    fn add(&mut self, time_s: f64, needed: Option<Work>, peak: &Peak) {
        let Work { operations, bytes } = needed.unwrap_or_default();
        let (peak_operations, peak_bytes) =
            (peak.operations_per_s.unwrap_or(f64::INFINITY), peak.bytes_per_s.unwrap_or(f64::INFINITY));
        self.steps += 1;
        self.time_s += time_s;
        self.work = Work { operations: self.work.operations + operations, bytes: self.work.bytes + bytes };
        self.least_s += (operations / peak_operations).max(bytes / peak_bytes);
    }

    fn share(self, is_known: bool, peak: &Peak) -> PhaseShare {
        let known = |value: f64| (is_known && self.steps > 0).then_some(value);
        let of_peak = |done: f64, peak: Option<f64>| {
            peak.filter(|_| self.time_s > 0.0).and_then(|peak| known(done / (peak * self.time_s)))
        };
        let both = peak.operations_per_s.and(peak.bytes_per_s);
        PhaseShare {
            steps: self.steps,
            time_s: self.time_s,
            operations: known(self.work.operations),
            bytes: known(self.work.bytes),
            mfu: of_peak(self.work.operations, peak.operations_per_s),
            mbu: of_peak(self.work.bytes, peak.bytes_per_s),
            limit_share: of_peak(self.least_s, both.map(|_| 1.0)),
        }
    }
}

fn text<'a>(facts: &'a EngineFacts, name: &str) -> Option<&'a str> {
    facts.other.get(name).and_then(Value::as_str)
}

/// Bytes of a number of vLLM's name of a type, and the arithmetic that multiplies it.
fn number_type(name: &str) -> Option<(u64, Arithmetic)> {
    match name {
        "float32" => Some((4, Arithmetic::F32)),
        "float16" | "bfloat16" => Some((2, Arithmetic::F16)),
        _ if name.starts_with("fp8") => Some((1, Arithmetic::Fp8)),
        _ => None,
    }
}

/// What the engine multiplies: by the quantization that the verdict has checked, else by the model's type.
fn arithmetic(run: &RunRecord, facts: &EngineFacts) -> Option<Arithmetic> {
    match run.engine_key.quantization {
        Quantization::None => number_type(text(facts, "dtype")?).map(|(_, arithmetic)| arithmetic),
        Quantization::Fp8 => Some(Arithmetic::Fp8),
        Quantization::Fp4 => Some(Arithmetic::Fp4),
        Quantization::Other => None,
    }
}

fn peak(run: &RunRecord, facts: &EngineFacts, cpu_peaks: Option<&CpuPeaks>) -> Peak {
    let unknown = |what: &str| Peak { source: format!("the engine does not say {what}"), ..Peak::default() };
    let Some(arithmetic) = arithmetic(run, facts) else { return unknown("in which type it computes") };
    if run.engine_key.device == DeviceClass::Cpu {
        return Peak::of_cpu(cpu_peaks, arithmetic);
    }
    let Some(name) = text(facts, "device_kind") else { return unknown("what its device is") };
    let Some(count) = facts.other.get("world_size").and_then(Value::as_u64) else {
        return unknown("how many devices it has");
    };
    Peak::of_device(name, count, arithmetic)
}

fn sizes(run: &RunRecord, facts: &EngineFacts) -> Result<Sizes, String> {
    let bytes_of = |fact: &str| {
        let name = text(facts, fact).ok_or_else(|| format!("the engine does not say its `{fact}`"))?;
        let (bytes, _) = number_type(name).ok_or_else(|| format!("the size of the {fact} `{name}` is not known"))?;
        Ok::<u64, String>(bytes)
    };
    let other_bytes = bytes_of("dtype")?;
    let kv_bytes = match text(facts, "kv_cache_dtype") {
        Some("auto") => other_bytes,
        _ => bytes_of("kv_cache_dtype")?,
    };
    let matrix_bytes = match run.engine_key.quantization {
        Quantization::None => other_bytes,
        Quantization::Fp8 => 1,
        Quantization::Fp4 => return Err("how much the scales of FP4 weights take is not known".to_owned()),
        Quantization::Other => return Err("how its weights are quantized is not known".to_owned()),
    };
    Ok(Sizes { matrix_bytes, other_bytes, kv_bytes })
}
