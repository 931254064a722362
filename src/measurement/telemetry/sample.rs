//! One look at one device, in memory and on disk the same fixed-size record.

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

use crate::base::absent::{ABSENT, known};

macro_rules! quantities {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a sample may hold, in the unit that the name ends with. Names with `Total` are counters that only grow.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Quantity {
            $($(#[$doc])* $name,)*
        }

        impl Quantity {
            /// How many there are.
            pub const COUNT: usize = [$(Quantity::$name),*].len();
        }
    };
}

quantities! {
    /// Energy used since some instant before the run.
    EnergyTotalUj,
    /// Power drawn.
    PowerMw,
    /// Clock of the compute units; of a host the mean over the engine's cores.
    ClockKhz,
    /// Clock of the memory.
    MemoryClockKhz,
    /// Temperature.
    TemperatureC,
    /// Memory in use.
    MemoryUsedBytes,
    /// All memory there is.
    MemorySizeBytes,
    /// Share of the time in which the compute units were busy.
    DutyCyclePpm,
    /// Bits of NVML's clock throttle reasons.
    ThrottleReasonBits,
    /// Times that the engine's cores, or their packages, were throttled for heat.
    ThrottleTotal,
    /// Time in which some task waited for a core.
    PressureCpuTotalUs,
    /// Time in which some task waited for memory.
    PressureMemoryTotalUs,
    /// Time in which some task waited for input or output.
    PressureIoTotalUs,
    /// Time that the hypervisor took from the cores, all of them together.
    StealTotalUs,
}

/// What one look at one device gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sample {
    /// Before the first reading, nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// What all readings of the device took, nanoseconds.
    pub took_ns: u32,
    /// Index into [`TelemetryRecord::devices`].
    pub device: u32,
    /// By [`Quantity`]; [`ABSENT`] where it is not known.
    pub values: [u64; Quantity::COUNT],
}

impl Sample {
    /// A sample of which nothing is known yet.
    pub fn unknown(device: u32, at_ns: u64) -> Sample {
        Sample { at_ns, took_ns: 0, device, values: [ABSENT; Quantity::COUNT] }
    }

    /// A value, if it is known.
    pub fn get(&self, quantity: Quantity) -> Option<u64> {
        known(self.values[quantity as usize])
    }

    /// Sets a value.
    pub fn set(&mut self, quantity: Quantity, value: Option<u64>) {
        self.values[quantity as usize] = value.unwrap_or(ABSENT);
    }
}

/// What is sampled as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The machine that everything runs on.
    Host,
    /// A GPU.
    Gpu,
    /// A TPU chip, or a core of one: whatever libtpu counts by.
    Tpu,
}

/// A device that is sampled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledDevice {
    /// What it is.
    pub kind: DeviceKind,
    /// Its name, as its source gives it.
    pub name: String,
}

/// How a run was sampled; the samples themselves are stored beside its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryRecord {
    /// Samples a second that were asked for.
    pub rate_hz: u32,
    /// What was sampled.
    pub devices: Vec<SampledDevice>,
    /// The sources that were found, in words.
    pub sources: Vec<String>,
    /// What was looked for and not found, and why.
    pub missing: Vec<String>,
    /// Processor time that the sampling thread used, nanoseconds.
    pub cpu_ns: u64,
    /// How long it ran, nanoseconds.
    pub wall_ns: u64,
    /// Why the thread is not on the cores that were meant for it; null if it is.
    pub not_pinned: Option<String>,
}
