//! A YAML document as a tree in which every value knows its line and column.
//!
//! `yaml_serde` tells places only in its errors. So a scalar is read by raising an error at it: the error takes the
//! place of the scalar along, and the reading goes on behind it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::amount::{self, Bounds};
use crate::base::printable::printable;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// 1-based line.
    pub line: usize,
    /// 1-based column, in characters.
    pub column: usize,
}

impl Place {
    /// The begin of a document.
    pub(super) const START: Place = Place { line: 1, column: 1 };
}

/// A value and its place: its own for a scalar, that of the first key or item, or of the key before, for the others.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A key of a table and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) text: String,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

/// Deepest nesting; the format itself needs 6 levels.
const MAX_DEPTH: usize = 16;

/// Longest key; the longest of the format has 22 bytes.
const MAX_KEY_BYTES: usize = 200;

/// A value behind this column of its line is taken as the YAML reader gives it.
const MAX_COUNTED_COLUMNS: usize = 1000;

/// Up to this, 2^53, a floating-point number holds every whole number.
const MAX_WHOLE_FLOAT: f64 = (1u64 << 53) as f64;

/// The tree of the only document in `text`. Keys that stand twice in a table are told to `duplicate`.
///
/// # Errors
/// Place and message: not YAML, several documents, too deep or too many values, tags, keys that are not text.
pub(super) fn parse(
    text: &str,
    bounds: &Bounds,
    mut duplicate: impl FnMut(Place, &str),
) -> Result<Node, (Place, String)> {
    amount::check(text, bounds)?;
    let walk = Walk::new(text, bounds.values);
    let seed = NodeSeed { walk: &walk, place: Place::START, depth: 0 };
    match seed.deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(node) => {
            for key in walk.duplicates.into_inner() {
                duplicate(key.place, &key.text);
            }
            Ok(node)
        }
        Err(error) => {
            let place = error.location().map(|at| Place { line: at.line(), column: at.column() });
            let refusal = walk.refusal.take();
            Err(match refusal {
                Some((at, message)) => (at.or(place).unwrap_or(walk.last_place.get()), message),
                None => explain(text, &error, place, walk.last_place.get()),
            })
        }
    }
}

/// Place and message of an error that the YAML reader itself raised.
fn explain(text: &str, error: &serde_yaml::Error, place: Option<Place>, last: Place) -> (Place, String) {
    if error.to_string().contains("more than one document") {
        let place = Place { line: second_document_line(text), column: 1 };
        return (place, "a second YAML document begins here; a configuration is a single one".into());
    }
    let place = place.unwrap_or(last);
    if let Some(column) = indenting_tab(text, place.line) {
        let message = "a tab in the indentation, which YAML does not take: indent by spaces";
        return (Place { column, ..place }, message.into());
    }
    (place, format!("this is not YAML that can be read: {}", printable(&error.to_string())))
}

/// The column of a tab before the first word of a line.
fn indenting_tab(text: &str, line: usize) -> Option<usize> {
    let line = text.lines().nth(line.checked_sub(1)?)?;
    let indentation = &line[..line.len() - line.trim_start().len()];
    indentation.find('\t').map(|index| indentation[..index].chars().count() + 1)
}

/// What is said of `!name`.
const NO_TAGS: &str = "YAML tags (`!name`) have no meaning here; write the value without one, or put a text that begins \
                       with `!` in quotes";

/// The line of the first document marker that stands behind any content.
fn second_document_line(text: &str) -> usize {
    let mut has_content = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("---") && has_content {
            return index + 1;
        }
        has_content |= !line.trim().is_empty() && !line.starts_with(['#', '%']);
    }
    1
}

/// What one reading of a document has found so far.
struct Walk<'t> {
    text: &'t str,
    /// The byte that each line begins with.
    line_begins: Vec<usize>,
    max_values: usize,
    values: Cell<usize>,
    last_place: Cell<Place>,
    duplicates: RefCell<Vec<Key>>,
    /// Why the reading was given up, and where, in place of message and place of the error that ended it.
    refusal: RefCell<Option<(Option<Place>, String)>>,
}

impl<'t> Walk<'t> {
    fn new(text: &'t str, max_values: usize) -> Walk<'t> {
        Walk {
            text,
            line_begins: std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect(),
            max_values,
            values: Cell::new(0),
            last_place: Cell::new(Place::START),
            duplicates: RefCell::default(),
            refusal: RefCell::default(),
        }
    }

    /// The place that an error was raised at. Generic code sees the error only as text, and the text ends with
    /// `line L column C`, or has no such end at the very begin of the document.
    fn place_of(&self, error: &impl fmt::Display) -> Place {
        let text = error.to_string();
        let numbers = text.rsplit_once(" column ").and_then(|(before, column)| {
            let (_, line) = before.rsplit_once("line ")?;
            Some(Place { line: line.parse().ok()?, column: column.parse().ok()? })
        });
        let place = numbers.unwrap_or(Place::START);
        self.last_place.set(place);
        place
    }

    /// The text from a place on; empty far behind the begin of a line.
    fn written_at(&self, place: Place) -> &'t str {
        let line = self.line_begins.get(place.line - 1).map_or("", |begin| &self.text[*begin..]);
        let before = place.column - 1;
        // Columns are characters: counting them in a long line for each of its values would take too long.
        if before > MAX_COUNTED_COLUMNS {
            return "";
        }
        match line.as_bytes().get(..before) {
            Some(bytes) if bytes.is_ascii() => &line[before..],
            _ => line.char_indices().nth(before).map_or("", |(index, _)| &line[index..]),
        }
    }

    fn refuse<E: de::Error>(&self, message: impl Into<String>) -> E {
        *self.refusal.borrow_mut() = Some((None, message.into()));
        E::custom("")
    }

    /// Refuses a tag. The YAML reader drops those that begin with `!!`, and those of keys.
    fn check_tag<E: de::Error>(&self, place: Place) -> Result<(), E> {
        if !self.written_at(place).starts_with('!') {
            return Ok(());
        }
        *self.refusal.borrow_mut() = Some((Some(place), NO_TAGS.into()));
        Err(E::custom(""))
    }

    fn count_value<E: de::Error>(&self) -> Result<(), E> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > self.max_values {
            let message = format!("more than {} values, with all that aliases repeat", self.max_values);
            return Err(self.refuse(message));
        }
        Ok(())
    }
}

/// Reads one node.
struct NodeSeed<'w> {
    walk: &'w Walk<'w>,
    /// Of the key or the list that holds it.
    place: Place,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.walk.count_value()?;
        let mut scalar = None;
        let visitor = NodeVisitor { walk: self.walk, place: self.place, depth: self.depth, scalar: &mut scalar };
        match deserializer.deserialize_any(visitor) {
            Ok(node) => Ok(node),
            Err(error) => match scalar {
                Some(value) => {
                    let place = self.walk.place_of(&error);
                    self.walk.check_tag(place)?;
                    Ok(Node { place, value })
                }
                None => Err(error),
            },
        }
    }
}

/// Keeps a scalar in `scalar` and raises an error at it; builds the node of anything else.
struct NodeVisitor<'w, 's> {
    walk: &'w Walk<'w>,
    place: Place,
    depth: usize,
    scalar: &'s mut Option<Value>,
}

impl NodeVisitor<'_, '_> {
    fn keep<E: de::Error>(self, value: Value) -> Result<Node, E> {
        *self.scalar = Some(value);
        Err(E::custom(""))
    }

    fn check_depth<E: de::Error>(&self) -> Result<(), E> {
        if self.depth >= MAX_DEPTH {
            return Err(self.walk.refuse(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for NodeVisitor<'_, '_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value, a list or a table")
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.keep(Value::Null)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.keep(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.keep(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.keep(Value::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.keep(Value::Integer(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.keep(Value::Integer(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        // Nothing in the format comes near; what matters is that it stays out of every range.
        self.keep(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        // `64.0` is a whole number, and every whole one up to this bound is exact.
        let is_whole = value.fract() == 0.0 && value.abs() <= MAX_WHOLE_FLOAT;
        self.keep(if is_whole { Value::Integer(value as i128) } else { Value::Float(value) })
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.keep(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        self.check_depth()?;
        let mut nodes: Vec<Node> = Vec::new();
        let mut place = self.place;
        while let Some(node) = items.next_element_seed(NodeSeed { walk: self.walk, place, depth: self.depth + 1 })? {
            place = node.place;
            nodes.push(node);
        }
        let place = nodes.first().map_or(self.place, |node| node.place);
        Ok(Node { place, value: Value::List(nodes) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        self.check_depth()?;
        let mut table: Vec<(Key, Node)> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key_seed(KeySeed { walk: self.walk })? {
            let seed = NodeSeed { walk: self.walk, place: key.place, depth: self.depth + 1 };
            let node = entries.next_value_seed(seed)?;
            if seen.insert(key.text.clone()) {
                table.push((key, node));
            } else {
                self.walk.duplicates.borrow_mut().push(key);
            }
        }
        let place = table.first().map_or(self.place, |(key, _)| key.place);
        Ok(Node { place, value: Value::Table(table) })
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(self.walk.refuse(NO_TAGS))
    }
}

/// Reads a key, by the same means as a scalar.
struct KeySeed<'w> {
    walk: &'w Walk<'w>,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        struct KeyVisitor<'k>(&'k mut Option<String>);
        impl Visitor<'_> for KeyVisitor<'_> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key that is plain text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
                *self.0 = Some(text.to_owned());
                Err(E::custom(""))
            }
        }
        self.walk.count_value()?;
        let mut text = None;
        match (deserializer.deserialize_str(KeyVisitor(&mut text)), text) {
            // Every error below a key carries the key's text, so a long one would be copied for every value.
            (Err(_), Some(text)) if text.len() > MAX_KEY_BYTES => {
                Err(self.walk.refuse(format!("a key of more than {MAX_KEY_BYTES} bytes")))
            }
            (Err(error), Some(text)) => {
                let place = self.walk.place_of(&error);
                self.walk.check_tag(place)?;
                Ok(Key { place, text })
            }
            (Err(error), None) => Err(error),
            (Ok(()), _) => Err(self.walk.refuse("a key that is no text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        parse(text, &Bounds::CONFIG, |place, key| panic!("duplicate {key} at {place:?}")).unwrap()
    }

    /// All scalars and keys as `text@line:column`, in the order of the document.
    fn places(node: &Node) -> Vec<String> {
        let at = |place: Place, text: &str| format!("{text}@{}:{}", place.line, place.column);
        match &node.value {
            Value::List(items) => items.iter().flat_map(places).collect(),
            Value::Table(entries) => {
                entries.iter().flat_map(|(key, node)| [vec![at(key.place, &key.text)], places(node)].concat()).collect()
            }
            scalar => vec![at(node.place, &format!("{scalar:?}"))],
        }
    }

    #[test]
    fn every_scalar_knows_its_place() {
        let text = "a: 1\nb:\n  - x\n  - {c: true, d: 2.5}\n  -\ne: >-\n  two\n  words\n";
        let expected = [
            "a@1:1",
            "Integer(1)@1:4",
            "b@2:1",
            "Text(\"x\")@3:5",
            "c@4:6",
            "Bool(true)@4:9",
            "d@4:15",
            "Float(2.5)@4:18",
            "Null@5:4",
            "e@6:1",
            "Text(\"two words\")@6:4",
        ];
        assert_eq!(places(&tree(text)), expected);
    }

    #[test]
    fn an_alias_repeats_the_value_and_its_place() {
        assert_eq!(
            places(&tree("a: &x [1]\nb: *x\nc: 3")),
            ["a@1:1", "Integer(1)@1:8", "b@2:1", "Integer(1)@1:8", "c@3:1", "Integer(3)@3:4"]
        );
    }

    #[test]
    fn a_document_that_is_a_scalar_or_empty_is_a_node_at_its_begin() {
        assert_eq!(tree("word"), Node { place: Place::START, value: Value::Text("word".into()) });
        assert_eq!(tree("").value, Value::Null);
        assert_eq!(tree("# only a comment\n").value, Value::Null);
    }

    #[test]
    fn duplicates_are_told_and_the_first_one_counts() {
        let mut told = Vec::new();
        let node =
            parse("a: 1\nb: 2\na: 3\n", &Bounds::CONFIG, |place, key| told.push((place.line, key.to_owned()))).unwrap();
        assert_eq!(told, [(3, "a".to_owned())]);
        assert_eq!(places(&node), ["a@1:1", "Integer(1)@1:4", "b@2:1", "Integer(2)@2:4"]);
    }

    #[test]
    fn what_is_no_plain_tree_is_refused_at_its_place() {
        for (text, line, column, message) in [
            ("a: 1\nb: [1\n", 3, 1, "did not find expected"),
            ("a: 1\n---\nb: 2\n", 2, 1, "second YAML document"),
            ("a: !tag x\n", 1, 4, "tags"),
            ("b: 1\n[1]: 2\n", 2, 1, "key that is plain text"),
            ("a: *nothing\n", 1, 4, "anchor"),
        ] {
            let (place, found) = parse(text, &Bounds::CONFIG, |_, _| {}).unwrap_err();
            assert!(found.contains(message), "{text:?}: {found}");
            assert_eq!((place.line, place.column), (line, column), "{text:?}: {found}");
        }
    }
}
