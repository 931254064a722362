//! The host: RAPL, cpufreq, pressure stall information, stolen time and thermal throttling, from sysfs and procfs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::sample::{DeviceKind, Quantity, Sample, SampledDevice};
use super::sampling::Found;
use crate::machine::device::stolen_ticks;

/// Longest file that is read in a sample; `/proc/stat` has the sum of all cores in its first line.
const READ_BYTES: usize = 512;
/// Microseconds in a tick of `/proc/stat`: USER_HZ is 100 on every platform that vLLM runs on.
const US_PER_TICK: u64 = 10_000;

/// Where `/proc` and `/sys` are: `/`, or a folder that a test has made.
#[derive(Clone, Debug)]
pub struct HostRoot(pub PathBuf);

/// The host's files, kept open: reading one again takes a single call.
pub(super) struct Host {
    rapl: Vec<RaplZone>,
    clocks: Vec<File>,
    throttles: Vec<File>,
    pressures: Vec<(Quantity, File)>,
    stat: Option<File>,
    energy_uj: u64,
}

/// An energy counter that starts again at 0 beyond its range.
struct RaplZone {
    counter: File,
    range_uj: u64,
    last_uj: u64,
}

impl Host {
    /// Opens what there is for an engine on `engine_cores`.
    pub(super) fn open(root: &HostRoot, engine_cores: &[usize], found: &mut Found) -> Host {
        let root = &root.0;
        found.devices.push(SampledDevice { kind: DeviceKind::Host, name: "host".to_owned() });
        let cpus = root.join("sys/devices/system/cpu");
        let clocks = of_cores(&cpus, engine_cores, "cpufreq/scaling_cur_freq");
        found.note("cpufreq (scaling_cur_freq)", !clocks.is_empty());
        let throttles = throttle_counters(&cpus, engine_cores);
        found.note("thermal throttle counts", !throttles.is_empty());
        let pressures: Vec<(Quantity, File)> = [
            ("cpu", Quantity::PressureCpuTotalUs),
            ("memory", Quantity::PressureMemoryTotalUs),
            ("io", Quantity::PressureIoTotalUs),
        ]
        .into_iter()
        .filter_map(|(name, quantity)| Some((quantity, readable(&root.join("proc/pressure").join(name))?)))
        .collect();
        found.note("pressure stall information", !pressures.is_empty());
        let stat = readable(&root.join("proc/stat")).filter(|file| read(file, stolen_ticks).is_some());
        found.note("stolen time (/proc/stat)", stat.is_some());
        Host { rapl: rapl_zones(root, found), clocks, throttles, pressures, stat, energy_uj: 0 }
    }

    pub(super) fn read(&mut self, sample: &mut Sample) {
        let growths = self.rapl.iter_mut().map(RaplZone::growth_uj).collect::<Option<Vec<u64>>>();
        match growths {
            // What a counter has grown while another could not be read is lost, and with it the sum.
            None => self.rapl.clear(),
            Some(growths) => self.energy_uj += growths.iter().sum::<u64>(),
        }
        sample.set(Quantity::EnergyTotalUj, (!self.rapl.is_empty()).then_some(self.energy_uj));
        let sum = |files: &[File]| {
            let values = files.iter().map(|file| read(file, number)).collect::<Option<Vec<u64>>>()?;
            (!values.is_empty()).then(|| values.iter().sum::<u64>())
        };
        sample.set(Quantity::ClockKhz, sum(&self.clocks).map(|khz| khz / self.clocks.len() as u64));
        sample.set(Quantity::ThrottleTotal, sum(&self.throttles));
        for (quantity, file) in &self.pressures {
            sample.set(*quantity, read(file, pressure_total_us));
        }
        let ticks = self.stat.as_ref().and_then(|file| read(file, stolen_ticks));
        sample.set(Quantity::StealTotalUs, ticks.map(|ticks| ticks * US_PER_TICK));
    }
}

impl RaplZone {
    fn open(folder: &Path) -> Option<RaplZone> {
        let counter = readable(&folder.join("energy_uj"))?;
        let range_uj = number(&fs::read_to_string(folder.join("max_energy_range_uj")).ok()?)?;
        let last_uj = read(&counter, number)?;
        Some(RaplZone { counter, range_uj, last_uj })
    }

    /// What was used since the last look. The counter is far slower than a round between two samples: package counters
    /// hold over 60 kJ, minutes at any power.
    fn growth_uj(&mut self) -> Option<u64> {
        let now_uj = read(&self.counter, number)?;
        let growth_uj =
            if now_uj >= self.last_uj { now_uj - self.last_uj } else { self.range_uj - self.last_uj + now_uj };
        self.last_uj = now_uj;
        Some(growth_uj)
    }
}

/// Packages and the memory beside them. Cores are a part of their package, and a platform's counter (`psys`) would count
/// the packages again.
fn rapl_zones(root: &Path, found: &mut Found) -> Vec<RaplZone> {
    let mut folders: Vec<(String, PathBuf)> = fs::read_dir(root.join("sys/class/powercap"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((fs::read_to_string(entry.path().join("name")).ok()?.trim().to_owned(), entry.path())))
        .filter(|(name, _)| name.starts_with("package") || name == "dram")
        .collect();
    folders.sort();
    let names: Vec<&str> = folders.iter().map(|(name, _)| name.as_str()).collect();
    let zones: Vec<RaplZone> = folders.iter().filter_map(|(_, folder)| RaplZone::open(folder)).collect();
    let what = format!("RAPL ({})", names.join(", "));
    if zones.len() == folders.len() && !zones.is_empty() {
        found.sources.push(what);
        return zones;
    }
    // A part of the packages is not the energy of the host.
    found.missing.push(match folders.is_empty() {
        true => "RAPL: no package in /sys/class/powercap".to_owned(),
        false => format!("{what}: the counters cannot be read (since Linux 5.10 only root may)"),
    });
    Vec::new()
}

fn of_cores(cpus: &Path, cores: &[usize], file: &str) -> Vec<File> {
    cores.iter().filter_map(|core| readable(&cpus.join(format!("cpu{core}")).join(file))).collect()
}

/// The counter of each core, and of each package once.
fn throttle_counters(cpus: &Path, cores: &[usize]) -> Vec<File> {
    let mut packages = Vec::new();
    let mut files = of_cores(cpus, cores, "thermal_throttle/core_throttle_count");
    for core in cores {
        let folder = cpus.join(format!("cpu{core}"));
        let package = fs::read_to_string(folder.join("topology/physical_package_id")).unwrap_or_default();
        if !packages.contains(&package) {
            packages.push(package);
            files.extend(readable(&folder.join("thermal_throttle/package_throttle_count")));
        }
    }
    files
}

/// The file, if it can be opened and read.
fn readable(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    let mut byte = [0];
    file.read_at(&mut byte, 0).ok()?;
    Some(file)
}

/// What `parse` makes of the file's first bytes.
fn read<T>(file: &File, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut bytes = [0; READ_BYTES];
    let length = file.read_at(&mut bytes, 0).ok()?;
    parse(std::str::from_utf8(&bytes[..length]).ok()?)
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, the first line of a pressure file.
fn pressure_total_us(text: &str) -> Option<u64> {
    text.lines().find(|line| line.starts_with("some "))?.rsplit_once("total=")?.1.parse().ok()
}
