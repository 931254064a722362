//! The table that a person reads, and its other formats.

use bench::analysis::verdict::Status;
use bench::measurement::timeline::{ABSENT, Hiccup};
use bench::presentation::report::{Report, Results, TableFormat, table};
use bench::question::plan::Quantization;

use super::sketch::{Request, run_record, session, timeline, typical_run};

fn report() -> Report {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a", "b"])).unwrap();
    for (order, (label, repeat)) in (0..5).flat_map(|repeat| [("a", repeat), ("b", repeat)]).enumerate() {
        let mut timeline = typical_run(label, repeat, 8);
        timeline.run.order = order as u32;
        timeline.run.warnings.push("cpu governor is powersave".to_owned());
        timeline.run.point.slo.insert("avg_ttft_s".to_owned(), 0.001);
        if label == "b" && repeat > 2 {
            timeline.run.counters.malformed = 1;
        }
        results.add(&timeline).unwrap();
    }
    results.finish().unwrap()
}

#[test]
fn the_terminal_shows_numbers_verdicts_and_reasons() {
    let text = table(&report(), TableFormat::Table, false);
    let line = |part: &str| text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}\n{text}"));
    let engine = "engine: scripted (a schedule from a file, not vLLM) | device: cpu | model: tiny | ";
    let weights = "weights: float32 100.0 % of the bytes; layers: float32\n";
    assert!(text.starts_with(&format!("{engine}{weights}")), "{text}");
    for part in ["TTFT ms", "ITL ms", "TPOT ms", "transport ns"] {
        line(part);
    }
    assert!(line("sketch a").contains("2.01/2.01/-") && line("sketch a").contains("100/-"), "{text}");
    assert!(line("sketch a").trim_end().ends_with("valid 5/5"), "{text}");
    assert!(line("sketch b").trim_end().ends_with("INVALID 2/5"), "{text}");
    assert_eq!(line("INVALID b repeat 3"), "INVALID b repeat 3: 1 event records were malformed");
    assert_eq!(line("powersave"), "warning: all points: cpu governor is powersave");
    assert!(line("objective missed: a").contains("avg_ttft_s is 0.00201, its bound 0.001"), "{text}");
    assert!(line("-: a percentile").contains("299"));
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn objective_without_a_value_is_a_fault_that_is_told_with_the_reason() {
    let of_runs = |slo: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut results = Results::create(folder.path(), &session(&["a"])).unwrap();
        for repeat in 0..5 {
            let mut run = typical_run("a", repeat, 8);
            run.requests.iter_mut().for_each(|request| request.engine_scheduled_ns = ABSENT);
            run.run.point.slo.insert(slo.to_owned(), 0.1);
            results.add(&run).unwrap();
        }
        let report = results.finish().unwrap();
        let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
        (report, page)
    };
    let (report, page) = of_runs("avg_queue_s");
    assert!(report.runs.iter().all(|run| run.status == Status::Valid), "{:?}", report.runs[0].reasons);
    assert_eq!(report.exit_status(), 1);
    let line = "objective not judged: a avg_queue_s has no value: it was not measured";
    let text = table(&report, TableFormat::Table, false);
    assert!(text.lines().any(|told| told == line), "{text}");
    assert!(page.contains("1 objectives are not judged") && page.contains(line), "the page");
    let (judged, page) = of_runs("avg_ttft_s");
    assert_eq!(judged.exit_status(), 0);
    assert!(!page.contains("not judged"));
}

#[test]
fn colors_only_when_asked_for() {
    let (plain, colored) = (table(&report(), TableFormat::Table, false), table(&report(), TableFormat::Table, true));
    assert!(colored.contains("\u{1b}[1m\u{1b}[31mINVALID b repeat 3"), "{colored}");
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
    for format in [TableFormat::Md, TableFormat::Csv, TableFormat::Json] {
        assert!(!table(&report(), format, true).contains('\u{1b}'));
    }
}

#[test]
fn markdown_is_a_table() {
    let text = table(&report(), TableFormat::Md, false);
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 4, "{text}");
    assert!(rows.iter().all(|row| row.matches('|').count() == rows[0].matches('|').count()));
    assert!(rows[0].contains("| TTFT ms avg/p50/p99 ± |") && rows[1].starts_with("| --- | ---: |"), "{text}");
}

#[test]
fn csv_has_all_metrics_and_json_is_the_report() {
    let report = report();
    let text = table(&report, TableFormat::Csv, false);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let at = |name: &str| header.iter().position(|column| column == name).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[1][at("point")], &rows[1][at("valid")], &rows[0][at("p99_ttft_s")]), ("b", "3", ""));
    assert_eq!((&rows[0][at("transport_p50_ns")], &rows[0][at("transport_p99_ns")]), ("100", ""), "160 events");
    assert!(report.points[0].transport_ns.unwrap().p99.is_none() && report.runs[0].transport_ns.unwrap().p99.is_some());
    let json: serde_json::Value = serde_json::from_str(&table(&report, TableFormat::Json, false)).unwrap();
    assert_eq!(json, serde_json::to_value(&report).unwrap());
}

#[test]
fn a_report_without_runs_can_be_shown() {
    let empty = Report::empty(None);
    assert!(table(&empty, TableFormat::Table, false).starts_with("no run has ended yet"));
    assert_eq!(table(&empty, TableFormat::Csv, false).lines().count(), 1);
}

#[test]
fn a_footnote_says_how_many_itls_have_a_hiccup_in_them() {
    // Of point `a` 300 ITLs, from 1 to 300 us, so that three are above the p99; of `b` only 3, and no p99 is shown.
    let run_of = |label: &str, gaps: u64| {
        let mut events = vec![(10_000_000, 1)];
        for us in 1..=gaps {
            events.push((events[events.len() - 1].0 + us * 1_000, 1));
        }
        let mut run = timeline(&[Request::new(9_000_000, 9_000_000, 32, &events)]);
        let num_prompts = run.run.point.num_prompts;
        run.run = run_record(label, 0);
        run.run.point.num_prompts = num_prompts;
        (run, events)
    };
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a", "b"])).unwrap();
    let (mut a, events) = run_of("a", 300);
    // In the first ITL, the third, the 299th and the last.
    a.hiccups = [1, 3, 299, 300].map(|at| Hiccup { began_ns: events[at].0 - 900, ended_ns: events[at].0 }).to_vec();
    a.run.recorder_hiccups = Some(4);
    results.add(&a).unwrap();
    let (mut b, _) = run_of("b", 3);
    b.steps[2].involuntary_switches = 1;
    b.run.order = 1;
    results.add(&b).unwrap();
    let text = table(&results.finish().unwrap(), TableFormat::Table, false);
    let expected = "hiccups: 5 of 303 ITLs (1.65 %) have one in them, and 2 of the 3 above the p99 (66.7 %)";
    assert!(text.lines().any(|line| line == expected), "{text}");
    assert!(!table(&report(), TableFormat::Table, false).contains("hiccups"));
}

#[test]
fn engines_that_differ_are_told_apart_by_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::create(folder.path(), &session(&["a", "b"])).unwrap();
    for (label, quantization) in [("a", Quantization::None), ("b", Quantization::Fp8)] {
        let mut timeline = typical_run(label, 0, 8);
        timeline.run.engine_key.quantization = quantization;
        let facts = timeline.run.engine_facts.as_mut().unwrap();
        facts.other.insert("device_kind".to_owned(), "NVIDIA H200".into());
        results.add(&timeline).unwrap();
    }
    let text = table(&results.finish().unwrap(), TableFormat::Md, false);
    let engines: Vec<&str> = text.lines().filter(|line| line.starts_with("engine: ")).collect();
    assert!(engines.len() == 2 && engines[1].contains(r" \| quantization: fp8 \| on: NVIDIA H200 \| "), "{text}");
    let cells = |point: &str| text.lines().find(|line| line.starts_with(&format!("| sketch {point} "))).unwrap();
    assert!(
        cells("a").starts_with("| sketch a |  | ") && cells("b").starts_with("| sketch b | quantization: fp8 | "),
        "{text}"
    );
}

#[test]
fn a_footnote_says_how_well_every_stamp_is_bounded() {
    let said = |requests: u32, gaps_ns: [u32; 2]| {
        let folder = tempfile::tempdir().unwrap();
        let mut results = Results::create(folder.path(), &session(&["a", "b"])).unwrap();
        for (order, (label, gap_ns)) in ["a", "b"].into_iter().zip(gaps_ns).enumerate() {
            let mut timeline = typical_run(label, 0, requests);
            timeline.run.order = order as u32;
            timeline.tokens.iter_mut().for_each(|event| event.poll_gap_ns = 50);
            timeline.tokens.last_mut().unwrap().poll_gap_ns = gap_ns;
            results.add(&timeline).unwrap();
        }
        let text = table(&results.finish().unwrap(), TableFormat::Table, false);
        text.lines().find(|line| line.starts_with("stamps: ")).map(str::to_owned)
    };
    let worst = "stamps: every token within 54.0 us of becoming visible";
    assert_eq!(said(8, [54_000, 60]).as_deref(), Some(worst), "the worst point's; of 32 tokens there is no p99");
    let with_p99 = "stamps: every token within 54.0 us of becoming visible, 99 % of a point's within 0.0500 us";
    assert_eq!(said(80, [54_000, 60]).as_deref(), Some(with_p99));
    assert_eq!(said(8, [u32::MAX, 60]), None, "one token of `a` is not bounded");
}
