//! `events.csv`: out and in again, and files that others wrote.

use std::path::Path;

use bench::analysis::metrics::{Metric, RunMetrics};
use bench::analysis::verdict::Status;
use bench::measurement::timeline::{Timeline, known};
use bench::presentation::exchange::csv::{CsvError, read_from, write_events, write_header};
use bench::presentation::report::{Ruler, RunEntry, from_csv};

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

/// A run of one request with these times and one token.
fn one_request(scheduled: u64, submitted: u64, emitted: &str, received: u64, finish: u64) -> String {
    format!(
        "{HEADER}m,1,measure,submit,,10,{scheduled},{submitted},,,,\n\
         m,1,measure,token,,1,,,{emitted},{received},,\nm,1,measure,finish,,1,,,,{finish},,\n"
    )
}

fn entry_of(text: &str) -> RunEntry {
    RunEntry::of(&imported(text).unwrap()[0], Ruler::UNKNOWN)
}

#[test]
fn times_of_a_request_that_are_out_of_order_are_invalid() {
    assert_eq!(entry_of(&one_request(1000, 1000, "1000", 1000, 1000)).status, Status::Valid);
    for (text, reason) in [
        (one_request(9000, 1000, "", 6000, 6000), "were submitted before they were scheduled"),
        (one_request(9000, 9000, "", 6000, 9000), "came before their request was submitted"),
        (one_request(1000, 2000, "1500", 6000, 6000), "came before their request was submitted"),
        (one_request(1000, 2000, "7000", 6000, 8000), "were received before they were emitted"),
        (one_request(1000, 2000, "", 6000, 5000), "came after the finish of their request"),
    ] {
        let entry = entry_of(&text);
        assert_eq!(entry.status, Status::Invalid, "{text}");
        assert!(entry.reasons.iter().any(|found| found.contains(reason)), "{reason}: {:?}", entry.reasons);
    }
    let finish_emitted = |emitted: u64| {
        let text = one_request(1000, 2000, "5000", 6000, 6000);
        entry_of(&text.replace("finish,,1,,,,", &format!("finish,,1,,,{emitted},"))).reasons
    };
    assert_eq!(finish_emitted(5000), Vec::<String>::new());
    assert!(finish_emitted(4999)[0].contains("came after the finish"), "{:?}", finish_emitted(4999));
    assert!(finish_emitted(7000)[0].contains("received before it was emitted"), "{:?}", finish_emitted(7000));
    let early = "finished before they were submitted";
    assert!(finish_emitted(1999).iter().any(|reason| reason.contains(early)), "{:?}", finish_emitted(1999));
}

#[test]
fn the_largest_time_is_taken_and_the_next_one_refused() {
    let most = i64::MAX as u64;
    assert_eq!(entry_of(&one_request(most - 5, most - 5, "", most, most)).status, Status::Valid);
    let message = imported(&one_request(0, 0, "", most + 1, most)).unwrap_err().to_string();
    assert!(message.contains("`9223372036854775808` is not a whole number from 0 to 9223372036854775807"), "{message}");
    refused("m,1,measure,token,,1,,,1,+2,,\n", "`+2` is not a whole number");
}

#[test]
fn an_itl_beyond_62_bits_is_exact_and_its_run_invalid() {
    let text = format!(
        "{HEADER}m,1,measure,submit,,10,0,0,,,,\nm,1,measure,token,,1,,,,1,,\n\
         m,1,measure,token,,1,,,,6000000000000000001,,\nm,1,measure,finish,,2,,,,6000000000000000001,,\n"
    );
    let entry = entry_of(&text);
    assert_eq!(entry.values.get(Metric::named("p50_itl_s").unwrap()), Some(6e9));
    assert!(entry.reasons[0].contains("numbers are exact up to"), "{:?}", entry.reasons);
}

#[test]
fn a_line_is_counted_as_an_editor_counts_it() {
    let bad = "m,1,later,submit,,10,1,1,,,,";
    let good = "m,1,measure,submit,,10,1,1,,,,";
    for (text, line) in [
        (format!("{HEADER}{good}\n{bad}\n"), 3),
        (format!("{HEADER}{good}\n{bad}\n").replace('\n', "\r\n"), 3),
        (format!("{HEADER}{good}\n{bad}\n").replace('\n', "\r"), 3),
        (format!("\n\n{HEADER}\n{good}\n\n\n{bad}\n"), 8),
        (format!("\n\n{HEADER}\n{good}\n\n\n{bad}").replace('\n', "\r\n"), 8),
        (format!("\u{feff}{HEADER}{good}\n{bad}"), 3),
        (
            format!(
                "{}\n\"m\n\nn\",,1,measure,submit,,10,1,1,,,,\r\n,{bad}",
                HEADER.replace("run,", "run,note,").trim()
            ),
            5,
        ),
    ] {
        let message = imported(&text).unwrap_err().to_string();
        assert!(message.starts_with(&format!("events.csv:{line}: column `phase`")), "{message}\n{text}");
        let cut = text.replace(bad, "m,1\r\n");
        let message = imported(&cut).unwrap_err().to_string();
        assert!(message.starts_with(&format!("events.csv:{line}: ")), "{message}\n{cut}");
    }
    let message = imported("\r\n\r\nrun,request\r\n").unwrap_err().to_string();
    assert!(message.starts_with("events.csv:3: no column `phase`"), "{message}");
    // A long file, so that rows stand across the ends of what is read at once.
    let mut rows = String::from(HEADER).replace('\n', "\r\n");
    (0..5000).for_each(|id| rows += &format!("m,{id},measure,submit,,10,1,1,,,,\r\n\r\n"));
    let message = imported(&(rows + bad)).unwrap_err().to_string();
    assert!(message.starts_with("events.csv:10002: "), "{message}");
}

#[test]
fn what_stands_twice_is_refused() {
    let twice = HEADER.replace("hiccup", "received_ns");
    let message = imported(&(twice + "m,1,measure,submit,,10,1,1,,,,\n")).unwrap_err().to_string();
    assert_eq!(message, "events.csv:1: duplicate column `received_ns`: remove one");
    let remarks = HEADER.replace("\n", ",,\n") + "m,1,measure,submit,,10,1,1,,,,,,\n";
    assert!(imported(&remarks).is_ok());
    for (one, other) in [("a|p|0", "a|p|00"), ("x", "x|x|0"), ("'=a|p|1", "=a|p|1")] {
        refused(
            &format!("{one},1,measure,submit,,10,1,1,,,,\n{other},1,measure,submit,,10,1,1,,,,\n"),
            &format!("events.csv:3: column `run`: `{other}` and `{one}` are one run"),
        );
    }
    let both = "a|p|1,1,measure,submit,,10,1,1,,,,\na|p|+1,1,measure,submit,,10,1,1,,,,\n";
    assert_eq!(imported(&(HEADER.to_owned() + both)).unwrap().len(), 2);
}

#[test]
fn a_message_is_short_and_harmless() {
    refused("m,1,measure,st\u{1b}[2Jop,,10,1,1,,,,\n", r"column `kind`: `st\u{1b}[2Jop` is none");
    let long = format!("m,1,measure,token,,1,,,,{},,\n", "9".repeat(900_000));
    let message = imported(&(HEADER.to_owned() + &long)).unwrap_err().to_string();
    assert!(message.len() < 300 && message.contains("(900000 bytes)"), "{message:.300}");
    let endless = format!("{HEADER}m,1,measure,submit,,10,1,1,,,,\n\"{}", "a\n".repeat(3_000_000));
    let message = imported(&endless).unwrap_err().to_string();
    assert!(message.contains("the row behind line 2 is longer than 1048576 bytes"), "{message:.300}");
    let message = imported("run,request\n").unwrap_err().to_string();
    let required = "run,request,phase,kind,count,scheduled_ns,submitted_ns,received_ns";
    let optional = "step,emitted_ns,poll_gap_ns,hiccup";
    assert!(message.ends_with(&format!("the header needs {required}, and may have {optional}")), "{message}");
}

#[test]
fn names_that_a_spreadsheet_would_run_come_back_as_they_were() {
    for name in ["=HYPERLINK(1)", "+1", "-1", "@a", "'=1", "'a", "a|b", "a\"b,c"] {
        let mut timeline = typical_run("p", 0, 2);
        timeline.run.point.name = name.to_owned();
        let text = exported(&[timeline]);
        assert!(text.lines().all(|row| !row.starts_with(['=', '+', '-', '@'])), "{text}");
        assert_eq!(imported(&text).unwrap()[0].run.point.name, name);
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.csv");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
        let message = from_csv(path).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
    }
}

/// Texts that differ from one by cut, repeated, inserted or changed bytes. The same ones each time.
fn mutants(text: &str, count: u32) -> impl Iterator<Item = Vec<u8>> {
    const PIECES: [&[u8]; 10] =
        [b"\n", b"\r", b"\r\n\r\n", b",", b"\"", b"|", b"-1", b"\xff", b"\0", b"9223372036854775807"];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let text = text.as_bytes().to_vec();
    (0..count).map(move |_| {
        let mut mutant = text.clone();
        for _ in 0..=random(4) {
            let (from, length) = (random(mutant.len()), random(12));
            let to = (from + length).min(mutant.len());
            match random(4) {
                0 => drop(mutant.drain(from..to)),
                1 => mutant.splice(from..from, PIECES[random(PIECES.len())].iter().copied()).for_each(drop),
                2 => mutant[from] ^= 1 << random(8),
                _ => {
                    let piece = mutant[from..to].to_vec();
                    let at = random(mutant.len());
                    mutant.splice(at..at, piece).for_each(drop);
                }
            }
        }
        mutant
    })
}

#[test]
fn a_damaged_file_is_refused_or_judged_and_never_a_panic() {
    let text = exported(&[typical_run("a", 0, 2)]);
    let (mut read, mut refused) = (0, 0);
    for mutant in mutants(&text, 1500) {
        match read_from(Path::new("events.csv"), &mutant[..]) {
            Ok(timelines) => {
                read += 1;
                timelines.iter().for_each(|timeline| drop(RunEntry::of(timeline, Ruler::UNKNOWN)));
            }
            Err(error) => {
                refused += 1;
                let message = error.to_string();
                assert!(message.len() < 400 && !message.contains(char::is_control), "{message:?}");
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}
