//! What a run, or the runs of a point, were asked to measure, and on what.

use serde::Serialize;

use crate::machine::device::DeviceClass;
use crate::measurement::timeline::IMPORTED_ENGINE;
use crate::measurement::timeline::RunRecord;
use crate::question::plan::{Drive, Limits, Load, PairMember, PrefixMode, Quantization, Role};

/// The point and the engine. Of an imported timeline only the names are known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Identity {
    /// Name of the configuration's entry.
    pub name: String,
    /// Label of the point.
    pub point: String,
    /// `vllm`, `scripted` or `imported`.
    pub engine: String,
    /// Version of vLLM, as the engine gave it.
    pub engine_version: Option<String>,
    /// What its runs are for.
    pub role: Option<Role>,
    /// Its place in a comparison; null outside of one.
    pub pair: Option<PairMember>,
    /// Index of the epoch; null for a point whose runs are in several.
    pub epoch: Option<u32>,
    /// Device class.
    pub device: Option<DeviceClass>,
    /// Model name or folder.
    pub model: Option<String>,
    /// Quantization by meaning.
    pub quantization: Option<Quantization>,
    /// Tensor-parallel ranks.
    pub tensor_parallel_size: Option<u32>,
    /// Prompt tokens of a request.
    pub input_len: Option<u32>,
    /// Output tokens asked of a request.
    pub output_len: Option<u32>,
    /// Leading prompt tokens that all requests share.
    pub prefix_len: Option<u32>,
    /// How the configuration gave them.
    pub prefix_mode: Option<PrefixMode>,
    /// Distinct prefixes, each primed; 0 without a shared prefix.
    pub num_prefixes: Option<u32>,
    /// The hit rate that the configuration asks for; null where it gives the length of the prefix.
    pub prefix_hit_rate_asked: Option<f64>,
    /// The named workload that the lengths come from.
    pub workload: Option<String>,
    /// By what the workload's lengths were multiplied: `1/8`.
    pub workload_scale: Option<String>,
    /// How requests arrive.
    pub load: Option<Load>,
    /// Who decides when the engine steps.
    pub drive: Option<Drive>,
    /// Scheduler limits lowered on the running engine.
    pub limits: Option<Limits>,
}

impl Identity {
    /// The identity of a run, which it shares with the other runs of its point.
    pub fn of(run: &RunRecord) -> Identity {
        let (point, key) = (&run.point, &run.engine_key);
        let asked = run.engine != IMPORTED_ENGINE;
        Identity {
            name: point.name.clone(),
            point: point.point.clone(),
            engine: run.engine.clone(),
            engine_version: run.engine_facts.as_ref().and_then(|facts| facts.vllm_version.clone()),
            role: asked.then_some(point.role),
            pair: point.pair.clone(),
            epoch: asked.then_some(run.epoch),
            device: asked.then_some(key.device),
            model: asked.then(|| key.model.clone()),
            quantization: asked.then_some(key.quantization),
            tensor_parallel_size: asked.then_some(key.tensor_parallel_size),
            input_len: asked.then_some(point.input_len),
            output_len: (asked && point.has_one_output_len()).then_some(point.output_len),
            prefix_len: asked.then_some(point.prefix_len),
            prefix_mode: asked.then_some(point.prefix_mode),
            num_prefixes: asked.then_some(point.primed_prefixes()),
            prefix_hit_rate_asked: point.prefix_hit_rate.map(|rate| rate.asked),
            workload: point.workload.as_ref().map(|workload| workload.name.clone()),
            workload_scale: point.workload.as_ref().map(|workload| workload.scale.clone()),
            load: asked.then_some(point.load),
            drive: asked.then_some(point.drive),
            limits: asked.then_some(point.limits),
        }
    }

    /// Engine, device and model in a line, with what tells the engine apart from the real thing.
    pub fn engine_line(&self) -> String {
        let engine = match (self.engine.as_str(), &self.engine_version) {
            ("scripted", _) => "scripted (a schedule from a file, not vLLM)".to_owned(),
            (IMPORTED_ENGINE, _) => "imported timeline (nothing is known of what ran)".to_owned(),
            (engine, Some(version)) => format!("{engine} {version}"),
            (engine, None) => engine.to_owned(),
        };
        let mut line = format!("engine: {engine}");
        if let (Some(device), Some(model)) = (self.device, &self.model) {
            line += &format!(" | device: {device} | model: {model}");
        }
        if let Some(quantization) = self.quantization.filter(|quantization| *quantization != Quantization::None) {
            line += &format!(" | quantization: {}", quantization.as_str());
        }
        if let Some(size) = self.tensor_parallel_size.filter(|size| *size > 1) {
            line += &format!(" | tensor parallel: {size}");
        }
        line
    }
}
