//! When the machine said that it was throttled.

use nvml_wrapper::bitmasks::device::ThrottleReasons;

use crate::measurement::telemetry::{Quantity, Sample};

/// NVML's reasons that hold nothing back: a GPU that is idle, or at the clocks that somebody has set.
const HARMLESS: ThrottleReasons = ThrottleReasons::GPU_IDLE.union(ThrottleReasons::APPLICATIONS_CLOCKS_SETTING);

/// The times between two successive samples of a device of which one says that it is throttled, or between which its
/// count of throttlings grew.
pub fn throttled_times(samples: &[Sample]) -> Vec<(u64, u64)> {
    let devices = samples.iter().map(|sample| sample.device + 1).max().unwrap_or(0);
    let of_device = |device| samples.iter().filter(move |sample: &&Sample| sample.device == device);
    let mut times = Vec::new();
    for device in 0..devices {
        let pairs = of_device(device).zip(of_device(device).skip(1));
        let throttled = pairs.filter(|(from, to)| is_throttled(from) || is_throttled(to) || has_grown(from, to));
        times.extend(throttled.map(|(from, to)| (from.at_ns, to.at_ns.saturating_add(to.took_ns.into()))));
    }
    times
}

fn is_throttled(sample: &Sample) -> bool {
    let reasons = sample.get(Quantity::ThrottleReasonBits).map(ThrottleReasons::from_bits_truncate);
    reasons.is_some_and(|reasons| !reasons.difference(HARMLESS).is_empty())
}

fn has_grown(from: &Sample, to: &Sample) -> bool {
    let counts = from.get(Quantity::ThrottleTotal).zip(to.get(Quantity::ThrottleTotal));
    counts.is_some_and(|(before, after)| after > before)
}
