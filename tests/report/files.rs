//! A results folder: what each step leaves behind, and that it can be rebuilt.

use std::fs;
use std::path::Path;

use bench::plan::Quantization;
use bench::report::{REPORT_SCHEMA, Report, Results, export_csv, from_csv, rebuild};
use bench::timeline::{Outcome, Timeline};
use bench::verdict::Status;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

use super::sketch::{run_record, session, typical_run};

/// Two points of five runs, of which one is invalid and one failed.
fn measured(folder: &Path) -> Report {
    let mut results = Results::create(folder, &session(&["a", "b"])).unwrap();
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
    results.add(&typical_run("a", 0, 4)).unwrap();
    drop(results);
    // It died while it stored the next one.
    let torn = folder.path().join("runs/a-1");
    fs::create_dir(&torn).unwrap();
    fs::write(torn.join("timeline.bin"), "half").unwrap();
    assert_eq!(summary(folder.path())["runs"].as_array().unwrap().len(), 1);
    let report = rebuild(folder.path()).unwrap();
    assert_eq!((report.runs.len(), report.runs[0].status), (1, Status::Valid));
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
    assert!(error.contains("file/runs: Not a directory"), "{error}");
}
