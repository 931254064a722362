//! What is checked between the runs of a sweep; keys of `defaults`, as they are of the whole sweep.

use super::node::{Node, Value};
use super::reader::Reader;

/// Keys of `defaults` that are no settings of a point.
pub(super) const HYGIENE_KEYS: [&str; 2] = ["sentinel", "check_reset"];

/// Most runs between two sentinels.
const MAX_EVERY: u32 = 100_000;

/// What is checked between the runs of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hygiene {
    /// When the sentinel runs.
    pub sentinel: Sentinel,
    /// Whether the state after a reset is compared with a fresh engine, once for each engine.
    pub check_reset: bool,
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

impl Hygiene {
    /// Reads the value of `key`, which is one of [`HYGIENE_KEYS`].
    pub(super) fn read(&mut self, reader: &mut Reader, key: &str, node: &Node) {
        match key {
            "sentinel" => self.sentinel = read_sentinel(reader, node).unwrap_or_default(),
            "check_reset" => self.check_reset = reader.truth(key, node).unwrap_or_default(),
            _ => reader.unknown(node.place, "key", key, &HYGIENE_KEYS),
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
