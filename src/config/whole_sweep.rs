//! Keys of `defaults` that are of the whole sweep: in which order it goes, and what is checked between its runs.

use super::node::{Node, Value};
use super::reader::Reader;

/// Keys of `defaults` that are no settings of a point.
pub(super) const WHOLE_SWEEP_KEYS: [&str; 3] = ["sentinel", "check_reset", "interleave_devices"];

/// Most runs between two sentinels.
const MAX_EVERY: u32 = 100_000;

/// What is of the whole sweep, and of no point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WholeSweep {
    /// When the sentinel runs.
    pub sentinel: Sentinel,
    /// Whether the state after a reset is compared with a fresh engine, once for each engine.
    pub check_reset: bool,
    /// Whether the runs of device classes alternate; else one class is measured after the other.
    pub interleave_devices: bool,
}

/// When the same work runs again, to show drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sentinel {
    /// Never.
    None,
    /// Where a sweep is long enough to need it.
    #[default]
    Auto,
    /// Before the first run of an epoch, after so many, and after its last one.
    Every(u32),
}

impl WholeSweep {
    /// Reads the value of `key`, which is one of [`WHOLE_SWEEP_KEYS`].
    pub(super) fn read(&mut self, reader: &mut Reader, key: &str, node: &Node) {
        match key {
            "sentinel" => self.sentinel = read_sentinel(reader, node).unwrap_or_default(),
            "check_reset" => self.check_reset = reader.truth(key, node).unwrap_or_default(),
            "interleave_devices" => self.interleave_devices = reader.truth(key, node).unwrap_or_default(),
            _ => reader.unknown(node.place, "key", key, &WHOLE_SWEEP_KEYS),
        }
    }
}

/// `none`, `auto`, or `{every: N}`.
fn read_sentinel(reader: &mut Reader, node: &Node) -> Option<Sentinel> {
    let Value::Table(_) = node.value else {
        let choices = [("none", Sentinel::None), ("auto", Sentinel::Auto)];
        return reader.choice("sentinel", node, &choices).map(|given| given.value);
    };
    let mut every = None;
    for (key, value) in reader.table("sentinel", node)? {
        match key.text.as_str() {
            "every" => every = reader.count("every", value, 1, MAX_EVERY).map(|count| count.value),
            other => reader.unknown(key.place, "key of `sentinel`:", other, &["every"]),
        }
    }
    every.map(Sentinel::Every)
}
