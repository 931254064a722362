//! Scripts of the scripted engine: what they say, and every problem at its line and column.

use bench::question::config::{FaultKind, Script, ScriptNoise, ScriptedFinish, load_script};

use crate::write;

fn script(text: &str) -> Script {
    let (_folder, path) = write(text);
    load_script(&path).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn every_shape_of_a_request_is_read() {
    let read = script(
        "requests:\n  - {first_ns: 5, gap_ns: 7, tokens: 3}\n  - {first_ns: 0, gaps_ns: [1, 0]}\n  \
         - {first_ns: 1, gap_ns: 2, tokens: 9, counts: 3, cached: 16, finish: stop}\n  \
         - {first_ns: 1, gaps_ns: [4], counts: [1, 5]}\n  - {first_ns: 1, gap_ns: 2}\n  - {first_ns: 1, gaps_ns: []}\n\
         faults: [{at_step: 2, kind: wrong_length}]\ngrowth_per_run: 0.025\nnoise: {run: 0.004, seed: 7}\n",
    );
    let tokens: Vec<Option<u32>> = read.requests.iter().map(|request| request.output_tokens()).collect();
    assert_eq!(tokens, [Some(3), Some(3), Some(9), Some(6), None, Some(1)]);
    assert_eq!(read.requests[1].gaps_ns.as_deref(), Some(&[1, 0][..]));
    let third = &read.requests[2];
    assert_eq!((third.events, third.counts.as_deref()), (Some(3), Some(&[3, 3, 3][..])));
    assert_eq!((third.cached, third.finish), (16, ScriptedFinish::Stop));
    assert_eq!(read.growth_ppm, 25_000);
    assert_eq!(read.noise, Some(ScriptNoise { run_ppm: 4_000, session_ppm: 0, seed: 7 }));
    assert_eq!((read.faults[0].at_step, read.faults[0].kind), (2, FaultKind::WrongLength));
}

#[test]
fn every_problem_is_named_at_its_place() {
    let request = |keys: &str| format!("requests:\n  - {{{keys}}}\n");
    let many = format!("first_ns: 1, gap_ns: 1, counts: [{}]", "65535, ".repeat(300));
    for (text, place, wanted) in [
        (request("first_ms: 1"), ":2:6", "first_ns"),
        (request("gap_ns: 1, tokens: 2"), ":2:6", "no `first_ns`"),
        (request("first_ns: -1"), ":2:16", "from 0"),
        (request("first_ns: 1, gaps_ns: [1], gap_ns: 2"), ":2:6", "take out `gap_ns`"),
        (request("first_ns: 1, tokens: 2"), ":2:6", "give `gap_ns`"),
        (request("first_ns: 1, gaps_ns: [1], counts: [1]"), ":2:6", "need 0 gaps"),
        (request("first_ns: 1, gap_ns: 1, tokens: 5, counts: 2"), ":2:6", "not whole events of 2"),
        (request("first_ns: 1, gap_ns: 1, tokens: 5, counts: [2, 2]"), ":2:6", "4 tokens together"),
        (request("first_ns: 1, finish: stopped"), ":2:27", "`stop`"),
        (request(&many), ":2:6", "19660500 tokens in a request"),
        (request("first_ns: 1, gaps_ns: []") + "faults: [{at_step: 1, kind: explode}]", ":3:29", "kind"),
        (request("first_ns: 1, gaps_ns: []") + "faults: [{kind: exit}]", ":3:11", "`at_step`"),
        (request("first_ns: 1, gaps_ns: []") + "noise: {run: 2}", ":3:14", "from 0 to 1"),
        (request("first_ns: 1, gaps_ns: []") + "noise: {rum: 0.1}", ":3:9", "`run`"),
        ("faults: [{at_step: 1, kind: exit}]\n".to_owned(), ":1:1", "no `requests`"),
        ("requests: []\n".to_owned(), ":1:", "at least one item"),
    ] {
        let (_folder, path) = write(&text);
        let error = load_script(&path).expect_err(&text).to_string();
        assert!(error.contains(&format!("sweep.yaml{place}")) && error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn more_tokens_than_can_be_recorded_are_refused_before_anything_is_taken() {
    let five = "  - {first_ns: 1, gap_ns: 1, tokens: 16777216}\n".repeat(5);
    let (_folder, path) = write(format!("requests:\n{five}"));
    let error = load_script(&path).expect_err("80 million tokens").to_string();
    assert!(error.contains("83886080 tokens in all"), "{error}");
}
