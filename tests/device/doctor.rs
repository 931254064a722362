//! What `bench doctor` says.

use bench::machine::device::DeviceClass;
use bench::machine::doctor::{EnvironmentState, Examination, examine};
use bench::machine::environment::Host;

use crate::{bare, plug};

/// A host without any Python, and nothing in its cache.
fn host(cache: &std::path::Path) -> Host {
    Host::new([]).with("BENCH_CACHE_DIR", cache).with("PATH", cache)
}

fn tpu_host() -> (tempfile::TempDir, Examination) {
    let (root, machine) = bare();
    plug(root.path(), "0000:00:04.0", "0x1ae0", "0x0076", "0x120000");
    std::fs::write(root.path().join("dev/vfio/0"), "").unwrap();
    let examination = examine(&machine, &host(root.path()), None, &DeviceClass::ALL);
    (root, examination)
}

#[test]
fn text_says_what_was_found_what_is_missing_and_what_is_given() {
    let (_root, examination) = tpu_host();
    let text = examination.render();
    for line in [
        "cpu is here, and has no Python to run on",
        "Test CPU",
        "instruction sets: avx2 avx512f",
        "cuda is not on this machine",
        "  missing  NVML",
        "           to get it: ",
        "tpu is here, and has no Python to run on",
        "1 x TPU v7x (0x0076), 2 JAX devices each",
        "tensor_parallel_size up to 2",
        "vllm-tpu==0.32.0, and what it needs: ",
        "3.12 needed; missing: no Python 3.12 on PATH",
        "argument --async-scheduling",
        "variable JAX_PLATFORMS=tpu",
        "refused  --enforce-eager",
        "refused  SKIP_JAX_PRECOMPILE=1",
    ] {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
}

#[test]
fn json_says_the_same() {
    let (_root, examination) = tpu_host();
    let json = serde_json::to_value(&examination).unwrap();
    let of = |device: &str| json["classes"].as_array().unwrap().iter().find(|class| class["device"] == device).unwrap();
    let tpu = of("tpu");
    assert_eq!((&tpu["is_present"], &tpu["can_measure"]), (&true.into(), &false.into()));
    assert_eq!(tpu["tensor_parallel"], 2);
    assert_eq!(tpu["environment"]["state"], "missing");
    assert_eq!(tpu["environment"]["package"], "vllm-tpu==0.32.0");
    assert_eq!(tpu["profile"]["python_minors"], serde_json::json!(["3.12"]));
    assert!(tpu["checks"][0]["missing"].is_null());
    let nvml = &of("cuda")["checks"][0];
    assert!(nvml["found"].is_null() && nvml["missing"].is_string() && nvml["remedy"].is_string(), "{nvml}");
}

#[test]
fn a_python_that_was_given_is_the_one_that_is_examined() {
    let (root, machine) = bare();
    let absent = root.path().join("no-python");
    let examination = examine(&machine, &host(root.path()), Some(&absent), &[DeviceClass::Cpu]);
    let environment = &examination.classes[0].environment;
    assert_eq!(environment.state, EnvironmentState::Missing);
    assert!(environment.problem.as_ref().unwrap().contains("no-python"), "{environment:?}");
}
