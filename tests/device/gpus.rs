//! GPU hosts. A small library stands for NVML: it has the functions that bench calls, and answers for two GPUs.

use std::path::Path;
use std::process::Command;

use bench::machine::device::DeviceClass;

use crate::{bare, plug};

const NVML: &str = r#"
#include <string.h>
typedef void *Gpu;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.65.06", length); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13010; return CUDA_STATUS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = GPUS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu *gpu) { *gpu = (Gpu)(index + 1l); return 0; }
int nvmlDeviceGetName(Gpu gpu, char *text, unsigned length) { strncpy(text, "NVIDIA B200", length); return 0; }
int nvmlDeviceGetCudaComputeCapability(Gpu gpu, int *major, int *minor) { *major = 10; *minor = 0; return 0; }
int nvmlDeviceGetMemoryInfo_v2(Gpu gpu, Memory *memory) { memory->total = 192ull << 30; return 0; }
"#;

/// Status 12 of NVML: a library is not found.
fn make_nvml(at: &Path, gpus: u32, cuda_status: u32) {
    let source = at.with_extension("c");
    std::fs::write(&source, NVML).unwrap();
    let defines = [format!("-DGPUS={gpus}"), format!("-DCUDA_STATUS={cuda_status}")];
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(at).args(defines).arg(&source).status();
    assert!(status.unwrap().success());
}

#[test]
fn gpus_are_listed_with_what_decides_their_kernels() {
    let (root, machine) = bare();
    make_nvml(&root.path().join("libnvidia-ml.so.1"), 2, 0);
    let finding = machine.look_for(DeviceClass::Cuda);
    let found: Vec<_> = finding.checks.iter().map(|check| check.found.as_deref().unwrap()).collect();
    let gpu = "NVIDIA B200 (SM 10.0, 192.0 GiB)";
    assert_eq!(found, ["driver 580.65.06", "CUDA 13.1", &format!("{gpu}; {gpu}")]);
    assert_eq!((finding.is_present, finding.tensor_parallel), (true, Some(2)));
}

#[test]
fn without_nvml_the_pci_bus_tells_a_missing_driver_from_a_missing_gpu() {
    let (root, machine) = bare();
    let missing = |machine: &bench::machine::device::Machine| {
        let finding = machine.look_for(DeviceClass::Cuda);
        let (check, missing) = finding.missing().next().unwrap();
        assert!(check.what.contains("libnvidia-ml.so.1") && !finding.is_present, "{finding:?}");
        (missing.missing.clone(), missing.remedy.clone())
    };
    let (nothing, remedy) = missing(&machine);
    assert!(nothing.contains("no GPU of NVIDIA"), "{nothing}");
    assert!(remedy.contains("host with an NVIDIA GPU"), "{remedy}");

    plug(root.path(), "0000:07:00.0", "0x10de", "0x22a3", "0x068000"); // a bridge
    assert!(missing(&machine).0.contains("no GPU of NVIDIA"));
    plug(root.path(), "0000:17:00.0", "0x10de", "0x2901", "0x030200");
    let (no_driver, remedy) = missing(&machine);
    assert!(no_driver.ends_with("on the PCI bus there is 0000:17:00.0"), "{no_driver}");
    assert!(remedy.contains("install NVIDIA's driver"), "{remedy}");
}

#[test]
fn a_driver_without_its_compute_part_or_without_a_gpu_is_not_enough() {
    let (root, machine) = bare();
    let library = root.path().join("libnvidia-ml.so.1");
    make_nvml(&library, 1, 12);
    let finding = machine.look_for(DeviceClass::Cuda);
    let (check, missing) = finding.missing().next().unwrap();
    assert!(check.what.contains("libcuda.so.1") && missing.remedy.contains("compute"), "{finding:?}");
    assert!(!finding.is_present);

    let (root, machine) = bare();
    make_nvml(&root.path().join("libnvidia-ml.so.1"), 0, 0);
    let finding = machine.look_for(DeviceClass::Cuda);
    assert_eq!(finding.missing().next().unwrap().1.missing, "none");
    assert_eq!(finding.tensor_parallel, None);
}
