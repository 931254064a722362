//! The sources of a device class, and the thread that reads them.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::host::{Host, HostRoot};
use super::libtpu::{self, Tpus};
use super::nvml::{self, Gpus};
use super::sample::{Sample, SampledDevice, TelemetryRecord};
use crate::machine::device::{DeviceClass, Placement};
use crate::measurement::clock::thread_cpu_ns;
use crate::measurement::ring::clock_ns;

/// Where the sources are: those of this machine, or others in a test.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder that has `/proc` and `/sys`.
    pub host: HostRoot,
    /// NVIDIA's management library.
    pub nvml: OsString,
    /// The address of libtpu's metric service.
    pub libtpu: String,
}

impl Places {
    /// Those of this machine.
    pub fn of_this_machine() -> Places {
        Places { host: HostRoot(PathBuf::from("/")), nvml: nvml::LIBRARY.into(), libtpu: libtpu::ADDRESS.to_owned() }
    }
}

/// What was found when the sources were opened.
#[derive(Default)]
pub(super) struct Found {
    pub(super) devices: Vec<SampledDevice>,
    pub(super) sources: Vec<String>,
    pub(super) missing: Vec<String>,
}

impl Found {
    pub(super) fn note(&mut self, what: &str, is_there: bool) {
        if is_there { &mut self.sources } else { &mut self.missing }.push(what.to_owned());
    }
}

/// The sources that there are for an engine.
pub struct Telemetry {
    sources: Sources,
    found: Found,
}

/// The host comes first, then the accelerators of the class.
struct Sources {
    host: Host,
    gpus: Option<Gpus>,
    tpus: Option<Tpus>,
}

impl Telemetry {
    /// Opens the sources of an engine of `ranks` ranks on devices of `class`, which has been loaded: libtpu's service runs in
    /// its process. What is not there is noted, and no error.
    pub fn open(places: &Places, class: DeviceClass, ranks: u32, placement: &Placement) -> Telemetry {
        let mut found = Found::default();
        let host = Host::open(&places.host, &placement.engine_cores, &mut found);
        let gpus = (class == DeviceClass::Cuda).then(|| Gpus::open(&places.nvml, ranks, &mut found)).flatten();
        let tpus = (class == DeviceClass::Tpu).then(|| Tpus::open(&places.libtpu, &mut found)).flatten();
        Telemetry { sources: Sources { host, gpus, tpus }, found }
    }

    /// Begins to sample `rate_hz` times a second, at least 1, on a thread of its own.
    ///
    /// # Errors
    /// The system grants no thread.
    pub fn start(self, rate_hz: u32, placement: &Placement) -> io::Result<Sampling> {
        let (stop, stopped) = channel();
        let Telemetry { mut sources, found } = self;
        let placement = placement.clone();
        let thread = thread::Builder::new().spawn(move || {
            let not_pinned = placement.seat_telemetry();
            let (began_ns, cpu_began_ns) = (clock_ns(), thread_cpu_ns());
            let samples = sources.sample_until(&stopped, rate_hz);
            let (cpu_ns, wall_ns) = (thread_cpu_ns() - cpu_began_ns, clock_ns() - began_ns);
            Sampled { sources, samples, cpu_ns, wall_ns, not_pinned }
        })?;
        Ok(Sampling { thread, stop, found, rate_hz })
    }
}

impl Sources {
    /// One sample at once, one at each tick, and one at the end. A tick that was missed is left out.
    fn sample_until(&mut self, stopped: &Receiver<()>, rate_hz: u32) -> Vec<Sample> {
        let period_ns = 1_000_000_000 / u64::from(rate_hz.max(1));
        let mut samples = Vec::new();
        let mut due_ns = clock_ns();
        loop {
            self.sample(&mut samples);
            let now_ns = clock_ns();
            due_ns += period_ns * (now_ns.saturating_sub(due_ns) / period_ns + 1);
            match stopped.recv_timeout(Duration::from_nanos(due_ns - now_ns)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    self.sample(&mut samples);
                    return samples;
                }
            }
        }
    }

    fn sample(&mut self, samples: &mut Vec<Sample>) {
        let first = samples.len();
        let mut device = 0;
        let mut begin = |samples: &mut Vec<Sample>, count: usize| {
            for _ in 0..count {
                samples.push(Sample::unknown(device, clock_ns()));
                device += 1;
            }
        };
        begin(samples, 1);
        self.host.read(&mut samples[first]);
        end(&mut samples[first..]);
        if let Some(gpus) = &self.gpus {
            for place in 0..gpus.len() {
                begin(samples, 1);
                let at = samples.len() - 1;
                gpus.read(place, &mut samples[at]);
                end(&mut samples[at..]);
            }
        }
        if let Some(tpus) = &mut self.tpus {
            let at = samples.len();
            begin(samples, tpus.len());
            tpus.read(&mut samples[at..]);
            end(&mut samples[at..]);
        }
    }
}

fn end(samples: &mut [Sample]) {
    let now_ns = clock_ns();
    for sample in samples {
        sample.took_ns = u32::try_from(now_ns - sample.at_ns).unwrap_or(u32::MAX);
    }
}

/// What the thread gives back.
struct Sampled {
    sources: Sources,
    samples: Vec<Sample>,
    cpu_ns: u64,
    wall_ns: u64,
    not_pinned: Option<String>,
}

/// Sampling that goes on.
pub struct Sampling {
    thread: JoinHandle<Sampled>,
    stop: Sender<()>,
    found: Found,
    rate_hz: u32,
}

impl Sampling {
    /// Takes a last sample, and gives back the sources, how was sampled, and the samples in their order.
    pub fn stop(self) -> (Telemetry, TelemetryRecord, Vec<Sample>) {
        let _ = self.stop.send(()); // a thread that is gone says why below
        // A panic in it is a defect of this program, and goes on as one.
        let sampled = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let Sampled { sources, samples, cpu_ns, wall_ns, not_pinned } = sampled;
        let record = TelemetryRecord {
            rate_hz: self.rate_hz,
            devices: self.found.devices.clone(),
            sources: self.found.sources.clone(),
            missing: self.found.missing.clone(),
            cpu_ns,
            wall_ns,
            not_pinned,
        };
        (Telemetry { sources, found: self.found }, record, samples)
    }
}
