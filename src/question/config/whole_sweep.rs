//! Keys of `defaults` that are of the whole sweep: in which order it goes, and what is checked between its runs.

use super::node::{Node, Value};
use super::reader::Reader;
use crate::question::plan::{Sentinel, WholeSweep};

/// Keys of `defaults` that are no settings of a point.
pub(super) const WHOLE_SWEEP_KEYS: [&str; 3] = ["sentinel", "check_reset", "interleave_devices"];

/// Most runs between two sentinels.
const MAX_EVERY: u32 = 100_000;

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
