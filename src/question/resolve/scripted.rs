//! The plan of a script that is its own workload.

use super::{Overrides, defaults};
use crate::machine::device::DeviceClass;
use crate::question::config::Script;
use crate::question::plan::{
    DEFAULT_TELEMETRY_HZ, Drive, EngineKey, IgnoredInEq, Limits, Load, Plan, Point, PrefixMode, Quantization, Role,
    StepApi, WholeSweep, epochs, label,
};

/// Prompt tokens of a scripted request; nobody reads them.
const INPUT_LEN: u32 = 16;
/// Output tokens of a request whose script leaves them to what is asked.
const OUTPUT_LEN: u32 = 16;

/// All requests of `script` at once, in its order, measured once unless `overrides` says otherwise.
pub fn of_script(script: &Script, overrides: Overrides) -> Plan {
    let lengths: Vec<u32> =
        script.requests.iter().map(|request| request.output_tokens().unwrap_or(OUTPUT_LEN)).collect();
    let seed = overrides.seed.unwrap_or(defaults::SEED);
    let point = Point {
        name: script.name.clone(),
        point: String::new(), // assigned below
        input_len: INPUT_LEN,
        output_len: lengths.iter().copied().max().unwrap_or(OUTPUT_LEN),
        prefix_len: 0,
        prefix_mode: PrefixMode::Inside,
        num_prefixes: 1,
        prefix_hit_rate: None,
        workload: None,
        num_prompts: lengths.len() as u32,
        scripted_output_lens: Some(lengths),
        repeats: overrides.repeats.unwrap_or(if overrides.until_ci.is_some() { defaults::MOST_REPEATS } else { 1 }),
        until_ci: overrides.until_ci,
        warmup: 0,
        telemetry_hz: DEFAULT_TELEMETRY_HZ,
        seed,
        load: Load::Closed { concurrency: None },
        drive: Drive::Free,
        limits: Limits::default(),
        slo: Default::default(),
        role: Role::Measured,
        pair: None,
        location: IgnoredInEq::default(),
    };
    let key = EngineKey {
        device: overrides.device.unwrap_or(DeviceClass::Cpu),
        model: format!("script:{}", script.name),
        tensor_parallel_size: 1,
        quantization: Quantization::None,
        quantization_switches: Default::default(),
        engine_args: Vec::new(),
        step_api: StepApi::EngineCore,
        args_location: IgnoredInEq::default(),
    };
    let keys = vec![key];
    let mut points = vec![(0, point)];
    label::assign(&keys, &mut points);
    let epochs = epochs::arrange(keys, points, seed, WholeSweep::default());
    Plan { name: script.name.clone(), seed, varying: Vec::new(), epochs }
}
