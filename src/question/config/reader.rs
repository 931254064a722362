//! Typed reading of a located tree: every mismatch becomes a problem with its place, and the reading goes on.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::error::Problems;
use super::node::{Key, Node, Place, Value};
use super::suggest::{quoted, unknown};
use crate::question::plan::Location;

/// A value and where it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it stands in the file.
    pub place: Place,
}

impl<T> Given<T> {
    /// The value at `place`.
    pub(crate) fn new(value: T, place: Place) -> Given<T> {
        Given { value, place }
    }
}

/// Longest text that is accepted as a name, in bytes.
const MAX_NAME_BYTES: usize = 200;
/// Longest text of any key, in bytes. The longest is `args`, which each engine copies.
pub(super) const MAX_TEXT_BYTES: usize = 16 << 10;

/// Reads values and collects what is wrong with them.
pub(super) struct Reader {
    file: Option<PathBuf>,
    pub(super) problems: Problems,
    /// Values that the ranges read so far stand for.
    pub(super) ranged_values: usize,
    /// Values in the `exclude`s read so far.
    pub(super) excluded_values: usize,
}

impl Reader {
    pub(super) fn new(file: Option<PathBuf>) -> Reader {
        Reader { file, problems: Problems::default(), ranged_values: 0, excluded_values: 0 }
    }

    /// Notes that something is wrong at `place`.
    pub(super) fn problem(&mut self, place: Place, message: impl Into<String>) {
        let location = Location { file: self.file.clone(), line: place.line, column: place.column };
        self.problems.add(location, message);
    }

    /// Notes a key that stands twice in its table.
    pub(super) fn told_twice(&mut self, place: Place, key: &str) {
        self.problem(place, format!("the key {} stands twice in this table", quoted(key)));
    }

    /// Notes a word that is none of `known`, see [`unknown`].
    pub(super) fn unknown(&mut self, place: Place, what: &str, word: &str, known: &[&str]) {
        // Looking for the nearest takes time that a file full of unknown words must not multiply.
        if !self.problems.is_full() {
            self.problem(place, unknown(what, word, known));
        }
    }

    /// Notes a value that is not what `key` takes.
    pub(super) fn mismatch<T>(&mut self, key: &str, expected: &str, node: &Node) -> Option<T> {
        self.problem(node.place, format!("`{key}` has to be {expected}, and here it is {}", describe(&node.value)));
        None
    }

    /// The entries of a table.
    pub(super) fn table<'n>(&mut self, key: &str, node: &'n Node) -> Option<&'n [(Key, Node)]> {
        match &node.value {
            Value::Table(entries) => Some(entries),
            _ => self.mismatch(key, "a table of keys and values", node),
        }
    }

    /// The items of a list that is not empty.
    pub(super) fn list<'n>(&mut self, key: &str, node: &'n Node) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) if !items.is_empty() => Some(items),
            _ => self.mismatch(key, "a list with at least one item", node),
        }
    }

    /// A text that is not empty, as it stands.
    pub(super) fn text(&mut self, key: &str, node: &Node) -> Option<Given<String>> {
        match &node.value {
            Value::Text(text) if text.len() > MAX_TEXT_BYTES => {
                self.problem(node.place, format!("`{key}` is longer than {MAX_TEXT_BYTES} bytes"));
                None
            }
            Value::Text(text) if !text.trim().is_empty() => Some(Given::new(text.clone(), node.place)),
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) => self.mismatch(key, "text (put it in quotes)", node),
            _ => self.mismatch(key, "text", node),
        }
    }

    /// A text of one line and of limited length.
    pub(super) fn name(&mut self, key: &str, node: &Node) -> Option<Given<String>> {
        let name = self.text(key, node)?;
        if name.value.len() > MAX_NAME_BYTES || name.value.chars().any(char::is_control) {
            return self.mismatch(key, &format!("one line of at most {MAX_NAME_BYTES} bytes"), node);
        }
        Some(name)
    }

    /// A whole number in `range`.
    pub(super) fn whole(&mut self, key: &str, node: &Node, range: RangeInclusive<u64>) -> Option<Given<u64>> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match node.value {
            Value::Integer(number) => match u64::try_from(number).ok().filter(|number| range.contains(number)) {
                Some(number) => Some(Given::new(number, node.place)),
                None => self.mismatch(key, &expected, node),
            },
            _ => self.mismatch(key, &expected, node),
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn count(&mut self, key: &str, node: &Node, min: u32, max: u32) -> Option<Given<u32>> {
        let number = self.whole(key, node, min.into()..=max.into())?;
        // The range lies inside u32.
        u32::try_from(number.value).ok().map(|value| Given::new(value, number.place))
    }

    /// A finite number above zero.
    pub(super) fn positive(&mut self, key: &str, node: &Node) -> Option<f64> {
        let number = match node.value {
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => f64::NAN,
        };
        if number > 0.0 && number.is_finite() { Some(number) } else { self.mismatch(key, "a number above 0", node) }
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, key: &str, node: &Node) -> Option<Given<f64>> {
        let number = match node.value {
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => f64::NAN,
        };
        if (0.0..=1.0).contains(&number) {
            Some(Given::new(number, node.place))
        } else {
            self.mismatch(key, "a number from 0 to 1", node)
        }
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, key: &str, node: &Node) -> Option<bool> {
        match node.value {
            Value::Bool(truth) => Some(truth),
            _ => self.mismatch(key, "true or false", node),
        }
    }

    /// One of a few known words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, node: &Node, choices: &[(&str, T)]) -> Option<Given<T>> {
        // `quantization: none` and `None` are text to YAML, but `null` and an empty value are not.
        let word = match &node.value {
            Value::Text(word) => word,
            _ => {
                let known: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                return self.mismatch(key, &format!("one of {}", known.join(", ")), node);
            }
        };
        match choices.iter().find(|(known, _)| known == word) {
            Some((_, value)) => Some(Given::new(*value, node.place)),
            None => {
                let known: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.unknown(node.place, &format!("value of `{key}`:"), word, &known);
                None
            }
        }
    }
}

/// A value as a message shows it.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "empty".into(),
        Value::Bool(value) => format!("the truth value {value}"),
        Value::Integer(value) => format!("the number {value}"),
        Value::Float(value) => format!("the number {value}"),
        Value::Text(value) => format!("the text {}", quoted(value)),
        Value::List(items) if items.is_empty() => "an empty list".into(),
        Value::List(_) => "a list".into(),
        Value::Table(_) => "a table".into(),
    }
}
