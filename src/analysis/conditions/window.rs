//! What the samples say of a measured window.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use serde::Serialize;

use crate::analysis::metrics::Window;
use crate::machine::device::DeviceClass;
use crate::measurement::telemetry::{DeviceKind, Quantity, Sample, TelemetryRecord};
use crate::measurement::timeline::Timeline;

/// Telemetry of the measured window of a run. Null stands for what has no source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowTelemetry {
    /// Samples a second that were asked for.
    pub rate_hz: u32,
    /// Looks at the host in the window.
    pub samples: u64,
    /// Longest time from one look at the host to the next, in the window or across one of its ends, seconds.
    pub max_gap_s: Option<f64>,
    /// Share of a core that the sampling thread used, over the whole run.
    pub cpu_share: f64,
    /// The sources that were found.
    pub sources: Vec<String>,
    /// What was looked for and not found.
    pub missing: Vec<String>,
    /// Energy of the devices that the engine runs on, joules; null unless all of them have a counter.
    pub energy_j: Option<Counted>,
    /// That, divided by the output tokens of the window.
    pub energy_per_output_token_j: Option<Counted>,
    /// By device, the host first.
    pub devices: Vec<DeviceTelemetry>,
}

/// One device in the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceTelemetry {
    /// What it is.
    pub kind: DeviceKind,
    /// Its name.
    pub name: String,
    /// Energy used, joules.
    pub energy_j: Option<Counted>,
    /// Power drawn, watts.
    pub power_w: Option<Gauge>,
    /// Clock of the compute units, megahertz; of the host the mean over the engine's cores.
    pub clock_mhz: Option<Gauge>,
    /// Clock of the memory, megahertz.
    pub memory_clock_mhz: Option<Gauge>,
    /// Temperature, degrees Celsius.
    pub temperature_c: Option<Gauge>,
    /// Memory in use, bytes.
    pub memory_used_bytes: Option<Gauge>,
    /// All memory, bytes.
    pub memory_size_bytes: Option<Gauge>,
    /// Share of the time in which the compute units were busy, as the device says it.
    pub duty_cycle: Option<Gauge>,
    /// Why clocks were held down, and in how many samples.
    pub throttle_reasons: Option<Vec<ThrottleReason>>,
    /// Times that the engine's cores, or their packages, were throttled for heat.
    pub throttle_count: Option<Counted>,
    /// Share of the window in which some task of the machine waited for a core.
    pub pressure_cpu: Option<Counted>,
    /// The same for memory.
    pub pressure_memory: Option<Counted>,
    /// The same for input and output.
    pub pressure_io: Option<Counted>,
    /// Cores that the hypervisor took away, on average over the window.
    pub stolen_cores: Option<Counted>,
}

/// A quantity that is sampled at instants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gauge {
    /// Mean over the samples in the window.
    pub avg: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// What a counter has grown by over the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Counted {
    /// Between two samples the counter is taken to have grown evenly.
    pub value: f64,
    /// From the first sample in the window to the last: it has grown at least so much.
    pub low: f64,
    /// From the last sample before the window to the first after it: it has grown at most so much.
    pub high: f64,
}

/// One of NVML's clock throttle reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThrottleReason {
    /// NVML's name of it, in small letters.
    pub reason: String,
    /// Samples in the window that gave it.
    pub samples: u64,
    /// Samples in the window that gave any answer.
    pub of: u64,
}

impl WindowTelemetry {
    /// Of a run's window, in which it gave `output_tokens`; `None` if it was not sampled.
    pub fn of(timeline: &Timeline, window: Window, output_tokens: u64) -> Option<WindowTelemetry> {
        let record = timeline.run.telemetry.as_ref()?;
        let devices: Vec<DeviceTelemetry> = (0..record.devices.len())
            .map(|index| Series::of(&timeline.telemetry, index, window).device(record, index))
            .collect();
        let host = Series::of(&timeline.telemetry, 0, window);
        let energy_j = energy_j(&devices, timeline.run.engine_key.device);
        let per_token = |energy: Counted| energy.scaled(1.0 / output_tokens as f64);
        Some(WindowTelemetry {
            rate_hz: record.rate_hz,
            samples: host.inside().count() as u64,
            max_gap_s: host.max_gap_s(),
            cpu_share: record.cpu_ns as f64 / record.wall_ns.max(1) as f64,
            sources: record.sources.clone(),
            missing: record.missing.clone(),
            energy_j,
            energy_per_output_token_j: energy_j.filter(|_| output_tokens > 0).map(per_token),
            devices,
        })
    }

    /// What of it makes the run's numbers less trustworthy.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for device in &self.devices {
            let name = &device.name;
            for found in device.throttle_reasons.iter().flatten().filter(|found| found.slows()) {
                // Without their number, which is in `telemetry`: a sweep's points then share the line.
                let share = if found.samples == found.of { "all" } else { "some" };
                warnings.push(format!("throttling: {name}: {} in {share} samples of the window", found.reason));
            }
            if let Some(count) = device.throttle_count.filter(|count| count.high >= 1.0) {
                let (low, high) = (count.low, count.high);
                let times = if low == high { format!("{low}") } else { format!("{low} to {high}") };
                warnings.push(format!("throttling: {name}: the engine's cores were throttled for heat {times} times"));
            }
        }
        warnings
    }
}

/// Energy of all devices that an engine of this class runs on.
fn energy_j(devices: &[DeviceTelemetry], class: DeviceClass) -> Option<Counted> {
    let kind = match class {
        DeviceClass::Cpu => DeviceKind::Host,
        DeviceClass::Cuda => DeviceKind::Gpu,
        DeviceClass::Tpu => DeviceKind::Tpu,
    };
    let own = devices.iter().filter(|device| device.kind == kind);
    let energies: Vec<Counted> = own.map(|device| device.energy_j).collect::<Option<_>>()?;
    energies.into_iter().reduce(Counted::plus)
}

impl ThrottleReason {
    /// An idle GPU, or one at the clocks that somebody has set, is not held back.
    fn slows(&self) -> bool {
        !["gpu_idle", "applications_clocks_setting"].contains(&self.reason.as_str())
    }
}

impl Counted {
    fn scaled(self, factor: f64) -> Counted {
        Counted { value: self.value * factor, low: self.low * factor, high: self.high * factor }
    }

    fn plus(self, other: Counted) -> Counted {
        let Counted { value, low, high } = other;
        Counted { value: self.value + value, low: self.low + low, high: self.high + high }
    }
}

/// The samples of one device, in order, and the window.
struct Series<'a> {
    samples: Vec<&'a Sample>,
    window: Window,
}

impl<'a> Series<'a> {
    fn of(samples: &'a [Sample], device: usize, window: Window) -> Series<'a> {
        Series { samples: samples.iter().filter(|sample| sample.device as usize == device).collect(), window }
    }

    fn device(&self, record: &TelemetryRecord, index: usize) -> DeviceTelemetry {
        let gauge = |quantity, unit| self.gauge(quantity, unit);
        let counted = |quantity, unit| self.counted(quantity).map(|counted| counted.scaled(unit));
        let elapsed_us = self.window.elapsed_ns().max(1) as f64 / 1e3;
        DeviceTelemetry {
            kind: record.devices[index].kind,
            name: record.devices[index].name.clone(),
            energy_j: counted(Quantity::EnergyTotalUj, 1e-6),
            power_w: gauge(Quantity::PowerMw, 1e-3),
            clock_mhz: gauge(Quantity::ClockKhz, 1e-3),
            memory_clock_mhz: gauge(Quantity::MemoryClockKhz, 1e-3),
            temperature_c: gauge(Quantity::TemperatureC, 1.0),
            memory_used_bytes: gauge(Quantity::MemoryUsedBytes, 1.0),
            memory_size_bytes: gauge(Quantity::MemorySizeBytes, 1.0),
            duty_cycle: gauge(Quantity::DutyCyclePpm, 1e-6),
            throttle_reasons: self.throttle_reasons(),
            throttle_count: counted(Quantity::ThrottleTotal, 1.0),
            pressure_cpu: counted(Quantity::PressureCpuTotalUs, 1.0 / elapsed_us),
            pressure_memory: counted(Quantity::PressureMemoryTotalUs, 1.0 / elapsed_us),
            pressure_io: counted(Quantity::PressureIoTotalUs, 1.0 / elapsed_us),
            stolen_cores: counted(Quantity::StealTotalUs, 1.0 / elapsed_us),
        }
    }

    /// Samples all of whose readings lie in the window.
    fn inside(&self) -> impl Iterator<Item = &&'a Sample> {
        let Window { first_submit_ns, last_token_ns } = self.window;
        self.samples.iter().filter(move |sample| sample.at_ns >= first_submit_ns && read_ns(sample) <= last_token_ns)
    }

    fn max_gap_s(&self) -> Option<f64> {
        let Window { first_submit_ns, last_token_ns } = self.window;
        let touching = self
            .samples
            .windows(2)
            .map(|pair| (pair[0].at_ns, pair[1].at_ns))
            .filter(|(from_ns, to_ns)| *to_ns > first_submit_ns && *from_ns < last_token_ns);
        touching.map(|(from_ns, to_ns)| to_ns.saturating_sub(from_ns)).max().map(|gap_ns| gap_ns as f64 / 1e9)
    }

    /// Mean and extremes of the samples in the window, times `unit`.
    fn gauge(&self, quantity: Quantity, unit: f64) -> Option<Gauge> {
        let values: Vec<f64> =
            self.inside().filter_map(|sample| sample.get(quantity)).map(|value| value as f64 * unit).collect();
        let (min, max) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
        Some(Gauge { avg: values.iter().sum::<f64>() / values.len() as f64, min, max })
    }

    /// What a counter has grown by. `None` unless it was read on both sides of the window, and only grew.
    fn counted(&self, quantity: Quantity) -> Option<Counted> {
        let Window { first_submit_ns, last_token_ns } = self.window;
        let read: Vec<(&Sample, u64)> =
            self.samples.iter().filter_map(|sample| Some((*sample, sample.get(quantity)?))).collect();
        if !read.is_sorted_by_key(|(_, count)| *count) {
            return None;
        }
        let before = read.iter().rfind(|(sample, _)| read_ns(sample) <= first_submit_ns)?;
        let after = read.iter().find(|(sample, _)| sample.at_ns >= last_token_ns)?;
        let mut inside =
            read.iter().filter(|(sample, _)| sample.at_ns >= first_submit_ns && read_ns(sample) <= last_token_ns);
        let first = inside.next();
        let low = first.map_or(0, |(_, first)| inside.next_back().map_or(0, |(_, last)| last - first));
        let (began, ended) = (at(&read, first_submit_ns)?, at(&read, last_token_ns)?);
        Some(Counted { value: ended - began, low: low as f64, high: (after.1 - before.1) as f64 })
    }

    fn throttle_reasons(&self) -> Option<Vec<ThrottleReason>> {
        let all: Vec<u64> = self.inside().filter_map(|sample| sample.get(Quantity::ThrottleReasonBits)).collect();
        if all.is_empty() {
            return None;
        }
        let reason = |(name, bit): (&'static str, ThrottleReasons)| {
            let samples = all.iter().filter(|bits| **bits & bit.bits() != 0).count() as u64;
            (samples > 0).then(|| ThrottleReason { reason: name.to_lowercase(), samples, of: all.len() as u64 })
        };
        Some(ThrottleReasons::all().iter_names().filter_map(reason).collect())
    }
}

/// When the last reading of a sample was over.
fn read_ns(sample: &Sample) -> u64 {
    sample.at_ns.saturating_add(sample.took_ns.into())
}

/// The middle of a sample's readings.
fn middle_ns(sample: &Sample) -> u64 {
    sample.at_ns.saturating_add(u64::from(sample.took_ns) / 2)
}

/// A counter at an instant, on the line between the two samples around it.
fn at(read: &[(&Sample, u64)], instant_ns: u64) -> Option<f64> {
    let next = read.partition_point(|(sample, _)| middle_ns(sample) < instant_ns);
    let (after, after_count) = read.get(next)?;
    let Some((before, before_count)) = next.checked_sub(1).and_then(|index| read.get(index)) else {
        return (middle_ns(after) == instant_ns).then_some(*after_count as f64);
    };
    let (from_ns, to_ns) = (middle_ns(before), middle_ns(after));
    let part = (instant_ns - from_ns) as f64 / (to_ns - from_ns).max(1) as f64;
    Some(*before_count as f64 + part * (after_count - before_count) as f64)
}
