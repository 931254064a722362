//! `matrix`: the axes that are crossed, axes that go together, and the points that are left out.

use std::collections::HashSet;
use std::sync::Arc;

use super::node::{Node, Place, Value};
use super::range::{RANGE_FORMS, Range, Step};
use super::reader::{Given, Reader};
use super::settings::{AXIS_KEYS, Settings};
use super::suggest::quoted;

/// The `matrix` of an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Axes to cross.
    pub axes: Vec<Axis>,
    /// Points to leave out; shared, as many entries can take them from `defaults`.
    pub exclude: Arc<Vec<Exclusion>>,
    /// The axis whose two values are compared in pairs.
    pub compare: Option<Given<&'static str>>,
}

/// An axis of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The keys that it gives and where they stand: one, or those that are linked.
    pub keys: Vec<(&'static str, Place)>,
    /// A level of settings for each value; shared, as many entries can take them from `defaults`.
    pub values: Arc<Vec<Settings>>,
}

/// An item of `exclude`: points that have one of the named values in each of the named keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Exclusion {
    /// Where it stands.
    pub place: Place,
    conditions: Vec<Condition>,
}

/// What an exclusion says of one key.
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    key: &'static str,
    /// One of these has to hold.
    values: Vec<Excluded>,
}

#[derive(Clone, Debug, PartialEq)]
enum Excluded {
    Value(Box<Settings>),
    Between(u64, u64),
}

/// Keys of `matrix` that are no axes.
const LINKED: &str = "linked";
const EXCLUDE: &str = "exclude";
const COMPARE: &str = "compare";

/// Axes that cannot be compared: the members of a pair are run equally often, with prompts from the same seed.
const NEVER_COMPARED: [&str; 2] = ["repeats", "seed"];

/// Most values that the ranges of one file stand for, as a short text can stand for very many.
const MAX_RANGED_VALUES: usize = 100_000;

/// Most values in the `exclude`s of one file: every point is compared with those of its entry.
const MAX_EXCLUDED_VALUES: usize = 1_000;

impl Matrix {
    /// The exclusions that a point with these settings falls under.
    pub(crate) fn exclusions_of(&self, settings: &Settings) -> impl Iterator<Item = &Exclusion> {
        self.exclude.iter().filter(|exclusion| exclusion.conditions.iter().all(|condition| condition.holds(settings)))
    }
}

impl Condition {
    fn holds(&self, settings: &Settings) -> bool {
        self.values.iter().any(|excluded| match excluded {
            Excluded::Value(value) => settings.agrees(value, self.key),
            Excluded::Between(first, last) => {
                settings.number(self.key).is_some_and(|number| (*first..=*last).contains(&number))
            }
        })
    }
}

/// The axis of this name, if there is one.
fn axis_key(key: &str) -> Option<&'static str> {
    AXIS_KEYS.into_iter().find(|known| *known == key)
}

/// Reads `key` as an axis, if it is one and `node` gives it more than one value.
pub(super) fn read_list(reader: &mut Reader, key: &str, place: Place, node: &Node) -> Option<Axis> {
    let axis = axis_key(key)?;
    let is_list = matches!(node.value, Value::List(_)) || range_text(axis, node).is_some();
    is_list.then(|| Axis { keys: vec![(axis, place)], values: Arc::new(read_values(reader, axis, node)) })
}

/// Reads `matrix`.
pub(super) fn read(reader: &mut Reader, node: &Node) -> Matrix {
    let mut matrix = Matrix::default();
    for (key, value) in reader.table("matrix", node).unwrap_or_default() {
        match (key.text.as_str(), axis_key(&key.text)) {
            (_, Some(axis)) => {
                let values = read_values(reader, axis, value);
                matrix.axes.push(Axis { keys: vec![(axis, key.place)], values: Arc::new(values) });
            }
            (LINKED, None) => {
                for item in reader.list(LINKED, value).unwrap_or_default() {
                    matrix.axes.extend(read_linked(reader, item));
                }
            }
            (EXCLUDE, None) => {
                let items = reader.list(EXCLUDE, value).unwrap_or_default();
                matrix.exclude = Arc::new(items.iter().filter_map(|item| read_exclusion(reader, item)).collect());
            }
            (COMPARE, None) => matrix.compare = read_compared(reader, value),
            _ => reader.unknown(key.place, "axis", &key.text, &[&AXIS_KEYS[..], &[LINKED, EXCLUDE, COMPARE]].concat()),
        }
    }
    matrix
}

/// The name of an axis.
fn read_compared(reader: &mut Reader, node: &Node) -> Option<Given<&'static str>> {
    let name = reader.name(COMPARE, node)?;
    let Some(axis) = axis_key(&name.value) else {
        reader.unknown(node.place, "axis", &name.value, &AXIS_KEYS);
        return None;
    };
    if NEVER_COMPARED.contains(&axis) {
        let message = format!("`{axis}` is the same on both sides of a comparison; name another axis, or take it out");
        reader.problem(node.place, message);
        return None;
    }
    Some(Given::new(axis, node.place))
}

/// Keys whose values go together: the first of each, then the second of each, and so on.
fn read_linked(reader: &mut Reader, node: &Node) -> Option<Axis> {
    let mut linked: Option<Axis> = None;
    for (key, value) in reader.table("an item of linked", node)? {
        let Some(axis) = axis_key(&key.text) else {
            reader.unknown(key.place, "axis", &key.text, &AXIS_KEYS);
            continue;
        };
        let values = read_values(reader, axis, value);
        let Some(first) = &mut linked else {
            linked = Some(Axis { keys: vec![(axis, key.place)], values: Arc::new(values) });
            continue;
        };
        if values.len() != first.values.len() {
            let (other, count) = (first.keys[0].0, first.values.len());
            let message = format!(
                "`{axis}` has {} values and `{other}`, with which it is linked, has {count}; give each its partner",
                values.len()
            );
            reader.problem(key.place, message);
            continue;
        }
        first.keys.push((axis, key.place));
        first.values = Arc::new(first.values.iter().zip(values).map(|(lower, value)| value.over(lower)).collect());
    }
    if linked.as_ref().is_some_and(|axis| axis.keys.len() == 1) && !reader.problems.is_full() {
        let message = "a single key has nothing to be linked with; it can stand in `matrix` itself";
        reader.problem(node.place, message);
    }
    linked
}

fn read_exclusion(reader: &mut Reader, node: &Node) -> Option<Exclusion> {
    let mut conditions = Vec::new();
    for (key, value) in reader.table("an item of exclude", node)? {
        match axis_key(&key.text) {
            Some(axis) => conditions.push(Condition { key: axis, values: read_excluded(reader, axis, value) }),
            None => reader.unknown(key.place, "axis", &key.text, &AXIS_KEYS),
        }
    }
    if conditions.is_empty() {
        reader.problem(node.place, "this item of `exclude` names no key, so it would exclude everything");
        return None;
    }
    Some(Exclusion { place: node.place, conditions })
}

/// One value, several, or everything between two.
fn read_excluded(reader: &mut Reader, key: &'static str, node: &Node) -> Vec<Excluded> {
    let items = match &node.value {
        Value::List(_) => reader.list(key, node).unwrap_or_default(),
        _ => std::slice::from_ref(node),
    };
    reader.excluded_values += items.len();
    if reader.excluded_values > MAX_EXCLUDED_VALUES {
        reader.problem(node.place, format!("`exclude` has more than {MAX_EXCLUDED_VALUES} values up to this one"));
        return Vec::new();
    }
    let mut excluded = Vec::new();
    for item in items {
        match range_text(key, item).map(Range::parse) {
            Some(Some(Range { first, last, step: Step::Add(1) })) => excluded.push(Excluded::Between(first, last)),
            Some(_) => {
                let message = format!("`{key}` in `exclude` takes values, and ranges without steps such as 1..8");
                reader.problem(item.place, message);
            }
            None => {
                let mut value = Settings::default();
                value.read(reader, key, item);
                excluded.push(Excluded::Value(Box::new(value)));
            }
        }
    }
    excluded
}

/// A level of settings for each value of an axis: a list, in which ranges stand for their values, or a range alone.
fn read_values(reader: &mut Reader, key: &'static str, node: &Node) -> Vec<Settings> {
    let items = match (&node.value, range_text(key, node)) {
        (_, Some(_)) => std::slice::from_ref(node),
        (Value::List(_), None) => reader.list(key, node).unwrap_or_default(),
        _ if Settings::counts(key) => {
            reader.mismatch(key, &format!("a list with at least one item, or {RANGE_FORMS}"), node).unwrap_or_default()
        }
        _ => reader.list(key, node).unwrap_or_default(),
    };
    let items: Vec<Node> = items.iter().flat_map(|item| expand(reader, key, item)).collect();
    let mut values: Vec<Settings> = Vec::new();
    let (mut numbers, mut others) = (HashSet::new(), Vec::new());
    for item in &items {
        let is_new = match &item.value {
            Value::Integer(number) => numbers.insert(*number),
            other => {
                !others.contains(&other) && {
                    others.push(other);
                    true
                }
            }
        };
        if !is_new {
            reader.problem(item.place, format!("this value stands twice on the axis `{key}`"));
        }
        let mut settings = Settings::default();
        settings.read(reader, key, item);
        values.push(settings);
        if reader.problems.is_full() {
            break;
        }
    }
    values
}

/// The text of a range, where `key` takes whole numbers.
fn range_text<'n>(key: &str, node: &'n Node) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) if Settings::counts(key) && text.contains("..") => Some(text),
        _ => None,
    }
}

/// The values that a range stands for; anything else stands for itself.
fn expand(reader: &mut Reader, key: &str, node: &Node) -> Vec<Node> {
    let Some(text) = range_text(key, node) else { return vec![node.clone()] };
    let Some(range) = Range::parse(text) else {
        let message = format!("{} is not {RANGE_FORMS}, upwards and both ends meant", quoted(text));
        reader.problem(node.place, message);
        return Vec::new();
    };
    let room = MAX_RANGED_VALUES - reader.ranged_values;
    let values: Vec<Node> = range
        .values()
        .take(room + 1)
        .map(|value| Node { place: node.place, value: Value::Integer(value.into()) })
        .collect();
    if values.len() > room {
        reader.problem(node.place, format!("the ranges up to this one are more than {MAX_RANGED_VALUES} values"));
        return Vec::new();
    }
    reader.ranged_values += values.len();
    values
}
