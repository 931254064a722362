//! The schemas against what they describe: neither has a field that the other does not know.

use std::collections::BTreeSet;

use bench::measurement::timeline::{EngineSetting, Hiccup, Speculation, WarmUp};
use bench::presentation::report::{DamagedRun, REPORT_SCHEMA, Results, TableFormat, table};
use bench::question::plan::{Arm, PairMember, Role};
use serde_json::{Map, Value};

use super::hygiene::unsteady_run;
use super::roofline::on_tiny;
use super::sketch::{run_in_role, session};
use super::telemetry::with_everything_sampled;

/// Where the schema leaves open what stands there: what the host and the engine say, and what was asked.
const OPEN: [&str; 3] = [".environment", ".plan", ".runs.engine_facts.other"];

/// Compares a report with its schema.
struct Walk<'a> {
    definitions: &'a Map<String, Value>,
    /// Definitions that some part of the report was held against.
    seen: BTreeSet<String>,
    problems: Vec<String>,
}

impl Walk<'_> {
    fn compare(&mut self, schema: &Value, value: &Value, path: &str) {
        if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
            self.seen.insert(name.to_owned());
            let definition = &self.definitions[name];
            return self.compare(definition, value, path);
        }
        if let Some(choices) = schema["oneOf"].as_array().filter(|_| !value.is_null()) {
            let other = choices.iter().find(|choice| choice["type"] != "null").expect("a choice that is not null");
            return self.compare(other, value, path);
        }
        match value {
            _ if OPEN.contains(&path) => (),
            Value::Array(items) => items.iter().for_each(|item| self.compare(&schema["items"], item, path)),
            Value::Object(fields) => self.compare_fields(schema, fields, path),
            _ => (),
        }
    }

    fn compare_fields(&mut self, schema: &Value, fields: &Map<String, Value>, path: &str) {
        // A map from names, which are data, to values of one kind.
        if schema["properties"].is_null() && schema["additionalProperties"].is_object() {
            return fields.values().for_each(|value| self.compare(&schema["additionalProperties"], value, path));
        }
        let names = |fields: Option<&Map<String, Value>>| -> BTreeSet<String> {
            fields.into_iter().flat_map(|fields| fields.keys().cloned()).collect()
        };
        let (described, there) = (names(schema["properties"].as_object()), names(Some(fields)));
        let required: BTreeSet<String> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect();
        if described != there {
            let differ: Vec<&String> = described.symmetric_difference(&there).collect();
            self.problems.push(format!("{path}: only the report or only the schema has {differ:?}"));
        }
        if described != required || schema["additionalProperties"] != false {
            self.problems.push(format!("{path}: the schema does not require what it describes, and nothing else"));
        }
        for (name, value) in fields {
            self.compare(&schema["properties"][name], value, &format!("{path}.{name}"));
        }
    }
}

/// Every field of `value` is in the schema, and every part of the schema is in `value`.
pub(crate) fn check(schema: &str, value: &Value) {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let definitions = schema["$defs"].as_object().unwrap();
    let mut walk = Walk { definitions, seen: BTreeSet::new(), problems: Vec::new() };
    walk.compare(&schema, value, "");
    assert!(walk.problems.is_empty(), "{:#?}", walk.problems);
    let never: Vec<&String> = definitions.keys().filter(|name| !walk.seen.contains(*name)).collect();
    assert!(never.is_empty(), "parts of the schema that nothing was held against: {never:?}");
}

#[test]
fn every_field_of_the_report_is_in_the_schema_and_none_besides() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    for (repeat, e2e_ns) in (0..5).zip([5_000_000, 5_100_000, 5_200_000, 5_300_000, 5_400_000]) {
        results.add(&run_in_role("sentinel-a", Role::Sentinel, repeat, e2e_ns)).unwrap();
    }
    for (epoch, role) in [(0, Role::AfterReset), (1, Role::FreshEngine)] {
        let mut run = run_in_role(&format!("check-{epoch}"), role, 0, 5_000_000);
        run.run.epoch = epoch;
        run.requests[0].cached_tokens = epoch;
        results.add(&run).unwrap();
    }
    for repeat in 0..3 {
        let mut run = unsteady_run("a", repeat);
        run.run.point.pair =
            Some(PairMember { pair: 0, arm: Arm::A, axis: "max_num_seqs".to_owned(), value: "4".to_owned() });
        run.run.engine_warm_up =
            Some(WarmUp { runs: 2, settled: Some(true), median_step_ns: vec![Some(9), None], took_s: 0.5 });
        run.run.point.slo.insert("avg_ttft_s".to_owned(), 0.001);
        run.hiccups = vec![Hiccup { began_ns: 12_500_000, ended_ns: 12_600_000 }];
        run.run.recorder_hiccups = Some(1);
        run.run.speculation = Some(Speculation { drafts: 2, draft_tokens: 8, accepted_tokens: 6, cut_tokens: 3 });
        run.run.engine_facts.as_mut().unwrap().settings = Some(vec![EngineSetting {
            name: "kv_cache_dtype".to_owned(),
            asked: Some("fp8".to_owned()),
            found: Some("fp8".to_owned()),
            differs: false,
        }]);
        let run = with_everything_sampled(on_tiny(run));
        results.add(&run).unwrap();
    }
    let mut report = results.finish().unwrap();
    let [run, path, problem] = ["a-3", "runs/a-3/timeline.bin", "it was cut off"].map(str::to_owned);
    report.damaged.push(DamagedRun { run, path, problem });
    let report: Value = serde_json::from_str(&table(&report, TableFormat::Json, false)).unwrap();
    check(REPORT_SCHEMA, &report);
}
