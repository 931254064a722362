//! `events.csv`: out and in again, and files that others wrote.

use std::path::Path;

use bench::metrics::{Metric, RunMetrics};
use bench::report::{Ruler, RunEntry, from_csv};
use bench::timeline::csv::{CsvError, read_from, write_events, write_header};
use bench::timeline::{Timeline, known};
use bench::verdict::Status;

use super::sketch::typical_run;

const HEADER: &str =
    "run,request,phase,kind,step,count,scheduled_ns,submitted_ns,emitted_ns,received_ns,poll_gap_ns,hiccup\n";

fn exported(timelines: &[Timeline]) -> String {
    let mut out = csv::Writer::from_writer(Vec::new());
    write_header(&mut out).unwrap();
    timelines.iter().for_each(|timeline| write_events(&mut out, timeline).unwrap());
    String::from_utf8(out.into_inner().unwrap()).unwrap()
}

fn imported(text: &str) -> Result<Vec<Timeline>, CsvError> {
    read_from(Path::new("events.csv"), text.as_bytes())
}

#[track_caller]
fn refused(rows: &str, expected: &str) {
    let message = imported(&(HEADER.to_owned() + rows)).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn what_was_written_gives_the_same_metrics() {
    let timelines = [typical_run("a", 0, 6), typical_run("b|c", 3, 4)];
    let read = imported(&exported(&timelines)).unwrap();
    assert_eq!(read.len(), 2);
    for (before, after) in timelines.iter().zip(&read) {
        let (before_metrics, after_metrics) = (RunMetrics::of_timeline(before), RunMetrics::of_timeline(after));
        for metric in Metric::all() {
            let of_events = !["queue", "prefill", "decode", "step_s", "hit_rate"]
                .iter()
                .any(|needs_more| metric.name().contains(needs_more));
            let expected = metric.value(&before_metrics).filter(|_| of_events);
            assert_eq!(metric.value(&after_metrics), expected, "{}", metric.name());
        }
        assert_eq!(before_metrics.transport_ns, after_metrics.transport_ns);
        assert_eq!(before_metrics.poll_gap_ns, after_metrics.poll_gap_ns);
        assert_eq!(RunEntry::of(after, Ruler::UNKNOWN).status, Status::Valid);
    }
    assert_eq!((read[0].run.point.name.as_str(), read[0].run.repeat), ("sketch", 0));
    assert_eq!((read[1].run.point.name.as_str(), read[1].run.point.point.as_str()), ("sketch|b", "c"));
    assert_eq!(read[1].run.repeat, 3);
}

#[test]
fn the_first_rows_are_as_described() {
    let text = exported(&[typical_run("a", 2, 1)]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], HEADER.trim_end());
    assert_eq!(lines[1], "sketch|a|2,0,prime,submit,,32,1000000,1000050,,,,");
    assert_eq!(lines[3], "sketch|a|2,0,prime,token,0,1,,,1999900,2000000,50,");
    assert_eq!(lines.last(), Some(&"sketch|a|2,1,measure,finish,,4,,,15013900,15014000,,"));
}

#[test]
fn columns_in_another_order_and_without_the_optional_ones() {
    let text = "received_ns,count,kind,request,run,phase,submitted_ns,scheduled_ns,remark\n\
                ,10,submit,r1,mine,measure,1500,1000,x\n\
                5000,1,token,r1,mine,measure,,,\n\
                6000,2,token,r1,mine,measure,,,\n\
                6000,3,finish,r1,mine,measure,,,y\n";
    let read = imported(text).unwrap();
    let entry = RunEntry::of(&read[0], Ruler::UNKNOWN);
    assert_eq!((entry.status, &entry.reasons), (Status::Valid, &Vec::new()));
    assert_eq!((entry.identity.name.as_str(), entry.identity.point.as_str()), ("mine", "mine"));
    assert_eq!(entry.values.get(Metric::named("avg_ttft_s").unwrap()), Some(4e-6));
    assert_eq!((entry.transport_ns, entry.steps, entry.identity.device), (None, None, None));
    assert_eq!(entry.poll_gap_ns, None);
    assert_eq!(known(read[0].tokens[0].emitted_ns), None);
}

#[test]
fn a_dropped_event_and_a_changed_length_are_found() {
    let text = exported(&[typical_run("a", 0, 2)]);
    let without = |line: usize| {
        let kept: Vec<&str> =
            text.lines().enumerate().filter(|(index, _)| *index != line).map(|(_, row)| row).collect();
        RunEntry::of(&imported(&kept.join("\n")).unwrap()[0], Ruler::UNKNOWN)
    };
    let token = text.lines().position(|row| row.contains("measure,token")).unwrap();
    assert!(without(token).reasons[0].contains("3 received"), "{:?}", without(token).reasons);
    let finish = text.lines().position(|row| row.contains("measure,finish")).unwrap();
    assert!(without(finish).reasons[0].contains("no finish record"));
    let submit = text.lines().position(|row| row.contains("measure,submit")).unwrap();
    assert!(without(submit).reasons[0].contains("never submitted"));
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_column() {
    let submit = "m,1,measure,submit,,10,1000,1500,,,,\n";
    refused("", "events.csv:1: there is no event in this file");
    refused(
        &format!("{submit}m,1,measure,token,,x,,,1,2,,\n"),
        "events.csv:3: column `count`: `x` is not a whole number",
    );
    refused("m,1,measure,token,,1,,,1,-2,,\n", "events.csv:2: column `received_ns`: `-2`");
    refused("m,1,measure,token,,1,,,1,18446744073709551615,,\n", "column `received_ns`");
    refused("m,1,measure,token,4294967295,1,,,1,1,,\n", "column `step`");
    refused("m,1,measure,token,,1,,,1,,,\n", "column `received_ns` is empty, and a token row needs it");
    refused("m,1,measure,submit,,10,,1500,,,,\n", "column `scheduled_ns` is empty, and a submit row needs it");
    refused("m,1,later,submit,,10,1,1,,,,\n", "column `phase`: `later` is none of prime, warmup, measure");
    refused("m,1,measure,stop,,10,1,1,,,,\n", "column `kind`: `stop` is none of submit, token, finish");
    refused("m,,measure,submit,,10,1,1,,,,\n", "column `request` is empty");
    refused(&submit.repeat(2), "events.csv:3: request `1` was submitted on an earlier line");
    refused(
        &format!("{submit}m,1,warmup,token,,1,,,1,2,,\n"),
        "request `1` is warmup here and measure on an earlier line",
    );
    refused("m,1,measure,submit\n", "events.csv:2: 4 fields where the header has 12 columns");
    refused("m,1,measure,token,,1,,,1,2,4294967295,\n", "column `poll_gap_ns`: `4294967295` is not a whole number");
    refused(
        "m,1,measure,token,,1,,,1,2,,both?\n",
        "column `hiccup`: `both?` is none of recorder, engine, both, nor empty",
    );
    let finish = "m,1,measure,finish,,1,,,1,2,,\n";
    refused(&finish.repeat(2), "events.csv:3: request `1` finished on an earlier line");
    let message = imported("run,request\n").unwrap_err().to_string();
    assert!(message.contains("events.csv:1: no column `phase`"), "{message}");
    let not_text = read_from(Path::new("events.csv"), &b"run,\xff\xfe\n"[..]).unwrap_err().to_string();
    assert!(not_text.contains("not UTF-8"), "{not_text}");
}

#[test]
fn a_file_with_several_runs_is_a_report_of_several_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.csv");
    let mut timelines: Vec<Timeline> = (0..3).map(|repeat| typical_run("a", repeat, 6)).collect();
    std::fs::write(&path, exported(&timelines)).unwrap();
    let report = from_csv(&path).unwrap();
    assert_eq!((report.runs.len(), report.points.len()), (3, 1));
    assert_eq!(report.points[0].num_valid, 3);
    assert_eq!(report.exit_status(), 0);
    timelines[1].tokens.pop();
    std::fs::write(&path, exported(&timelines)).unwrap();
    let report = from_csv(&path).unwrap();
    assert_eq!((report.points[0].num_valid, report.points[0].num_prompts), (2, 12));
    assert_eq!(report.exit_status(), 1);
    assert!(from_csv(&folder.path().join("none.csv")).unwrap_err().to_string().contains("none.csv: No such file"));
}
