//! GPUs, through a library that has NVML's functions and answers with numbers that are known.

use std::path::{Path, PathBuf};
use std::process::Command;

use bench::machine::device::DeviceClass;
use bench::measurement::telemetry::{DeviceKind, Places, Quantity, Telemetry};

use super::machine::{Machine, placement, series, twice};

/// Two GPUs. What the first one answers grows from call to call, so that no two samples are alike.
const LIBRARY: &str = r#"
typedef struct { int number; } Gpu;
static Gpu gpus[2] = {{0}, {1}};
static unsigned long long energy_mj = 5000;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) { *gpu = &gpus[index]; return index < 2 ? 0 : 2; }
static int text(char *out, const char *from, char last) {
    while (*from) *out++ = *from++;
    *out++ = last;
    *out = 0;
    return 0;
}
int nvmlDeviceGetName(Gpu *gpu, char *name, unsigned length) { return text(name, "NVIDIA B20", '0'); }
int nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned length) { return text(uuid, "GPU-", '0' + gpu->number); }
int nvmlDeviceGetTotalEnergyConsumption(Gpu *gpu, unsigned long long *mj) { *mj = energy_mj += 250; return 0; }
int nvmlDeviceGetPowerUsage(Gpu *gpu, unsigned *mw) { *mw = 700123; return 0; }
int nvmlDeviceGetClockInfo(Gpu *gpu, int clock, unsigned *mhz) { *mhz = clock == 1 ? 1965 : clock == 2 ? 3996 : 0; return 0; }
int nvmlDeviceGetTemperature(Gpu *gpu, int sensor, unsigned *c) { *c = sensor == 0 ? 61 : 0; return 0; }
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
int nvmlDeviceGetMemoryInfo_v2(Gpu *gpu, Memory *memory) {
    memory->total = 191ull << 30; memory->reserved = 1; memory->free = 2; memory->used = 177ull << 30;
    return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, unsigned long long *bits) { *bits = 0x4 | 0x20; return 0; }
"#;

fn built(folder: &Path, source: &str) -> PathBuf {
    let (code, library) = (folder.join("nvml.c"), folder.join("libnvidia-ml.so.1"));
    std::fs::write(&code, source).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).status().unwrap();
    assert!(status.success());
    library
}

fn with_library(machine: &Machine, source: &str) -> Places {
    Places { nvml: built(machine.path(), source).into(), ..machine.places() }
}

#[test]
fn a_gpu_says_all_that_nvml_knows() {
    let machine = Machine::bare();
    let telemetry = Telemetry::open(&with_library(&machine, LIBRARY), DeviceClass::Cuda, 2, &placement());
    let (_, record, samples) = twice(telemetry, || ());
    let devices: Vec<_> = record.devices.iter().map(|device| (device.kind, device.name.as_str())).collect();
    let gpu = (DeviceKind::Gpu, "NVIDIA B200");
    assert_eq!(devices, [(DeviceKind::Host, "host"), gpu, gpu]);
    assert!(record.sources.contains(&"NVML (2 of 2 GPUs)".to_owned()), "{:?}", record.sources);
    for device in [1, 2] {
        let of = |quantity| series(&samples, device, quantity);
        assert_eq!(of(Quantity::PowerMw), [Some(700_123); 2]);
        assert_eq!(of(Quantity::ClockKhz), [Some(1_965_000); 2]);
        assert_eq!(of(Quantity::MemoryClockKhz), [Some(3_996_000); 2]);
        assert_eq!(of(Quantity::TemperatureC), [Some(61); 2]);
        assert_eq!(of(Quantity::MemoryUsedBytes), [Some(177 << 30); 2]);
        assert_eq!(of(Quantity::MemorySizeBytes), [Some(191 << 30); 2]);
        assert_eq!(of(Quantity::ThrottleReasonBits), [Some(0x24); 2]);
        // Of two GPUs in turn.
        let energy = of(Quantity::EnergyTotalUj);
        assert_eq!(energy[1].unwrap() - energy[0].unwrap(), 500_000);
    }
    assert_eq!(series(&samples, 0, Quantity::PowerMw), [None; 2], "a host has no NVML");
}

#[test]
fn of_an_old_gpu_what_it_does_not_count_is_not_known() {
    let machine = Machine::bare();
    let source = LIBRARY.replace("*mj = energy_mj += 250; return 0;", "return 3;"); // NVML_ERROR_NOT_SUPPORTED
    let telemetry = Telemetry::open(&with_library(&machine, &source), DeviceClass::Cuda, 1, &placement());
    let (_, record, samples) = twice(telemetry, || ());
    assert_eq!(record.devices.len(), 2);
    assert_eq!(series(&samples, 1, Quantity::EnergyTotalUj), [None; 2]);
    assert_eq!(series(&samples, 1, Quantity::PowerMw), [Some(700_123); 2]);
}

#[test]
fn a_machine_without_the_library_or_enough_gpus_says_so() {
    let machine = Machine::bare();
    let missing = |places: &Places, ranks| {
        let (_, record, _) = twice(Telemetry::open(places, DeviceClass::Cuda, ranks, &placement()), || ());
        assert_eq!(record.devices.len(), 1);
        record.missing.last().unwrap().clone()
    };
    let without = missing(&machine.places(), 1);
    assert!(without.starts_with("NVML: /no/such/libnvidia-ml.so could not be opened: "), "{without}");
    assert_eq!(missing(&with_library(&machine, LIBRARY), 4), "NVML: the engine takes 4 GPUs, and 2 are visible");
}
