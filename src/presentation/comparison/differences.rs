//! What two results were measured with, and in what that differs.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::base::printable::excerpt;
use crate::measurement::timeline::EngineFacts;
use crate::presentation::report::{PointEntry, Report, RunEntry};
use crate::question::plan::{EngineKey, Point};

/// Facts that each command has anew, by the last part of their path: they tell nothing of what was measured.
const ALWAYS_NEW: [&str; 9] =
    ["pid", "import_s", "warm", "reused", "command", "measured_at", "rows", "read_ns", "cpu_peaks"];

/// The most characters of a value that a line shows.
const SHOWN: usize = 120;

/// A line for each setting, engine fact, version and fact of the machine that differs, over the points that both have.
pub(super) fn differences(a: &Report, b: &Report, points: &[[&PointEntry; 2]]) -> Vec<String> {
    let mut lines: Vec<String> =
        differing(&of_command(a), &of_command(b)).iter().map(|(path, values)| line(path, values)).collect();
    let [known_a, known_b] = [a, b].map(KnownOfPoints::of);
    let mut of_points: BTreeMap<(String, [String; 2]), Vec<String>> = BTreeMap::new();
    for [of_a, of_b] in points {
        for found in differing(&known_a.of_point(of_a), &known_b.of_point(of_b)) {
            of_points.entry(found).or_default().push(of_a.identity.point.clone());
        }
    }
    for ((path, values), labels) in of_points {
        let is_everywhere = labels.len() == points.len();
        let place = if is_everywhere { String::new() } else { format!(" ({})", labels.join(", ")) };
        lines.push(line(&path, &values) + &place);
    }
    lines
}

fn line(path: &str, [a, b]: &[String; 2]) -> String {
    format!("differs: {path}: {a} in A, {b} in B")
}

/// Program, machine, sidecars and instrument.
fn of_command(report: &Report) -> Value {
    json!({
        "bench_version": report.bench_version,
        "environment": report.environment,
        "instrument": report.instrument,
        "plan": report.plan.as_ref().map(|plan| json!({"seed": plan.seed})),
    })
}

/// What a report knows of each point, by its label.
struct KnownOfPoints<'r> {
    planned: HashMap<&'r str, (&'r EngineKey, &'r Point)>,
    engine_facts: HashMap<&'r str, &'r EngineFacts>,
}

impl<'r> KnownOfPoints<'r> {
    /// The last of several.
    fn of(report: &'r Report) -> KnownOfPoints<'r> {
        let epochs = report.plan.iter().flat_map(|plan| &plan.epochs);
        let planned = epochs.flat_map(|epoch| epoch.points.iter().map(|point| (&epoch.key, point)));
        let facts = |run: &'r RunEntry| Some((run.identity.point.as_str(), run.engine_facts.as_deref()?));
        KnownOfPoints {
            planned: planned.map(|(key, point)| (point.point.as_str(), (key, point))).collect(),
            engine_facts: report.runs.iter().filter_map(facts).collect(),
        }
    }

    /// Settings of a point and of its engine, and what the loaded engine said of itself.
    fn of_point(&self, point: &PointEntry) -> Value {
        let label = point.identity.point.as_str();
        let (key, settings) = self.planned.get(label).copied().unzip();
        json!({"engine": key, "settings": settings, "engine_facts": self.engine_facts.get(label)})
    }
}

/// The paths at which two trees of facts differ, with both values.
fn differing(a: &Value, b: &Value) -> Vec<(String, [String; 2])> {
    let (mut leaves, mut path) = (BTreeMap::new(), Vec::new());
    collect(a, 0, &mut path, &mut leaves);
    collect(b, 1, &mut path, &mut leaves);
    let differs = leaves.into_iter().filter(|(_, [a, b])| a != b);
    let shown = |value: Option<String>| excerpt(value.as_deref().unwrap_or("nothing"), SHOWN).into_owned();
    differs.map(|(path, values)| (excerpt(&path, SHOWN).into_owned(), values.map(shown))).collect()
}

/// Leaves by their path. A null is as good as nothing: it is what older versions did not write.
fn collect(value: &Value, side: usize, path: &mut Vec<String>, leaves: &mut BTreeMap<String, [Option<String>; 2]>) {
    let mut inside = |part: String, value: &Value| {
        path.push(part);
        collect(value, side, path, leaves);
        path.pop();
    };
    match value {
        Value::Null => (),
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| !ALWAYS_NEW.contains(&key.as_str())) {
                inside(key.clone(), value);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(index, value)| inside(index.to_string(), value));
        }
        leaf => {
            let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
            leaves.entry(path.join(".")).or_default()[side] = Some(text);
        }
    }
}
