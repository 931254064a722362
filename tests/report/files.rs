//! A results folder: what each step leaves behind, and that it can be rebuilt.

use std::fs;
use std::path::Path;

use bench::analysis::verdict::Status;
use bench::measurement::timeline::{Outcome, Timeline};
use bench::presentation::report::{
    REPORT_SCHEMA, Report, Results, ResultsFolder, TableFormat, damaged_runs, export_csv, from_csv, read, rebuild,
    table,
};
use bench::question::plan::Quantization;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

use super::sketch::{run_record, session, session_with, typical_run};

/// Two points of five runs, of which one is invalid and one failed.
fn measured(folder: &Path) -> Report {
    let planned = session_with(&["a", "b"], |point| {
        point.num_prompts = 8;
        point.slo.insert("p90_ttft_s".to_owned(), 0.001);
    });
    let mut results = Results::create(folder, &planned).unwrap();
    for (order, (label, repeat)) in (0..5).flat_map(|repeat| [("a", repeat), ("b", repeat)]).enumerate() {
        let mut timeline = typical_run(label, repeat, 8);
        timeline.run.order = order as u32;
        timeline.run.point.slo.insert("p90_ttft_s".to_owned(), 0.001);
        match (label, repeat) {
            ("b", 1) => timeline.run.counters.ring_dropped = 3,
            ("b", 2) => timeline.run.outcome = Outcome::Failed("the engine exited".to_owned()),
            _ => (),
        }
        results.add(&timeline).unwrap();
    }
    results.finish().unwrap()
}

fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("summary_report.json")).unwrap()).unwrap()
}

#[track_caller]
fn assert_fits_schema(report: &Value) {
    let validator = jsonschema::validator_for(&serde_json::from_str(REPORT_SCHEMA).unwrap()).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(report).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn the_report_fits_its_schema_in_every_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    assert_fits_schema(&summary(folder.path()));
    let mut skipped = Timeline {
        run: run_record("a", 0),
        requests: vec![],
        tokens: vec![],
        steps: vec![],
        hiccups: vec![],
        telemetry: vec![],
    };
    skipped.run.outcome = Outcome::Skipped("no engine".to_owned());
    skipped.run.engine_facts = None;
    results.add(&skipped).unwrap();
    results.finish().unwrap();
    assert_fits_schema(&summary(folder.path()));
    let full = tempfile::tempdir().unwrap();
    measured(full.path());
    assert_fits_schema(&summary(full.path()));
    let events = export_csv(full.path()).unwrap();
    assert_fits_schema(&serde_json::to_value(from_csv(&events).unwrap()).unwrap());
}

#[test]
fn the_schema_is_strict() {
    let validator = jsonschema::validator_for(&serde_json::from_str(REPORT_SCHEMA).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    measured(folder.path());
    let report = summary(folder.path());
    let changes: [fn(&mut Value); 6] = [
        |report| report["runs"][0]["extra"] = Value::from(1),
        |report| report["points"][0]["avg_ttft_s"] = Value::from("fast"),
        |report| report["runs"][0]["status"] = Value::from("good"),
        |report| report["schema_version"] = Value::from(2),
        |report| report["runs"][0]["reasons"] = serde_json::json!(["a valid run has none"]),
        |report| {
            report["points"][0].as_object_mut().unwrap().remove("p99_itl_s");
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = report.clone();
        change(&mut changed);
        assert!(!validator.is_valid(&changed), "change {index} passes");
    }
}

#[test]
fn runs_and_points_say_what_became_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let report = measured(folder.path());
    assert_eq!(report.exit_status(), 1);
    let [a, b] = &report.points[..] else { panic!("{} points", report.points.len()) };
    assert_eq!((a.num_runs, a.num_valid), (5, 5));
    assert_eq!((b.num_runs, b.num_valid, b.num_invalid, b.num_failed_runs), (5, 3, 1, 1));
    let summary = summary(folder.path());
    let failed = summary["runs"].as_array().unwrap().iter().find(|run| run["status"] == "failed").unwrap();
    assert_eq!(failed["reasons"], serde_json::json!(["the engine exited"]));
    assert!(failed["avg_ttft_s"].is_null() && failed["transport_ns"].is_null() && failed["steps"].is_null());
    let invalid = summary["runs"].as_array().unwrap().iter().find(|run| run["status"] == "invalid").unwrap();
    assert!(invalid["avg_ttft_s"].is_f64(), "an invalid run keeps its numbers, with the reasons beside them");
    assert_eq!(invalid["num_prompts"], 8);
    assert_eq!(summary["runs"][0]["slo"][0]["met"], false);
}

#[test]
fn points_pool_their_valid_runs_and_give_intervals() {
    let folder = tempfile::tempdir().unwrap();
    measured(folder.path());
    let summary = summary(folder.path());
    let (a, b) = (&summary["points"][0], &summary["points"][1]);
    // Repeats 0 to 4 have their first tokens at 2 ms, plus 7 us times repeat mod 3, plus 1 us times the request: means of 2003.5 and
    // 2010.5 us twice, and of 2017.5 us once. Of their 15 pairs the eighth is the quickest run with the slowest.
    let avg_ttft_s = (2_003.5f64 * 2_017.5).sqrt() * 1e-6;
    assert!((a["avg_ttft_s"].as_f64().unwrap() - avg_ttft_s).abs() < 1e-12, "{}", a["avg_ttft_s"]);
    let interval = &a["intervals"]["avg_ttft_s"];
    let (low, high) = (interval["low"].as_f64().unwrap(), interval["high"].as_f64().unwrap());
    assert!(low < avg_ttft_s && avg_ttft_s < high && high - low < 20e-6, "{interval}");
    assert!(a["notes"].get("avg_ttft_s").is_none());
    assert_eq!(b["notes"]["avg_ttft_s"], "few runs");
    assert!(b["intervals"]["avg_ttft_s"]["low"].is_f64());
    // 40 requests do not show a p99; 120 gaps neither; their medians they do.
    assert!(a["p99_ttft_s"].is_null() && a["intervals"]["p99_ttft_s"].is_null() && a["p99_itl_s"].is_null());
    assert_eq!(a["notes"]["p99_itl_s"], "too few samples: 120 of the 299 that it takes");
    let rate = &a["intervals"]["p50_tpot_tokens_per_s"];
    let p50 = a["p50_tpot_tokens_per_s"].as_f64().unwrap();
    let (low, high) = (rate["low"].as_f64().unwrap(), rate["high"].as_f64().unwrap());
    assert!(low < high && low <= p50 && p50 <= high, "{rate} {p50}");
    assert_eq!((&a["num_prompts"], &b["num_prompts"]), (&Value::from(5 * 8), &Value::from(3 * 8)));
    assert!(summary["runs"][0]["p99_ttft_s"].is_f64());
}

/// The cells of a column of a table in the page, by the words of its header.
fn column(page: &str, header: &str) -> Vec<String> {
    let head = page.find(&format!(">{header}</th>")).unwrap_or_else(|| panic!("no column {header}"));
    let before = page[..head].rfind("<tr>").unwrap();
    let place = page[before..head].matches("<th").count() - 1;
    let (body, _) = page[head..].split_once("<tbody>").unwrap().1.split_once("</tbody>").unwrap();
    let cells = |row: &str| row.split("</td>").nth(place - 1).unwrap().rsplit('>').next().unwrap().to_owned();
    body.split("</tr>").filter(|row| row.contains("<td>")).map(cells).collect()
}

#[test]
fn percentile_of_too_few_samples_is_on_no_part_of_the_page() {
    let folder = tempfile::tempdir().unwrap();
    measured(folder.path());
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    // 40 and 24 requests, 120 and 72 ITLs: none has a p99, and the 24 have no p90.
    for header in
        ["TTFT 99 %, ms", "TTFT 99.9 %, ms", "ITL 99 %, ms", "ITL 99.9 %, ms", "transport, 99 % of tokens (us)"]
    {
        assert_eq!(column(&page, header), ["-", "-"], "{header}");
    }
    assert_eq!(column(&page, "TTFT 90 %, ms")[1], "-");
    assert!(column(&page, "TTFT 50 %, ms").iter().chain(&column(&page, "ITL slowest, ms")).all(|cell| cell != "-"));
}

#[test]
fn what_the_system_refused_the_instrument_is_in_summary_and_page() {
    let folder = tempfile::tempdir().unwrap();
    measured(folder.path());
    let refused = serde_json::json!(["memory locking: refused <here>"]);
    assert_eq!(summary(folder.path())["instrument"]["not_permitted"], refused);
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("memory locking: refused &lt;here&gt;"), "{page}");
}

#[test]
fn everything_is_rebuilt_from_the_stored_runs() {
    let folder = tempfile::tempdir().unwrap();
    measured(folder.path());
    let files = ["summary_report.json", "requests.parquet", "report.html", "itl_cdf.svg", "itl_cdf.png", "split.svg"];
    let before = files.map(|name| fs::read(folder.path().join(name)).unwrap());
    for name in files {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let without_data = folder.path().join("telemetry_power.svg");
    fs::write(&without_data, "of an earlier report").unwrap();
    rebuild(folder.path()).unwrap();
    assert!(!without_data.exists(), "a chart that has nothing to show is removed");
    for (name, before) in files.iter().zip(before) {
        assert!(fs::read(folder.path().join(name)).unwrap() == before, "{name} differs");
    }
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let (charts, mut others): (Vec<String>, Vec<String>) =
        names.partition(|name| name.ends_with(".svg") || name.ends_with(".png"));
    others.sort();
    assert_eq!(others, ["report.html", "requests.parquet", "runs", "summary_report.json"]);
    assert!(charts.len() > 10 && charts.len() % 2 == 0, "{charts:?}");
}

#[test]
fn the_page_has_every_chart_that_has_data_and_its_names_end_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    let mut run = typical_run("a", 0, 8);
    run.run.point.name = "</script><b>&\"".to_owned();
    results.add(&run).unwrap();
    results.finish().unwrap();
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    let (_, data) = page.split_once("id=\"chart-data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let charts: Value = serde_json::from_str(data).unwrap();
    let ids: Vec<&str> = charts.as_array().unwrap().iter().map(|chart| chart["id"].as_str().unwrap()).collect();
    for id in ["ttft_cdf", "itl_tail", "split", "step_time", "itl_life", "pareto_itl", "by_point_rate", "throughput"] {
        assert!(ids.contains(&id), "{id} is not among {ids:?}");
        assert!(page.contains(&format!("id=\"{id}\" role=\"img\"")), "{id}");
    }
    assert_eq!(charts[0]["series"][0]["name"], "</script><b>&\" a");
    assert!(!page.contains("<b>&"), "a name is text");
    // 32 requests of 4 tokens: the slowest is in the data as it was recorded.
    let slowest = charts[0]["series"][0]["points"].as_array().unwrap().last().unwrap();
    let summary = summary(folder.path());
    assert_eq!(
        slowest[0].as_f64().unwrap() / 1e3,
        summary["runs"][0]["p99_ttft_s"].as_f64().unwrap(),
        "of 8 samples the largest"
    );
}

#[test]
fn points_that_differ_in_their_quantization_alone_are_side_by_side() {
    let charts = |change: fn(&mut Timeline)| -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        let mut results = Results::create(folder.path(), &session(&["a", "a-fp8"])).unwrap();
        let (plain, mut quantized) = (typical_run("a", 0, 8), typical_run("a-fp8", 0, 8));
        quantized.run.engine_key.quantization = Quantization::Fp8;
        quantized.run.engine_facts.as_mut().unwrap().weights = None;
        quantized.run.order = 1;
        change(&mut quantized);
        results.add(&plain).unwrap();
        results.add(&quantized).unwrap();
        results.finish().unwrap();
        let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
        let (_, data) = page.split_once("id=\"chart-data\">").unwrap();
        let all: Vec<Value> = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
        all.into_iter().filter(|chart| chart["id"] == "quantization_rate").collect()
    };
    let found = charts(|_| ());
    let names: Vec<&Value> = found[0]["series"].as_array().unwrap().iter().map(|series| &series["name"]).collect();
    assert_eq!(names, ["none", "fp8"]);
    assert_eq!(found[0]["categories"], serde_json::json!(["sketch 32/4/0 x 8"]));
    assert_eq!(charts(|other| other.run.point.prefix_len = 16), Vec::<Value>::new());
}

#[test]
fn a_command_that_dies_keeps_its_finished_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    results.add(&typical_run("a", 0, 8)).unwrap();
    drop(results);
    // It died while it stored the next one.
    let torn = folder.path().join("runs/a-1");
    fs::create_dir(&torn).unwrap();
    fs::write(torn.join("timeline.bin"), "half").unwrap();
    let report = rebuild(folder.path()).unwrap();
    assert_eq!((report.runs.len(), report.runs[0].status), (1, Status::Valid));
    assert_eq!(summary(folder.path())["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn requests_are_a_row_each() {
    let folder = tempfile::tempdir().unwrap();
    measured(folder.path());
    let reader = SerializedFileReader::new(fs::File::open(folder.path().join("requests.parquet")).unwrap()).unwrap();
    let names: Vec<String> =
        reader.metadata().file_metadata().schema_descr().columns().iter().map(|c| c.name().to_owned()).collect();
    let at = |name: &str| names.iter().position(|column| column == name).unwrap();
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 10 * 9);
    let row = &rows[1];
    assert_eq!(row.get_string(at("point")).unwrap(), "a");
    assert_eq!(row.get_string(at("phase")).unwrap(), "measure");
    assert_eq!(row.get_long(at("output_tokens")).unwrap(), 4);
    assert!((row.get_double(at("ttft_s")).unwrap() - 2e-3).abs() < 1e-15);
    assert_eq!(row.get_string(at("run_status")).unwrap(), "valid");
}

#[test]
fn an_unwritable_folder_is_found_before_the_first_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Results::create(&file, &session(&["a"])).err().unwrap().to_string();
    assert!(error.contains("file: Not a directory"), "{error}");
}

#[test]
fn what_was_planned_and_never_measured_is_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a", "b"])).unwrap();
    let nothing = rebuild(folder.path()).unwrap();
    assert_eq!((nothing.num_missing(), nothing.exit_status()), (10, 1), "of an engine that never loaded");
    for repeat in [0, 1, 3] {
        results.add(&typical_run("a", repeat, 8)).unwrap();
    }
    let report = results.finish().unwrap();
    assert_eq!(rebuild(folder.path()).unwrap(), report);
    assert_eq!((report.num_missing(), report.exit_status()), (7, 1));
    let expected = serde_json::json!({"planned": 10, "measured": 3, "not_needed": 0, "missing": [
        {"point": "a", "repeats": [2, 4]}, {"point": "b", "repeats": [0, 1, 2, 3, 4]}]});
    assert_eq!(summary(folder.path())["coverage"], expected);
    let text = table(&report, TableFormat::Table, false);
    for line in [
        "MISSING: 10 runs are planned, 3 are measured, 7 are missing; `bench engine --resume DIR` measures the rest",
        "MISSING a repeats 2, 4",
        "MISSING b repeats 0 to 4",
    ] {
        assert!(text.lines().any(|told| told == line), "{text}");
    }
    assert!(text.contains("MISSING 2/5") && !text.contains("valid 3/3"), "{text}");
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("INCOMPLETE: of 10 planned runs 7 missing; 3 are valid."), "the first line of the page");
    assert!(page.contains("MISSING b repeats 0 to 4"), "and each by its name");
}

#[test]
fn a_run_that_was_measured_anew_counts_for_the_one_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    for repeat in 0..6 {
        let mut run = typical_run("a", repeat, 8);
        match repeat {
            2 => run.run.outcome = Outcome::Failed("the engine exited".to_owned()),
            5 => run.run.retry_of = Some(2),
            _ => (),
        }
        results.add(&run).unwrap();
    }
    let report = results.finish().unwrap();
    let coverage = report.coverage.as_ref().unwrap();
    assert_eq!((coverage.planned, coverage.measured, report.num_missing()), (5, 5, 0));
}

#[test]
fn one_damaged_run_is_named_and_the_rest_is_reported_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let whole = measured(folder.path());
    fs::write(folder.path().join("runs/a-3/timeline.bin"), "torn").unwrap();
    let report = rebuild(folder.path()).unwrap();
    assert_eq!(report.runs.len(), whole.runs.len() - 1);
    assert_eq!(report.damaged.len(), 1);
    assert_eq!((report.damaged[0].run.as_str(), report.damaged[0].path.as_str()), ("a-3", "runs/a-3/timeline.bin"));
    assert_eq!(report.num_missing(), 0, "it is damaged, and not missing");
    let text = table(&report, TableFormat::Table, false);
    assert!(text.contains("DAMAGED a-3: runs/a-3/timeline.bin: its 4 bytes are not the "), "{text}");
    assert!(text.contains("DAMAGED 1/5"), "{text}");
    assert!(
        fs::read_to_string(folder.path().join("report.html"))
            .unwrap()
            .contains("INCOMPLETE: of 10 planned runs 1 damaged")
    );
    assert_eq!(summary(folder.path())["damaged"][0]["run"], "a-3");
    let rows = fs::read_to_string(export_csv(folder.path()).unwrap()).unwrap();
    assert!(rows.contains("sketch|a|2") && !rows.contains("sketch|a|3"));
    assert_eq!(damaged_runs(folder.path()).unwrap(), report.damaged);
}

#[test]
fn the_numbers_of_a_refreshed_report_are_those_of_a_rebuilt_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["b", "a"])).unwrap();
    for (order, (label, repeat)) in (0..3).flat_map(|repeat| [("b", repeat), ("a", repeat)]).enumerate() {
        let mut run = typical_run(label, repeat, 8);
        run.run.order = order as u32;
        results.add(&run).unwrap();
        results.refresh();
        assert_eq!(results.report(), &read(folder.path()).unwrap(), "after run {order}");
    }
}

#[test]
fn a_folder_that_another_command_writes_into_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let first = Results::create(folder.path(), &session(&["a"])).unwrap();
    let stored = || fs::read(folder.path().join("runs/session.json")).unwrap();
    let before = stored();
    let refused = |other: &str| Results::create(folder.path(), &session(&[other])).err().unwrap().to_string();
    assert!(refused("b").contains("another command is writing its results here"), "{}", refused("b"));
    assert_eq!(stored(), before, "the first command's session");
    let refused = Results::resume(folder.path()).err().unwrap().to_string();
    assert!(refused.contains("another command is writing its results here"), "{refused}");
    assert_eq!(stored(), before);
    drop(first);
    let mut again = Results::create(folder.path(), &session(&["b"])).unwrap();
    assert_ne!(stored(), before, "one that has not measured leaves its folder to the next");
    again.add(&typical_run("b", 0, 4)).unwrap();
    drop(again);
    let before = stored();
    let refused = Results::create(folder.path(), &session(&["a"])).err().unwrap().to_string();
    assert!(refused.contains("already holds results"), "{refused}");
    assert_eq!(stored(), before);
}

#[test]
fn results_folders_of_one_name_get_a_number_each() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("results/sweep-20261128T120000Z");
    let folders: Vec<_> = (0..8)
        .map(|_| {
            let name = name.clone();
            std::thread::spawn(move || ResultsFolder::begin_new(&name).unwrap())
        })
        .map(|thread| thread.join().unwrap())
        .collect();
    let mut names: Vec<String> = folders.iter().map(|folder| folder.path().display().to_string()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 8);
    assert!(
        names.contains(&name.display().to_string()) && names.contains(&format!("{}-8", name.display())),
        "{names:?}"
    );
}

#[test]
fn only_runs_that_the_plan_asks_for_are_counted_when_a_sweep_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let asked = |label: &str, repeat: u32| typical_run(label, repeat, 8);
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    let mut other_settings = asked("a", 1);
    other_settings.run.point.seed = 2;
    let mut other_engine = asked("a", 2);
    other_engine.run.engine_key.model = "another".to_owned();
    for run in [asked("a", 0), other_settings, other_engine, asked("b", 0), asked("a", 5)] {
        results.add(&run).unwrap();
    }
    drop(results);
    let resumption = Results::resume(folder.path()).unwrap();
    let kept: Vec<_> = resumption.kept.iter().map(|run| (run.point.point.as_str(), run.repeat)).collect();
    assert_eq!(kept, [("a", 0)]);
    assert_eq!(resumption.set_aside.len(), 4, "{:?}", resumption.set_aside);
    assert!(resumption.set_aside.iter().all(|told| told.ends_with("it is not in the plan of this results folder")));
    assert_eq!(resumption.results.report().num_missing(), 4);
}

#[test]
fn a_summary_is_not_written_after_each_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
    let number =
        || std::os::unix::fs::MetadataExt::ino(&fs::metadata(folder.path().join("summary_report.json")).unwrap());
    let first = number();
    for repeat in 0..3 {
        results.add(&typical_run("a", repeat, 8)).unwrap();
    }
    assert_eq!(number(), first, "three runs within a moment");
    assert_eq!(rebuild(folder.path()).unwrap().runs.len(), 3, "all of them are stored");
}
