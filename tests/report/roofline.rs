//! The roofline of timelines of which the answers were worked out by hand.

use bench::analysis::metrics::Samples;
use bench::analysis::roofline::{Chunk, Roofline, StepChunks, chunks};
use bench::measurement::timeline::{StepEvent, Timeline};
use bench::question::plan::Quantization;
use serde_json::{Value, json};

use super::sketch::{Request, cpu_peaks, timeline};

/// One layer, hidden 4, two heads of 2 with one KV head, MLP 6, vocabulary 10: 120 weights in matrices, 12 in norms, 40 in
/// the head, 4 numbers a token in the KV cache.
fn tiny() -> Value {
    json!({"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 4, "intermediate_size": 6,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2, "vocab_size": 10, "attention_bias": false})
}

/// What the engine says of itself, of a float32 model on a cpu.
pub fn on_tiny(mut run: Timeline) -> Timeline {
    let other = &mut run.run.engine_facts.as_mut().unwrap().other;
    for (name, value) in [
        ("model_config", tiny()),
        ("dtype", json!("float32")),
        ("kv_cache_dtype", json!("auto")),
        ("world_size", json!(2)),
    ] {
        other.insert(name.to_owned(), value);
    }
    run
}

/// Gives the steps their batches: (prefill requests, prefill tokens, decode requests).
fn with_batches(mut run: Timeline, batches: &[(u32, u32, u32)]) -> Timeline {
    assert_eq!(run.steps.len(), batches.len());
    for (step, (prefill_requests, prefill_tokens, decode)) in run.steps.iter_mut().zip(batches) {
        (step.prefill_requests, step.prefill_tokens) = (*prefill_requests, *prefill_tokens);
        (step.decode_requests, step.decode_tokens) = (*decode, *decode);
    }
    run
}

/// Two requests: a prompt of 3 whose tokens come at 10, 20 and 30 us, and one of 5, whose tokens come at 20 and 30 us.
fn two() -> Timeline {
    let requests = [
        Request::new(1_000, 1_000, 3, &[(10_000, 1), (20_000, 1), (30_000, 1)]),
        Request::new(1_500, 1_500, 5, &[(20_000, 1), (30_000, 1)]),
    ];
    on_tiny(with_batches(timeline(&requests), &[(1, 3, 0), (1, 5, 1), (0, 0, 2)]))
}

fn chunk(before: u64, tokens: u64) -> Chunk {
    Chunk { before, tokens }
}

fn roofline(run: &Timeline) -> Value {
    let window = Samples::of(run).window.unwrap();
    serde_json::to_value(Roofline::of(run, window, Some(&cpu_peaks()))).unwrap()
}

#[test]
fn each_step_computes_what_its_record_and_its_tokens_say() {
    let steps = [
        StepChunks { chunks: vec![chunk(0, 3)], sampled: 1 },
        StepChunks { chunks: vec![chunk(0, 5), chunk(3, 1)], sampled: 2 },
        StepChunks { chunks: vec![chunk(4, 1), chunk(5, 1)], sampled: 2 },
    ];
    assert_eq!(chunks(&two()).unwrap(), steps);
}

/// A step that gave no token, before the one that did.
fn silent_step(run: &Timeline, prefill_requests: u32, prefill_tokens: u32) -> StepEvent {
    StepEvent {
        prefill_requests,
        prefill_tokens,
        decode_requests: 0,
        decode_tokens: 0,
        token_events: 0,
        ..run.steps[0]
    }
}

#[test]
fn prompts_in_parts_and_from_the_cache_are_followed() {
    let requests =
        [Request::new(1_000, 1_000, 40, &[(20_000, 1)]).with_prefix(16), Request::new(1_500, 1_500, 9, &[(20_000, 1)])];
    let mut run = on_tiny(with_batches(timeline(&requests), &[(2, 2 + 9, 0)]));
    // 24 of the first prompt are not cached: 10 of them, then 12, then the last 2 with all of the second.
    let (first, second) = (silent_step(&run, 1, 10), silent_step(&run, 1, 12));
    run.steps[0].step = 2;
    run.tokens.iter_mut().for_each(|event| event.step = 2);
    run.steps = vec![first, StepEvent { step: 1, ..second }, run.steps[0]];
    let parts =
        |run: &Timeline| -> Vec<Vec<Chunk>> { chunks(run).unwrap().into_iter().map(|step| step.chunks).collect() };
    assert_eq!(parts(&run), [vec![chunk(16, 10)], vec![chunk(26, 12)], vec![chunk(38, 2), chunk(0, 9)]]);
}

#[test]
fn what_the_records_do_not_explain_is_not_claimed() {
    type Change = fn(&mut Timeline);
    let changes: [(Change, &str); 9] = [
        (|run| run.steps[1].preemptions = 1, "preempted"),
        (|run| run.steps[1].prefill_tokens = 4, "the 4 prompt tokens of 1 requests in step 1"),
        (|run| run.steps[1].prefill_tokens = 6, "the 6 prompt tokens"),
        (|run| run.steps[0].prefill_requests = 2, "of 2 requests in step 0"),
        (|run| run.steps[2].decode_requests = 3, "step 2 computed 2 tokens of 3 requests in decode, and 2 of them"),
        (|run| run.steps[2].decode_tokens = 4, "step 2 computed 4 tokens"),
        (|run| run.tokens[0].count = 2, "a token event has 2 tokens"),
        (|run| run.requests[0].cached_tokens = u32::MAX, "did not count the cached tokens"),
        (|run| run.tokens[0].step = 7, "belongs to no recorded step"),
    ];
    for (change, expected) in changes {
        let mut run = two();
        change(&mut run);
        let problem = chunks(&run).unwrap_err();
        assert!(problem.contains(expected), "{expected}: {problem}");
        let found = roofline(&run);
        assert_eq!((&found["decode"]["operations"], &found["decode"]["mbu"]), (&Value::Null, &Value::Null));
        assert_eq!((&found["decode"]["steps"], &found["prefill"]["steps"]), (&json!(1), &json!(2)));
        assert!(found["notes"][0].as_str().unwrap().contains(expected), "{found}");
    }
}

#[test]
fn shares_of_the_limit_by_hand() {
    let found = roofline(&two());
    // Each sketched step takes 550 ns. The cores do 1e9 operations and 1e9 bytes a second: 550 of each in a step.
    let decode = &found["decode"];
    // Two tokens: matrices 2 x 240, attention 16 x 5 and 16 x 6, head 2 x 80.
    assert_eq!(decode["operations"], 480.0 + 176.0 + 160.0);
    // 172 weights; 9 tokens read and 2 written; 4 bytes a number.
    assert_eq!(decode["bytes"], 688.0 + 16.0 * 11.0);
    let near = |value: &Value, expected: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - expected).abs() < 1e-9 * expected, "{value}, expected {expected}");
    };
    near(&decode["time_s"], 550e-9);
    near(&decode["mfu"], 816.0 / 550.0);
    near(&decode["mbu"], 864.0 / 550.0);
    near(&decode["limit_share"], 864.0 / 550.0); // the bytes take longer
    let prefill = &found["prefill"];
    // 3 tokens: 720, attention 16 x 6, head 80; then 5 and 1: 1440, 16 x 15 and 16 x 4, head 160.
    let operations = [720.0 + 96.0 + 80.0, 1440.0 + 304.0 + 160.0];
    assert_eq!(prefill["operations"], operations[0] + operations[1]);
    // Weights twice; 3 + 5 + 1 written, 3 read.
    assert_eq!(prefill["bytes"], 2.0 * 688.0 + 16.0 * 12.0);
    near(&prefill["mfu"], (operations[0] + operations[1]) / 1_100.0);
    near(&prefill["limit_share"], (operations[0] + operations[1]) / 1_100.0); // the operations do
    assert_eq!(found["notes"], json!([]));
    assert_eq!(found["peak_source"], "probed on this machine: sketched");
}

#[test]
fn only_steps_in_the_window_count() {
    let mut run = two();
    run.steps[0].started_ns = 900;
    assert_eq!(roofline(&run)["prefill"]["steps"], 1);
}

#[test]
fn without_a_peak_there_are_bytes_and_no_share() {
    let run = two();
    let window = Samples::of(&run).window.unwrap();
    let found = serde_json::to_value(Roofline::of(&run, window, None)).unwrap();
    assert_eq!((&found["decode"]["bytes"], &found["decode"]["mbu"]), (&json!(864.0), &Value::Null));
    assert_eq!(found["notes"], json!(["no peak: not probed on this machine: run `bench calibrate`"]));

    // The probe multiplies 32-bit numbers.
    let mut run = two();
    run.run.engine_facts.as_mut().unwrap().other.insert("dtype".to_owned(), json!("bfloat16"));
    let found = roofline(&run);
    assert_eq!((&found["decode"]["mfu"], &found["decode"]["limit_share"]), (&Value::Null, &Value::Null));
    assert_eq!((&found["decode"]["bytes"], found["decode"]["mbu"].is_number()), (&json!(432.0), true));
}

#[test]
fn an_accelerator_has_the_peak_of_its_table_times_its_devices() {
    let on = |name: &str, quantization| {
        let mut run = two();
        run.run.engine_key.device = bench::machine::device::DeviceClass::Cuda;
        run.run.engine_key.quantization = quantization;
        let other = &mut run.run.engine_facts.as_mut().unwrap().other;
        other.insert("device_kind".to_owned(), json!(name));
        other.insert("dtype".to_owned(), json!("bfloat16"));
        roofline(&run)
    };
    let found = on("NVIDIA B200", Quantization::None);
    assert_eq!((&found["peak_operations_per_s"], &found["peak_bytes_per_s"]), (&json!(4.5e15), &json!(16e12)));
    assert_eq!(found["peak_source"], "2 x NVIDIA B200: NVIDIA DGX B200 data sheet, an eighth of the system");
    let fp8 = on("NVIDIA B200", Quantization::Fp8);
    assert_eq!(fp8["peak_operations_per_s"], 9e15);
    // Matrices of one byte; norms, head and KV cache of two.
    assert_eq!(fp8["decode"]["bytes"], 120.0 + 2.0 * 52.0 + 8.0 * 11.0);
    let fp4 = on("TPU7x", Quantization::Fp4);
    assert_eq!((&fp4["peak_operations_per_s"], &fp4["decode"]["bytes"]), (&Value::Null, &Value::Null));
    let other = on("NVIDIA H100 80GB HBM3 MIG 1g.10gb", Quantization::None);
    assert_eq!(other["peak_bytes_per_s"], Value::Null);
    assert!(other["notes"][0].as_str().unwrap().contains("are not known"), "{other}");
}

#[test]
fn an_engine_that_does_not_say_its_model_has_no_roofline() {
    let mut run = two();
    run.run.engine_facts.as_mut().unwrap().other.remove("model_config");
    assert_eq!(roofline(&run), Value::Null);
}
