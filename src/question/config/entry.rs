//! One entry of `standalone_runs`.

use std::sync::Arc;

use super::args::{self, SplitArgs};
use super::matrix::{self, Axis, Matrix};
use super::node::{Node, Place, Value};
use super::reader::{Given, Reader};
use super::settings::{LENGTH_KEYS, MAX_RANKS, SETTING_KEYS, Settings};
use super::whole_sweep::WHOLE_SWEEP_KEYS;
use crate::question::plan::WholeSweep;

/// One entry: a name, and what is crossed under it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What the report calls it.
    pub name: Given<String>,
    /// Its own keys, and the words taken from its `args`.
    pub settings: Settings,
    /// What `args` leaves for vLLM's own parser.
    pub engine_args: Arc<Given<Vec<String>>>,
    /// Tensor-parallel sizes to cross; empty if it gives none.
    pub tensor_parallel_sizes: Vec<Given<u32>>,
    /// Lengths to cross; empty if it has no `length_configs`.
    pub length_configs: Vec<Settings>,
    /// Axes to cross, and what is left out.
    pub matrix: Arc<Matrix>,
}

/// Keys that only an entry takes.
pub(super) const ENTRY_KEYS: [&str; 4] = ["name", "mode", "tensor_parallel_sizes", "length_configs"];

/// Keys that an entry and `defaults` take, beside the settings.
pub(super) const SHARED_KEYS: [&str; 2] = ["args", "matrix"];

/// Modes of the format, of which the first is the one that there is so far.
const MODES: [&str; 1] = ["vllm_throughput"];

/// An entry while it is read.
#[derive(Default)]
struct Draft {
    name: Option<Given<String>>,
    has_mode: bool,
    settings: Settings,
    engine_args: Option<Arc<Given<Vec<String>>>>,
    tensor_parallel_sizes: Vec<Given<u32>>,
    length_configs: Option<(Place, Vec<Settings>)>,
    matrix: Option<Arc<Matrix>>,
    /// Settings that are given as a list.
    lists: Vec<Axis>,
}

/// What `defaults` gives to every entry; shared, as a hostile file could have many entries and much to copy.
#[derive(Default)]
pub(super) struct Defaults {
    /// Its keys, and the words taken from its `args`.
    pub(super) settings: Settings,
    /// For entries without `args`.
    pub(super) engine_args: Option<Arc<Given<Vec<String>>>>,
    /// For entries without a `matrix`.
    pub(super) matrix: Arc<Matrix>,
    /// Of the whole sweep.
    pub(super) whole_sweep: WholeSweep,
}

/// Reads an entry.
pub(super) fn read(reader: &mut Reader, node: &Node, defaults: &Defaults) -> Option<Entry> {
    let mut draft = Draft::default();
    let mut split_args = None;
    for (key, value) in reader.table("an entry of standalone_runs", node)? {
        match key.text.as_str() {
            "name" => draft.name = reader.name("name", value),
            "mode" => {
                draft.has_mode = true;
                reader.choice("mode", value, &MODES.map(|mode| (mode, ())));
            }
            "args" => split_args = read_args(reader, value),
            "tensor_parallel_sizes" => draft.tensor_parallel_sizes = read_sizes(reader, value),
            "length_configs" => draft.length_configs = Some((key.place, read_length_configs(reader, value))),
            "matrix" => draft.matrix = Some(Arc::new(matrix::read(reader, value))),
            setting if SETTING_KEYS.contains(&setting) => match matrix::read_list(reader, setting, key.place, value) {
                Some(axis) => draft.lists.push(axis),
                None => draft.settings.read(reader, setting, value),
            },
            "<<" => {
                let message = "merge keys (`<<`) are not supported; put what entries share into `defaults`";
                reader.problem(key.place, message);
            }
            of_sweep if WHOLE_SWEEP_KEYS.contains(&of_sweep) => {
                reader.problem(key.place, format!("`{of_sweep}` is of the whole sweep: it belongs into `defaults`"));
            }
            other => {
                let known = [&ENTRY_KEYS[..], &SHARED_KEYS[..], &SETTING_KEYS[..]].concat();
                reader.unknown(key.place, "key of an entry:", other, &known);
            }
        }
    }
    if !draft.has_mode {
        reader.problem(node.place, format!("this entry has no `mode`; add `mode: {}`", MODES[0]));
    }
    if draft.name.is_none() && !has_key(node, "name") {
        reader.problem(node.place, "this entry has no `name`; the report needs one");
    }
    if let Some(split) = split_args {
        draft.take_args(reader, split);
    }
    let no_args = || Arc::new(Given::new(Vec::new(), node.place));
    let mut matrix = draft.matrix.take().unwrap_or_else(|| defaults.matrix.clone());
    draft.check_given_once(reader, &matrix.axes);
    if !draft.lists.is_empty() {
        let axes = [&draft.lists[..], &matrix.axes[..]].concat();
        matrix = Arc::new(Matrix { axes, ..Matrix::clone(&matrix) });
    }
    Some(Entry {
        name: draft.name?,
        engine_args: draft.engine_args.or_else(|| defaults.engine_args.clone()).unwrap_or_else(no_args),
        settings: draft.settings,
        tensor_parallel_sizes: draft.tensor_parallel_sizes,
        length_configs: draft.length_configs.map(|(_, lengths)| lengths).unwrap_or_default(),
        matrix,
    })
}

fn has_key(node: &Node, text: &str) -> bool {
    matches!(&node.value, Value::Table(entries) if entries.iter().any(|(key, _)| key.text == text))
}

/// Reads `args`.
pub(super) fn read_args(reader: &mut Reader, node: &Node) -> Option<Given<SplitArgs>> {
    let text = match &node.value {
        // `args:` with nothing behind it is a fair way to say that there are none, and so is empty text.
        Value::Null => String::new(),
        Value::Text(text) if text.trim().is_empty() => String::new(),
        _ => reader.text("args", node)?.value,
    };
    match args::split(&text) {
        Ok(split) => Some(Given::new(split, node.place)),
        Err(message) => {
            reader.problem(node.place, message);
            None
        }
    }
}

/// Gives the words taken from `args` the meaning of the keys that they stand for; what is left is vLLM's.
pub(super) fn take_words(reader: &mut Reader, settings: &mut Settings, split: Given<SplitArgs>) -> Given<Vec<String>> {
    let Given { value: split, place } = split;
    let mut from_args = Settings::default();
    let mut words: Vec<(&str, &str)> = Vec::new();
    for (key, word, value) in &split.taken {
        let earlier = words.iter().find(|(other, _)| other == key);
        let own = settings.given().into_iter().find(|(other, _)| other == key);
        match (earlier, own) {
            (Some((_, other)), _) => {
                reader.problem(place, format!("`args` gives `{key}` twice, as `{other}` and as `{word}`"));
            }
            (None, Some((_, own))) => {
                let message =
                    format!("`{word}` in `args` and the key `{key}` in line {} say the same; keep one", own.line);
                reader.problem(place, message);
            }
            (None, None) => from_args.read(reader, key, &Node { place, value: word_value(key, value) }),
        }
        words.push((key, word));
    }
    *settings = std::mem::take(settings).over(&from_args);
    Given::new(split.engine_args, place)
}

fn read_sizes(reader: &mut Reader, node: &Node) -> Vec<Given<u32>> {
    let mut sizes: Vec<Given<u32>> = Vec::new();
    for item in reader.list("tensor_parallel_sizes", node).unwrap_or_default() {
        let Some(size) = reader.count("tensor_parallel_sizes", item, 1, MAX_RANKS) else { continue };
        if sizes.iter().any(|other| other.value == size.value) {
            reader.problem(item.place, format!("{} stands twice in `tensor_parallel_sizes`", size.value));
        }
        sizes.push(size);
    }
    sizes
}

fn read_length_configs(reader: &mut Reader, node: &Node) -> Vec<Settings> {
    let mut configs: Vec<Settings> = Vec::new();
    for item in reader.list("length_configs", node).unwrap_or_default() {
        let mut lengths = Settings::default();
        for (key, value) in reader.table("an item of length_configs", item).unwrap_or_default() {
            if LENGTH_KEYS.contains(&key.text.as_str()) {
                lengths.read(reader, &key.text, value);
            } else {
                reader.unknown(key.place, "key of `length_configs`:", &key.text, &LENGTH_KEYS);
            }
        }
        for key in ["input_len", "output_len"].into_iter().filter(|key| !has_key(item, key)) {
            reader.problem(item.place, format!("this item of `length_configs` has no `{key}`"));
        }
        configs.push(lengths);
    }
    configs
}

impl Draft {
    fn take_args(&mut self, reader: &mut Reader, split: Given<SplitArgs>) {
        let engine_args = take_words(reader, &mut self.settings, split);
        let size_in_args = self.settings.tensor_parallel_size.is_some();
        if let (true, Some(size)) = (size_in_args, self.tensor_parallel_sizes.first()) {
            let message = "`tensor_parallel_sizes` and `--tensor-parallel-size` in `args` say the same; keep one";
            reader.problem(size.place, message);
            // Told once, in words that fit it.
            self.tensor_parallel_sizes.clear();
        }
        self.engine_args = Some(Arc::new(engine_args));
    }

    /// Notes everything that two parts of the entry give at once, where nobody could say which of them counts.
    fn check_given_once(&self, reader: &mut Reader, axes: &[Axis]) {
        let mut given: Vec<(&str, &str, Place)> = Vec::new();
        given.extend(self.settings.given().into_iter().map(|(key, place)| (key, "the entry", place)));
        if let Some(size) = self.tensor_parallel_sizes.first() {
            given.push(("tensor_parallel_size", "`tensor_parallel_sizes`", size.place));
        }
        if let Some((place, lengths)) = &self.length_configs {
            given.push(("input_len", "`length_configs`", *place));
            given.push(("output_len", "`length_configs`", *place));
            if let Some(prefix) = lengths.iter().find_map(|lengths| lengths.prefix_len.as_ref()) {
                given.push(("prefix_len", "`length_configs`", prefix.place));
            }
        }
        let keys_of = |axes: &[Axis]| axes.iter().flat_map(|axis| axis.keys.clone()).collect::<Vec<_>>();
        given.extend(keys_of(&self.lists).into_iter().map(|(key, place)| (key, "the entry", place)));
        given.extend(keys_of(axes).into_iter().map(|(key, place)| (key, "`matrix`", place)));

        for (index, (key, giver, place)) in given.iter().enumerate() {
            let clash = given[..index].iter().find(|(other, other_giver, _)| {
                // A prefix beside lengths is the more specific one; it is no second answer.
                let is_general_prefix =
                    *key == "prefix_len" && *giver == "`length_configs`" && *other_giver == "the entry";
                !is_general_prefix && (other == key || are_both_lengths(other, key) || are_both_prefixes(other, key))
            });
            if let Some((other, other_giver, other_place)) = clash {
                let message = format!(
                    "`{key}` in {giver} and `{other}` in {other_giver} (line {}) give the same thing; keep one",
                    other_place.line
                );
                reader.problem(*place, message);
            }
        }
    }
}

/// Whether one of the two keys is a named workload and the other one of the lengths that it stands for.
fn are_both_lengths(one: &str, other: &str) -> bool {
    let is_length = |key: &str| key == "input_len" || key == "output_len";
    (one == "workload" && is_length(other)) || (is_length(one) && other == "workload")
}

/// Whether both keys say how long the shared prefix is.
fn are_both_prefixes(one: &str, other: &str) -> bool {
    matches!((one, other), ("prefix_hit_rate", "prefix_len") | ("prefix_len", "prefix_hit_rate"))
}

/// The value of a word in `args`, typed as YAML would have typed it for the key.
fn word_value(key: &str, value: &str) -> Value {
    match value.parse() {
        Ok(number) if key != "model" => Value::Integer(number),
        _ => Value::Text(value.to_owned()),
    }
}
