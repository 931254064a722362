//! Quantization by meaning: what it becomes for each device class and checkpoint, and what there is not.

use std::fs;
use std::path::Path;

use bench::machine::device::DeviceClass;
use bench::question::plan::{EngineKey, Quantization};
use bench::question::resolve::Overrides;

use crate::{entry, plan_with, write};

/// A model folder with this `quantization_config`, or with none.
fn model(folder: &Path, quantization: Option<&str>) -> String {
    let own = quantization.map_or_else(String::new, |own| format!(r#", "quantization_config": {own}"#));
    fs::write(folder.join("config.json"), format!(r#"{{"max_position_embeddings": 4096{own}}}"#)).unwrap();
    folder.canonicalize().unwrap().display().to_string()
}

const FP8: &str =
    r#"{"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"type": "float", "num_bits": 8}}}}"#;
const NVFP4: &str = r#"{"quant_method": "modelopt", "quant_algo": "NVFP4"}"#;

fn plan(device: DeviceClass, model: &str, args: &str, lines: &str) -> Result<EngineKey, String> {
    let text = entry(&format!("model: {model}\nargs: {args}\nworkload: chatbot\n{lines}"));
    let overrides = Overrides { device: Some(device), ..Overrides::default() };
    plan_with(&text, overrides).map(|plan| plan.epochs[0].key.clone()).map_err(|error| error.to_string())
}

#[test]
fn a_meaning_becomes_what_vllm_takes() {
    use DeviceClass::{Cpu, Cuda, Tpu};
    let folder = tempfile::tempdir().unwrap();
    let plain = |key: &str| (None, format!("quantization: {key}"));
    let qwix = r#"--additional-config {"quantization":{"qwix":{"rules":[{"act_qtype":"float8_e4m3fn","module_path":".*","weight_qtype":"float8_e4m3fn"}]}}}"#;
    let own = "MODEL_IMPL_TYPE=vllm";
    for (device, (checkpoint, lines), label, args, env) in [
        (Cpu, plain("none"), Quantization::None, "", ""),
        (Cpu, plain("fp8"), Quantization::Fp8, "--quantization fp8_per_channel", ""),
        (Cuda, plain("fp8"), Quantization::Fp8, "--quantization fp8_per_tensor", ""),
        (Cuda, plain("fp4"), Quantization::Fp4, "--quantization mxfp4", ""),
        (Tpu, plain("fp8"), Quantization::Fp8, qwix, ""),
        // A quantized checkpoint needs no flag, and no key.
        (Cpu, (Some(FP8), "quantization: fp8".to_owned()), Quantization::Fp8, "", ""),
        (Cuda, (Some(NVFP4), "quantization: fp4".to_owned()), Quantization::Fp4, "", ""),
        (Cuda, (Some(NVFP4), String::new()), Quantization::Fp4, "", ""),
        (Tpu, (Some(NVFP4), String::new()), Quantization::Fp4, "", own),
        (Tpu, (Some(FP8), "quantization: fp8".to_owned()), Quantization::Fp8, "", own),
    ] {
        let model = model(folder.path(), checkpoint);
        let key = plan(device, &model, "", &lines).unwrap();
        let switches = &key.quantization_switches;
        let found_env: Vec<String> = switches.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let found = (key.quantization, switches.args.join(" "), found_env.join(" "));
        assert_eq!(found, (label, args.to_owned(), env.to_owned()), "{device} {checkpoint:?} {lines}");
    }
}

#[test]
fn a_flag_in_args_labels_the_run() {
    use DeviceClass::{Cpu, Cuda, Tpu};
    let rule = r#"--additional-config '{"quantization": {"qwix": {"rules": [{"weight_qtype": "float8_e4m3fn"}]}}}'"#;
    for (device, args, label) in [
        (Cpu, "--quantization fp8_per_channel", Quantization::Fp8),
        (Cpu, "-q fp8_per_channel --dtype bfloat16", Quantization::Fp8),
        (Cuda, "--quantization=mxfp4", Quantization::Fp4),
        (Cuda, "--quantization modelopt_fp4", Quantization::Fp4),
        (Cuda, "--quantization awq", Quantization::Other),
        (Tpu, rule, Quantization::Fp8),
    ] {
        let key = plan(device, "m", &format!(">-\n  {args}"), "").unwrap();
        assert_eq!((key.quantization, key.quantization_switches.is_empty()), (label, true), "{args}");
    }
}

#[test]
fn tpu_keeps_what_args_say_beside_the_quantization() {
    let sharding = r#">-
  --additional-config '{"sharding": {"sharding_strategy": {"device_indexes": [0]}}}'"#;
    let key = plan(DeviceClass::Tpu, "m", sharding, "quantization: fp8").unwrap();
    let [flag, config] = &key.quantization_switches.args[..] else { panic!("{key:?}") };
    let config: serde_json::Value = serde_json::from_str(config).unwrap();
    assert_eq!(flag, "--additional-config");
    assert_eq!(config["sharding"]["sharding_strategy"]["device_indexes"][0], 0);
    assert_eq!(config["quantization"]["qwix"]["rules"][0]["weight_qtype"], "float8_e4m3fn");
}

#[test]
fn what_there_is_not_is_refused_with_its_place_the_reason_and_what_there_is() {
    use DeviceClass::{Cpu, Cuda, Tpu};
    let folder = tempfile::tempdir().unwrap();
    for (device, checkpoint, args, lines, place, words) in [
        (Cpu, None, "", "quantization: fp4", ":7:19", &["no FP4 kernel", "`fp8`", "cuda"][..]),
        (Cpu, None, "--quantization mxfp4", "", ":5:11", &["no FP4 kernel"]),
        (Cpu, Some(NVFP4), "", "", ":4:12", &["no FP4 kernel"]),
        (
            Cpu,
            None,
            "--dtype float32",
            "quantization: fp8",
            ":5:11",
            &["`--dtype float32`", "fp8_per_channel", "bfloat16"],
        ),
        (Tpu, None, "", "quantization: fp4", ":7:19", &["NVFP4", "`fp8`"]),
        (Tpu, None, "--quantization fp8", "", ":5:11", &["KeyError", "`quantization: fp8`"]),
        (Cuda, None, "--quantization nvfp4", "", ":5:11", &["`mxfp4`", "checkpoint"]),
        (Cuda, None, "--quantization mxfp4", "quantization: fp4", ":7:19", &["exclude each other", "keep one"]),
        (Cuda, Some(FP8), "", "quantization: none", ":7:19", &["stored as fp8", "`quantization: fp8`"]),
        (Cuda, Some(NVFP4), "", "quantization: fp8", ":7:19", &["stored as fp4", "modelopt"]),
    ] {
        let model = model(folder.path(), checkpoint);
        let error = plan(device, &model, args, lines).expect_err(lines);
        assert!(error.contains(place), "{place} is not in: {error}");
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    }
}

#[test]
fn a_flag_of_the_defaults_meets_a_key_of_an_axis() {
    let text = format!(
        "defaults: {{args: --model m -q mxfp8}}\n{}",
        entry("workload: chatbot\nmatrix: {quantization: [none, fp8]}")
    );
    let overrides = Overrides { device: Some(DeviceClass::Cuda), ..Overrides::default() };
    let error = plan_with(&text, overrides).unwrap_err().to_string();
    assert!(error.contains(":6:29: `quantization` and `-q` in `args` exclude each other"), "{error}");
}

#[test]
fn the_shipped_files_plan_as_they_are() {
    let plan = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(file);
        let (_folder, path) = write(fs::read(path).unwrap());
        bench::question::resolve::resolve(&bench::question::config::load(&path).unwrap(), Overrides::default()).unwrap()
    };
    let cpu = plan("quantization-cpu.yaml");
    let labels: Vec<Quantization> = cpu.epochs.iter().map(|epoch| epoch.key.quantization).collect();
    assert_eq!(labels, [Quantization::None, Quantization::Fp8]);
    let a4 = plan("a4-quantization.yaml");
    let labels: Vec<Quantization> = a4.epochs.iter().map(|epoch| epoch.key.quantization).collect();
    assert_eq!(labels, [Quantization::None, Quantization::Fp8, Quantization::Fp4]);
    assert!(a4.epochs.iter().all(|epoch| epoch.points.len() == 6 && epoch.key.device == DeviceClass::Cuda));
}
