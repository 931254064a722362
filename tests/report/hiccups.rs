//! Hiccups of the recorder's core and of the engine's loop, and the ITLs that they lie in.

use bench::analysis::metrics::{Gap, HiccupMark, HiccupMarks, RunMetrics};
use bench::analysis::verdict::Verdict;
use bench::measurement::timeline::{Hiccup, Phase, Timeline};
use bench::presentation::exchange::csv;
use bench::presentation::report::{HiccupsEntry, Ruler, RunEntry};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::sketch::{Request, timeline, typical_run};

/// One measured request with a token every 10 us from 20 us on, received in steps 1 to 5; step 0 is a warm-up's. Its ITLs
/// end at 30, 40, 50 and 60 us.
fn sound() -> Timeline {
    let requests = [
        Request::new(1_000, 1_000, 32, &[(10_000, 1)]).in_phase(Phase::Warmup),
        Request::new(11_000, 11_000, 32, &[(20_000, 1), (30_000, 1), (40_000, 1), (50_000, 1), (60_000, 1)]),
    ];
    timeline(&requests)
}

/// The run with hiccups of the recorder's core.
fn with_hiccups(times_ns: &[(u64, u64)]) -> Timeline {
    let mut run = sound();
    run.hiccups =
        times_ns.iter().map(|(began_ns, ended_ns)| Hiccup { began_ns: *began_ns, ended_ns: *ended_ns }).collect();
    run.run.recorder_hiccups = Some(run.hiccups.len() as u64);
    run
}

fn entry(run: &Timeline) -> RunEntry {
    RunEntry::of(run, Ruler::UNKNOWN)
}

/// The mark of each token of the measured request.
fn marks(run: &Timeline) -> Vec<String> {
    let mut out = ::csv::Writer::from_writer(Vec::new());
    csv::write_header(&mut out).unwrap();
    csv::write_events(&mut out, run).unwrap();
    let text = out.into_inner().unwrap();
    let mut reader = ::csv::Reader::from_reader(text.as_slice());
    let at = reader.headers().unwrap().iter().position(|column| column == "hiccup").unwrap();
    let rows: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let tokens = rows.iter().filter(|row| &row[1] == "1" && &row[3] == "token");
    tokens.map(|row| row[at].to_owned()).collect()
}

fn hiccups(run: &Timeline) -> Value {
    serde_json::to_value(entry(run).hiccups).unwrap()
}

fn marked(run: &Timeline) -> Option<u64> {
    RunMetrics::of_timeline(run).itl_marks.marked
}

#[test]
fn a_run_without_hiccups_says_so() {
    let expected = json!({
        "recorder": {"threshold_ns": 5_000, "count": 0, "total_ns": 0, "max_ns": null},
        "engine": {
            "tap_push_threshold_ns": 50_000, "step_gap_threshold_ns": 200_000, "count": 0, "total_ns": 0, "max_ns": null,
            "tap_pushes": 0, "step_gaps": 0, "switched_steps": 0,
        },
        "itl_marked": 0, "itl_count": 4, "itl_above_p99": 0, "itl_above_p99_marked": 0,
    });
    assert_eq!(hiccups(&sound()), expected);
    assert_eq!(marks(&sound()), ["", "", "", "", ""]);
}

#[test]
fn a_recorder_that_did_not_look_marks_the_itls_that_it_overlaps() {
    type Case = (&'static [(u64, u64)], [&'static str; 5]);
    let cases: [Case; 7] = [
        (&[(31_000, 37_000)], ["", "", "recorder", "", ""]),
        // It ends with the look that finds the event.
        (&[(33_000, 40_000)], ["", "", "recorder", "", ""]),
        // It begins after the look that found the event before.
        (&[(30_000, 36_000)], ["", "", "recorder", "", ""]),
        (&[(24_000, 30_000), (50_000, 56_000)], ["", "recorder", "", "", "recorder"]),
        (&[(29_999, 40_001)], ["", "recorder", "recorder", "recorder", ""]),
        (&[(12_000, 20_000), (60_000, 66_000)], ["", "", "", "", ""]),
        (&[(21_000, 26_500), (27_000, 33_000)], ["", "recorder", "recorder", "", ""]),
    ];
    for (times_ns, expected) in cases {
        let run = with_hiccups(times_ns);
        assert_eq!(marks(&run), expected, "{times_ns:?}");
        assert_eq!(marked(&run), Some(expected.iter().filter(|mark| !mark.is_empty()).count() as u64), "{times_ns:?}");
    }
}

#[test]
fn only_hiccups_in_the_measured_window_count() {
    // The window goes from 11 us to 60 us: the first and the last hiccup are outside, the next ones partly inside.
    let run = with_hiccups(&[(2_000, 11_000), (10_999, 17_000), (31_000, 37_000), (59_999, 69_999), (70_000, 99_000)]);
    let expected = json!({"threshold_ns": 5_000, "count": 3, "total_ns": 6_001 + 6_000 + 10_000, "max_ns": 10_000});
    assert_eq!(hiccups(&run)["recorder"], expected);
    assert_eq!(hiccups(&run)["itl_marked"], 2);
}

#[test]
fn a_recorder_that_sleeps_has_no_hiccups_to_count() {
    let mut run = sound();
    run.run.recorder_hiccups = None;
    assert_eq!((&hiccups(&run)["recorder"], &hiccups(&run)["itl_marked"]), (&Value::Null, &json!(0)));
    run.steps.clear();
    let neither = hiccups(&run);
    assert_eq!(
        (&neither["engine"], &neither["itl_marked"], &neither["itl_count"]),
        (&Value::Null, &Value::Null, &json!(4))
    );
    assert_eq!((&neither["itl_above_p99"], &neither["itl_above_p99_marked"]), (&json!(0), &Value::Null));
}

#[test]
fn hiccups_beyond_the_room_are_not_counted_as_none() {
    let mut run = with_hiccups(&[(31_000, 37_000)]);
    run.run.recorder_hiccups = Some(2);
    assert_eq!((&hiccups(&run)["recorder"], &hiccups(&run)["itl_marked"]), (&Value::Null, &json!(1)));
    let warnings = |run: &Timeline| Verdict::of(run, &RunMetrics::of_timeline(run)).warnings;
    assert!(
        warnings(&run)[0].starts_with("the recorder's core had 2 hiccups, and there was room for 1"),
        "{:?}",
        warnings(&run)
    );
    // The one without room came after the window.
    let mut run = with_hiccups(&[(31_000, 37_000), (58_000, 65_000)]);
    run.run.recorder_hiccups = Some(3);
    assert_eq!((&hiccups(&run)["recorder"]["count"], warnings(&run)), (&json!(2), Vec::new()));
}

#[test]
fn the_engine_shows_its_hiccups_in_its_steps() {
    // Step 3 gives the third token, at 40 us.
    let tap_push = |push_ns: u32| {
        let mut run = sound();
        run.steps[3].tap_push_ns = push_ns;
        run
    };
    assert_eq!(marked(&tap_push(50_000)), Some(0));
    let run = tap_push(50_001);
    assert_eq!(marks(&run), ["", "", "engine", "", ""]);
    let engine = &hiccups(&run)["engine"];
    assert_eq!((&engine["count"], &engine["total_ns"], &engine["max_ns"]), (&json!(1), &json!(50_001), &json!(50_001)));
    assert_eq!(
        (&engine["tap_pushes"], &engine["step_gaps"], &engine["switched_steps"]),
        (&json!(1), &json!(0), &json!(0))
    );
    assert_eq!(marked(&tap_push(u32::MAX)), Some(0), "the tap was not reached");

    let mut run = sound();
    run.steps[4].involuntary_switches = 2;
    assert_eq!(marks(&run), ["", "", "", "engine", ""]);
    let engine = &hiccups(&run)["engine"];
    assert_eq!((&engine["count"], &engine["total_ns"], &engine["max_ns"]), (&json!(1), &json!(0), &Value::Null));
    assert_eq!(engine["switched_steps"], 1);
}

#[test]
fn a_gap_between_two_steps_counts_while_requests_are_running() {
    // Steps of 10 us, apart by `gap_ns`; the gaps are 200 us and above.
    let apart = |gap_ns: u64, running: u32| {
        let events: Vec<(u64, u32)> = (1..=5).map(|step| (step * (10_000 + gap_ns), 1)).collect();
        let mut run = timeline(&[Request::new(1_000, 1_000, 32, &events), Request::new(1_000, 1_000, 32, &events)]);
        for step in &mut run.steps {
            (step.started_ns, step.ended_ns) = (step.ended_ns - 10_000, step.ended_ns);
        }
        run.steps[2].running = running;
        run
    };
    assert_eq!(hiccups(&apart(200_000, 1))["engine"]["count"], 0);
    assert_eq!(hiccups(&apart(200_001, 0))["engine"]["count"], 0);
    let run = apart(200_001, 1);
    let engine = &hiccups(&run)["engine"];
    assert_eq!((&engine["count"], &engine["total_ns"], &engine["step_gaps"]), (&json!(1), &json!(200_001), &json!(1)));
    assert_eq!(marks(&run), ["", "", "", "engine", ""]);
    assert_eq!(hiccups(&run)["itl_marked"], 2);
}

#[test]
fn an_engine_hiccup_in_any_step_since_the_event_before_marks_the_itl() {
    // Request 1 has an event in steps 0 and 3 only; request 0 in all four.
    let requests = [
        Request::new(1_000, 1_000, 32, &[(10_000, 1), (20_000, 1), (30_000, 1), (40_000, 1)]),
        Request::new(1_000, 1_000, 32, &[(10_000, 1), (40_000, 1)]),
    ];
    for (step, expected) in [(0, ["", ""]), (1, ["", "engine"]), (2, ["", "engine"]), (3, ["", "engine"])] {
        let mut run = timeline(&requests);
        run.steps[step].involuntary_switches = 1;
        assert_eq!(marks(&run), expected, "step {step}");
    }
    let mut run = timeline(&requests);
    run.steps[2].tap_push_ns = 60_000;
    run.hiccups = vec![Hiccup { began_ns: 12_000, ended_ns: 18_000 }];
    run.run.recorder_hiccups = Some(1);
    assert_eq!(marks(&run), ["", "both"]);
    let expected = json!({"itl_marked": 3, "itl_count": 4});
    let found = hiccups(&run);
    assert_eq!(json!({"itl_marked": found["itl_marked"], "itl_count": found["itl_count"]}), expected);
    // Steps before the window do not count, whatever they mark.
    let mut run = sound();
    run.steps[0].tap_push_ns = 60_000;
    assert_eq!((&hiccups(&run)["engine"]["count"], &hiccups(&run)["itl_marked"]), (&json!(0), &json!(0)));
}

#[test]
fn how_many_of_the_slowest_itls_are_marked() {
    // 200 ITLs: 197 of 1 us, then 50, 60 and 70 us. The p99 is the 198th, so that two are above it.
    let mut events = vec![(10_000, 1)];
    for gap_ns in std::iter::repeat_n(1_000, 197).chain([50_000, 60_000, 70_000]) {
        events.push((events[events.len() - 1].0 + gap_ns, 1));
    }
    let mut run = timeline(&[Request::new(1_000, 1_000, 32, &events)]);
    let last_ns = events[200].0;
    run.hiccups = vec![
        Hiccup { began_ns: last_ns - 150_000, ended_ns: last_ns - 140_000 }, // in the 50 us
        Hiccup { began_ns: last_ns - 10_000, ended_ns: last_ns },            // in the 70 us
    ];
    run.run.recorder_hiccups = Some(2);
    let found = entry(&run).hiccups.unwrap();
    let HiccupsEntry { itl_marked, itl_count, itl_above_p99, itl_above_p99_marked, .. } = found;
    assert_eq!((itl_marked, itl_count, itl_above_p99, itl_above_p99_marked), (Some(2), 200, Some(2), Some(1)));
}

#[test]
fn every_token_has_its_own_bound() {
    let mut run = sound();
    // The first event is of the warm-up.
    for (event, poll_gap_ns) in run.tokens.iter_mut().zip([9_999, 40, 60, 50, 70, 4_000_000_000]) {
        event.poll_gap_ns = poll_gap_ns;
    }
    let spread = serde_json::to_value(entry(&run).poll_gap_ns).unwrap();
    assert_eq!(spread, json!({"p50": 60, "p99": 4_000_000_000_u32, "max": 4_000_000_000_u32}));
    run.tokens[0].poll_gap_ns = u32::MAX;
    assert!(entry(&run).poll_gap_ns.is_some());
    run.tokens[4].poll_gap_ns = u32::MAX;
    assert_eq!(entry(&run).poll_gap_ns, None, "not known of all is not known");
}

#[test]
fn runs_of_a_point_are_pooled() {
    let samples = |run: &Timeline| bench::analysis::metrics::Samples::of(run);
    let (calm, held_up) = (sound(), with_hiccups(&[(31_000, 37_000), (41_000, 50_000)]));
    let pooled = RunMetrics::of(&[samples(&calm), samples(&held_up)]);
    let recorder = pooled.totals.recorder_hiccups.unwrap();
    assert_eq!((recorder.count, recorder.total_ns, recorder.max_ns), (2, 15_000, Some(9_000)));
    assert_eq!((pooled.itl_marks.marked, pooled.itl_marks.count), (Some(2), 8));
    assert_eq!(pooled.poll_gap_ns.unwrap().count, 10);
    let mut asleep = sound();
    asleep.run.recorder_hiccups = None;
    asleep.tokens[3].poll_gap_ns = u32::MAX;
    let pooled = RunMetrics::of(&[samples(&asleep), samples(&held_up)]);
    assert_eq!((pooled.totals.recorder_hiccups, pooled.poll_gap_ns), (None, None));
    assert_eq!(pooled.itl_marks.marked, Some(2), "the engine's are known of both");
}

#[test]
fn an_imported_timeline_knows_nothing_of_hiccups() {
    let mut out = ::csv::Writer::from_writer(Vec::new());
    csv::write_header(&mut out).unwrap();
    csv::write_events(&mut out, &with_hiccups(&[(31_000, 37_000)])).unwrap();
    let text = out.into_inner().unwrap();
    let read = csv::read_from(std::path::Path::new("events.csv"), text.as_slice()).unwrap();
    let imported = entry(&read[0]);
    let found = imported.hiccups.unwrap();
    assert_eq!((found.recorder, found.engine, found.itl_marked, found.itl_count), (None, None, None, 4));
    assert_eq!(imported.poll_gap_ns.map(|spread| spread.max), Some(50));
}

proptest! {
    /// Marks by looking at every hiccup and at every step, in whatever order the ITLs come.
    #[test]
    fn random_itls_are_marked_as_the_definition_says(
        lengths in prop::collection::vec((0_u64..400, 1_u64..300), 0..40),
        held_up in prop::collection::vec(any::<bool>(), 1..30),
        gaps in prop::collection::vec((0_u64..12_000, 0_u64..2_000, 0_u32..30, 0_u32..4), 1..200),
    ) {
        let mut run = typical_run("a", 0, 1);
        let mut now_ns = 0;
        run.hiccups = lengths.iter().map(|(pause_ns, length_ns)| {
            let began_ns = now_ns + pause_ns;
            now_ns = began_ns + length_ns;
            Hiccup { began_ns, ended_ns: now_ns }
        }).collect();
        let calm = run.steps[0];
        run.steps = held_up.iter().enumerate().map(|(step, switched)| {
            let mut step_event = calm;
            (step_event.step, step_event.involuntary_switches) = (step as u32, u32::from(*switched));
            step_event
        }).collect();
        let mut marks = HiccupMarks::of(&run);
        for (from_ns, length_ns, from_step, more) in gaps {
            let gap = Gap { from_ns, to_ns: from_ns + length_ns, from_step, to_step: from_step + more };
            let recorder = run.hiccups.iter().any(|hiccup| hiccup.began_ns < gap.to_ns && hiccup.ended_ns > gap.from_ns);
            let known = (gap.to_step as usize) < held_up.len();
            let engine = known && held_up[from_step as usize + 1..=gap.to_step as usize].iter().any(|switched| *switched);
            let expected = match (recorder, engine) {
                (false, false) => None,
                (true, false) => Some(HiccupMark::Recorder),
                (false, true) => Some(HiccupMark::Engine),
                (true, true) => Some(HiccupMark::Both),
            };
            prop_assert_eq!(marks.mark(&gap), expected, "{:?}", gap);
        }
    }
}
