//! The configuration file: read without trust, typed, and with every problem named by line and column.
//!
//! The format is described in `docs/config.md`. [`load`] gives what the file says; [`crate::question::resolve::resolve`] makes a
//! plan of it.

mod ab;
mod amount;
mod args;
mod builtin;
mod entry;
mod error;
mod matrix;
mod node;
mod range;
mod reader;
mod script;
mod settings;
mod source;
mod suggest;
mod whole_sweep;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use builtin::{
    BUILTIN_MODEL, BUILTIN_MODEL_CONFIG, BUILTIN_SMOKE, builtin_model_config, builtin_smoke, known_model_config,
};
pub use entry::Entry;
pub use error::{ConfigError, Problem};
pub use matrix::{Axis, Exclusion, Matrix};
pub use node::Place;
pub use reader::Given;
pub use script::{Fault, FaultKind, Script, ScriptNoise, ScriptedFinish, ScriptedRequest, load_script};
pub use settings::Settings;
pub use workload::{Scale, WORKLOADS, Workload};

pub(crate) use error::Problems;
pub(crate) use settings::MAX_REPEATS;
#[cfg(test)]
pub(crate) use settings::{AXIS_KEYS, SETTING_KEYS};
pub(crate) use suggest::quoted;

use crate::question::plan::{Location, WholeSweep};
use amount::Bounds;
use entry::Defaults;
use node::{Node, Value};
use reader::Reader;
use whole_sweep::WHOLE_SWEEP_KEYS;

/// What a configuration file says, typed, before anything is resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file's stem; names the results folder.
    pub name: String,
    /// The file, or `None` for the built-in sweep.
    pub file: Option<PathBuf>,
    /// What every entry falls back on.
    pub defaults: Settings,
    /// What is of no single point.
    pub whole_sweep: WholeSweep,
    /// Whether the command line asks for a comparison: every point is then one side of a pair.
    pub is_compared: bool,
    /// The entries, in the order of the file.
    pub entries: Vec<Entry>,
}

/// Keys of the file itself.
const TOP_KEYS: [&str; 2] = ["standalone_runs", "defaults"];

/// Reads the configuration file at `path`.
///
/// # Errors
/// Everything that is wrong with the file itself: that it cannot be read, is no YAML, or has unknown, repeated or
/// mistyped keys. Each problem has its line and column.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = source::read(path, &Bounds::CONFIG)?;
    parse(&text, stem_of(path), Some(path.to_path_buf()))
}

/// The file's name without its ending, of characters that are safe in a folder's name.
fn stem_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

/// Reads the text of a configuration.
fn parse(text: &str, name: String, file: Option<PathBuf>) -> Result<Config, ConfigError> {
    let mut reader = Reader::new(file.clone());
    let root = node::parse(text, &Bounds::CONFIG, |place, key| reader.told_twice(place, key)).map_err(
        |(place, message)| {
            let location = Location { file: file.clone(), line: place.line, column: place.column };
            ConfigError::single(location, message)
        },
    )?;
    let (defaults, entries) = read_root(&mut reader, &root);
    let Defaults { settings: defaults, whole_sweep, .. } = defaults;
    reader.problems.into_result(Config { name, file, defaults, whole_sweep, is_compared: false, entries })
}

fn read_root(reader: &mut Reader, root: &Node) -> (Defaults, Vec<Entry>) {
    if matches!(root.value, Value::Null) {
        reader.problem(root.place, "the configuration is empty; it needs `standalone_runs`, a list of entries");
    }
    let table = match &root.value {
        Value::Null => return Default::default(),
        Value::List(_) => {
            let message = "the configuration has to be a table of keys and values, and here it is a list: put \
                           `standalone_runs:` on a line above it";
            reader.problem(root.place, message);
            return Default::default();
        }
        _ => reader.table("the configuration", root).unwrap_or_default(),
    };
    let find = |wanted: &str| table.iter().find(|(key, _)| key.text == wanted).map(|(_, node)| node);

    for (key, _) in table.iter().filter(|(key, _)| !TOP_KEYS.contains(&key.text.as_str())) {
        reader.unknown(key.place, "key", &key.text, &TOP_KEYS);
    }
    let defaults = find("defaults").map(|node| read_defaults(reader, node)).unwrap_or_default();
    let mut entries = Vec::new();
    match find("standalone_runs") {
        Some(node) => {
            for item in reader.list("standalone_runs", node).unwrap_or_default() {
                entries.extend(entry::read(reader, item, &defaults));
            }
        }
        None if matches!(root.value, Value::Table(_)) => {
            reader.problem(root.place, "the configuration has no `standalone_runs`, the list of what to measure");
        }
        None => {}
    }
    (defaults, entries)
}

fn read_defaults(reader: &mut Reader, node: &Node) -> Defaults {
    let mut defaults = Defaults::default();
    let mut split_args = None;
    for (key, value) in reader.table("defaults", node).unwrap_or_default() {
        match key.text.as_str() {
            "args" => split_args = entry::read_args(reader, value),
            "matrix" => defaults.matrix = Arc::new(matrix::read(reader, value)),
            setting if settings::SETTING_KEYS.contains(&setting) => defaults.settings.read(reader, setting, value),
            of_sweep if WHOLE_SWEEP_KEYS.contains(&of_sweep) => defaults.whole_sweep.read(reader, of_sweep, value),
            entry_key if entry::ENTRY_KEYS.contains(&entry_key) => {
                reader.problem(key.place, format!("`{entry_key}` belongs into an entry of `standalone_runs`"));
            }
            other => {
                let known = [&entry::SHARED_KEYS[..], &settings::SETTING_KEYS[..], &WHOLE_SWEEP_KEYS[..]].concat();
                reader.unknown(key.place, "key of `defaults`:", other, &known);
            }
        }
    }
    if let Some(split) = split_args {
        defaults.engine_args = Some(Arc::new(entry::take_words(reader, &mut defaults.settings, split)));
    }
    let Settings { workload, input_len, output_len, prefix_len, prefix_hit_rate, .. } = &defaults.settings;
    if let (Some(workload), Some(length)) = (workload, input_len.as_ref().or(output_len.as_ref())) {
        let message = format!("`workload` gives the lengths, and line {} does too; keep one", length.place.line);
        reader.problem(workload.place, message);
    }
    if let (Some(rate), Some(length)) = (prefix_hit_rate, prefix_len) {
        let line = length.place.line;
        let message = format!("`prefix_hit_rate` gives the length of the prefix, and line {line} does too; keep one");
        reader.problem(rate.place, message);
    }
    defaults
}

impl Config {
    /// `place` in this configuration's file.
    pub fn location(&self, place: Place) -> Location {
        Location { file: self.file.clone(), line: place.line, column: place.column }
    }
}
