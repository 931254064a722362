//! A machine made of files, and telemetry opened on it.

use std::fs;
use std::path::Path;

use bench::machine::device::{DeviceClass, Placement, WaitStrategy};
use bench::measurement::telemetry::{HostRoot, Places, Quantity, Sample, Sampling, Telemetry, TelemetryRecord};
use tempfile::TempDir;

/// `/proc` and `/sys`, as far as they are read.
pub struct Machine(TempDir);

impl Machine {
    pub fn bare() -> Machine {
        Machine(tempfile::tempdir().unwrap())
    }

    /// Two packages with their memory, four cores, pressure and stolen time.
    pub fn server() -> Machine {
        let machine = Machine::bare();
        for (zone, name, energy_uj) in [
            ("intel-rapl:0", "package-0", 100),
            ("intel-rapl:0:0", "core", 7),
            ("intel-rapl:0:1", "dram", 900),
            ("intel-rapl:1", "package-1", 2_000),
            ("intel-rapl:2", "psys", 5),
        ] {
            machine.write(&format!("sys/class/powercap/{zone}/name"), &format!("{name}\n"));
            machine.write(&format!("sys/class/powercap/{zone}/energy_uj"), &format!("{energy_uj}\n"));
            machine.write(&format!("sys/class/powercap/{zone}/max_energy_range_uj"), "10000\n");
        }
        for core in 0..4 {
            let cpu = format!("sys/devices/system/cpu/cpu{core}");
            machine.write(&format!("{cpu}/cpufreq/scaling_cur_freq"), &format!("{}\n", 1_000_000 * (core + 1)));
            machine.write(&format!("{cpu}/topology/physical_package_id"), &format!("{}\n", core / 2));
            machine.write(&format!("{cpu}/thermal_throttle/core_throttle_count"), &format!("{core}\n"));
            machine.write(&format!("{cpu}/thermal_throttle/package_throttle_count"), "10\n");
        }
        for (name, total) in [("cpu", 5), ("memory", 6), ("io", 7)] {
            let lines = format!(
                "some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
            );
            machine.write(&format!("proc/pressure/{name}"), &lines);
        }
        machine.write("proc/stat", "cpu  10 20 30 40 50 60 70 8 90 100\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        machine
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.0.path().join(path)).unwrap();
    }

    /// This machine's places, with a library and a service that are not there.
    pub fn places(&self) -> Places {
        Places {
            host: HostRoot(self.0.path().to_owned()),
            nvml: "/no/such/libnvidia-ml.so".into(),
            libtpu: "http://127.0.0.1:9".to_owned(),
        }
    }
}

/// The engine on cores 1 and 2.
pub fn placement() -> Placement {
    Placement {
        engine_cores: vec![1, 2],
        recorder_core: None,
        harness_cores: vec![0],
        wait_strategy: WaitStrategy::Sleep,
    }
}

pub fn open(places: &Places, class: DeviceClass) -> Telemetry {
    Telemetry::open(places, class, 1, &placement())
}

/// Samples now, and once more after `change`.
pub fn twice(telemetry: Telemetry, change: impl FnOnce()) -> (Telemetry, TelemetryRecord, Vec<Sample>) {
    let sampling: Sampling = telemetry.start(1, &placement()).unwrap();
    // Far longer than a look takes, and shorter than to the next one.
    std::thread::sleep(std::time::Duration::from_millis(300));
    change();
    sampling.stop()
}

/// A quantity of one device, sample by sample.
pub fn series(samples: &[Sample], device: u32, quantity: Quantity) -> Vec<Option<u64>> {
    samples.iter().filter(|sample| sample.device == device).map(|sample| sample.get(quantity)).collect()
}
