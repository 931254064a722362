//! Timelines drawn by hand: requests as lists of events, from which steps and records follow.

use std::collections::BTreeMap;

use bench::machine::device::{DeviceClass, WaitStrategy};
use bench::measurement::calibration::CpuPeaks;
use bench::measurement::calibration::{BudgetRow, Cores, ErrorBudget, Identity, Stages, Times};
use bench::measurement::clock::Clock;
use bench::measurement::results::{Instrument, SESSION_SCHEMA_VERSION, SessionRecord};
use bench::measurement::timeline::{
    ABSENT, Counters, DtypeCount, EngineFacts, FinishReason, LayerCount, Outcome, Phase, RequestEvent, RunRecord,
    StepEvent, Timeline, TokenEvent, Weights, store::RUN_SCHEMA_VERSION,
};
use bench::question::plan::{
    Drive, EngineKey, Epoch, IgnoredInEq, Limits, Load, Plan, Point, PrefixMode, Quantization, Role, StepApi,
};

/// What every sketched event took from the tap to the recorder.
pub const TRANSPORT_NS: u64 = 100;
/// How long after the tap the engine stamped the tokens of every sketched step.
pub const STAMPED_NS: u64 = 20;

/// A request: when it was wanted and submitted, and when which number of tokens was received.
#[derive(Clone)]
pub struct Request {
    pub phase: Phase,
    pub scheduled_ns: u64,
    pub submitted_ns: u64,
    pub prompt: u32,
    pub prefix: u32,
    pub events: Vec<(u64, u32)>,
}

impl Request {
    pub fn new(scheduled_ns: u64, submitted_ns: u64, prompt: u32, events: &[(u64, u32)]) -> Request {
        Request { phase: Phase::Measure, scheduled_ns, submitted_ns, prompt, prefix: 0, events: events.to_vec() }
    }

    pub fn in_phase(mut self, phase: Phase) -> Request {
        self.phase = phase;
        self
    }

    pub fn with_prefix(mut self, prefix: u32) -> Request {
        self.prefix = prefix;
        self
    }
}

/// A sound timeline of requests: one step for each instant at which tokens were received.
pub fn timeline(requests: &[Request]) -> Timeline {
    let mut tokens: Vec<TokenEvent> = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        tokens.extend(request.events.iter().map(|(received_ns, count)| TokenEvent {
            received_ns: *received_ns,
            emitted_ns: received_ns - TRANSPORT_NS,
            request: index as u32,
            step: 0,
            count: *count,
            poll_gap_ns: 50,
        }));
    }
    tokens.sort_by_key(|event| event.received_ns);
    let steps = steps(&mut tokens);
    let measured = requests.iter().filter(|request| request.phase == Phase::Measure).count();
    let mut run = run_record("p", 0);
    run.point.num_prompts = measured as u32;
    Timeline {
        run,
        requests: requests.iter().map(request_event).collect(),
        tokens,
        steps,
        hiccups: Vec::new(),
        telemetry: Vec::new(),
    }
}

fn steps(tokens: &mut [TokenEvent]) -> Vec<StepEvent> {
    let mut steps = Vec::new();
    for (step, group) in tokens.chunk_by_mut(|a, b| a.received_ns == b.received_ns).enumerate() {
        group.iter_mut().for_each(|event| event.step = step as u32);
        let emitted_ns = group[0].emitted_ns;
        steps.push(StepEvent {
            started_ns: emitted_ns - 500,
            ended_ns: emitted_ns + 50,
            tapped_ns: emitted_ns - 10,
            step: step as u32,
            prefill_requests: 0,
            prefill_tokens: 0,
            decode_requests: group.len() as u32,
            decode_tokens: group.len() as u32,
            // A sketch leaves time between its steps: with requests running that would be a hiccup.
            running: 0,
            waiting: 0,
            kv_cache_usage_ppm: 1_000,
            preemptions: 0,
            token_events: group.len() as u32,
            tap_push_ns: 7_000 + 10 * group.len() as u32,
            involuntary_switches: 0,
        });
    }
    steps
}

fn request_event(request: &Request) -> RequestEvent {
    let tokens: u32 = request.events.iter().map(|(_, count)| count).sum();
    let mut event = RequestEvent::planned(request.phase, request.prompt, tokens, request.prefix);
    event.scheduled_ns = request.scheduled_ns;
    event.submitted_ns = request.submitted_ns;
    if let (Some((first, _)), Some((last, _))) = (request.events.first(), request.events.last()) {
        event.finish_emitted_ns = last - TRANSPORT_NS;
        event.finish_received_ns = *last;
        event.engine_queued_ns = request.submitted_ns + 10;
        event.engine_scheduled_ns = request.submitted_ns + 40;
        event.engine_first_token_ns = first - TRANSPORT_NS + STAMPED_NS;
        event.engine_last_token_ns = last - TRANSPORT_NS + STAMPED_NS;
        event.prompt_tokens = request.prompt;
        event.output_tokens = tokens;
        event.cached_tokens = request.prefix.min(request.prompt.saturating_sub(1)) / 16 * 16;
        event.finish_reason = FinishReason::Length as u8;
    } else {
        event.finish_received_ns = ABSENT;
    }
    event
}

pub fn run_record(point: &str, repeat: u32) -> RunRecord {
    RunRecord {
        schema_version: RUN_SCHEMA_VERSION,
        point: self::point(point),
        engine_key: engine_key(),
        engine: "scripted".to_owned(),
        epoch: 0,
        repeat,
        retry_of: None,
        round: repeat,
        order: repeat,
        outcome: Outcome::Completed,
        engine_load_s: 0.0,
        engine_warm_up: None,
        turnaround_s: None,
        engine_facts: Some(facts()),
        counters: Counters::default(),
        recorder_hiccups: Some(0),
        telemetry: None,
        clock_step_ns: Some(10),
        compilations: None,
        speculation: None,
        cache_reset: Some(true),
        warnings: Vec::new(),
        began_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

pub fn point(label: &str) -> Point {
    Point {
        name: "sketch".to_owned(),
        point: label.to_owned(),
        input_len: 32,
        output_len: 4,
        scripted_output_lens: None,
        prefix_len: 0,
        prefix_mode: PrefixMode::Inside,
        num_prefixes: 1,
        prefix_hit_rate: None,
        workload: None,
        num_prompts: 1,
        repeats: 5,
        until_ci: None,
        telemetry_hz: 10,
        warmup: 0,
        seed: 1,
        load: Load::Closed { concurrency: Some(2) },
        drive: Drive::Free,
        limits: Limits::default(),
        slo: BTreeMap::new(),
        role: Role::Measured,
        pair: None,
        location: IgnoredInEq::default(),
    }
}

pub fn engine_key() -> EngineKey {
    EngineKey {
        device: DeviceClass::Cpu,
        model: "tiny".to_owned(),
        tensor_parallel_size: 1,
        quantization: Quantization::None,
        quantization_switches: Default::default(),
        engine_args: Vec::new(),
        step_api: StepApi::EngineCore,
        args_location: IgnoredInEq::default(),
    }
}

/// An engine whose 4 layers have this dtype and this kernel.
pub fn weights(dtype: &str, kernel: Option<&str>) -> Weights {
    let count = DtypeCount { dtype: dtype.to_owned(), tensors: 4, elements: 4_000, bytes: 8_000, emptied: 0 };
    let layer = LayerCount {
        layer: "qkv_proj".to_owned(),
        dtype: Some(dtype.to_owned()),
        method: Some("LinearMethod".to_owned()),
        kernel: kernel.map(str::to_owned),
        count: 4,
        weights: Some(4_000),
    };
    Weights { source: "torch".to_owned(), workers: 1, dtypes: vec![count], layers: vec![layer] }
}

fn facts() -> EngineFacts {
    EngineFacts {
        vllm_version: None,
        prefix_block_size: Some(16),
        max_model_len: 4096,
        vocab_size: 1000,
        num_kv_blocks: Some(100),
        async_scheduling: false,
        prefix_caching: true,
        max_num_seqs: 8,
        max_num_batched_tokens: 2048,
        weights: Some(weights("float32", None)),
        settings: None,
        other: serde_json::Map::new(),
    }
}

/// Five rounds of points of 8 requests each.
pub fn session(points: &[&str]) -> SessionRecord {
    session_with(points, |point| point.num_prompts = 8)
}

/// Five rounds of points that are changed like this.
pub fn session_with(points: &[&str], change: impl Fn(&mut Point)) -> SessionRecord {
    let order: Vec<usize> = (0..points.len()).collect();
    let planned = |label: &&str| {
        let mut point = point(label);
        change(&mut point);
        point
    };
    let epoch = Epoch {
        key: engine_key(),
        reason: "first load".to_owned(),
        points: points.iter().map(planned).collect(),
        first_round: 0,
        rounds: vec![order; 5],
    };
    SessionRecord {
        schema_version: SESSION_SCHEMA_VERSION,
        bench_version: "0.1.0".to_owned(),
        plan: Plan { name: "sketched".to_owned(), seed: 1, varying: Vec::new(), epochs: vec![epoch] },
        environment: serde_json::json!({"host": "here"}),
        instrument: Instrument {
            clock: Clock { name: "CLOCK_MONOTONIC".to_owned(), resolution_ns: 1.0, read_ns: 20.0 },
            wait_strategy: "spin".to_owned(),
            recorder_core: Some(1),
            recorder_priority: Some(-20),
            engine_cores: vec![0],
            not_permitted: vec!["memory locking: refused <here>".to_owned()],
            error_budget: Some(budget()),
            cpu_peaks: Some(cpu_peaks()),
        },
        started_at: "2026-01-01T00:00:00Z".to_owned(),
        resumed_at: Vec::new(),
        fingerprint: None,
    }
}

/// A session whose plan asks for these runs and no others.
pub fn session_of(runs: &[Timeline]) -> SessionRecord {
    let mut session = session(&[]);
    let epochs = &mut session.plan.epochs;
    epochs.clear();
    for run in runs.iter().map(|run| &run.run) {
        while epochs.len() <= run.epoch as usize {
            let (key, reason) = (run.engine_key.clone(), "first load".to_owned());
            epochs.push(Epoch { key, reason, points: Vec::new(), first_round: 0, rounds: Vec::new() });
        }
        let epoch = &mut epochs[run.epoch as usize];
        let place = epoch.points.iter().position(|point| point.point == run.point.point).unwrap_or_else(|| {
            epoch.points.push(run.point.clone());
            epoch.points.len() - 1
        });
        let rounds = epoch.rounds.len().max(run.repeat as usize + 1);
        epoch.rounds.resize(rounds, Vec::new());
        epoch.rounds[run.repeat as usize].push(place);
    }
    session
}

/// A run of `requests` requests in pairs, 4 tokens each, that differs a little from repeat to repeat.
pub fn typical_run(label: &str, repeat: u32, requests: u32) -> Timeline {
    let jitter = u64::from(repeat % 3) * 7_000;
    let mut all = vec![Request::new(1_000_000, 1_000_050, 32, &[(2_000_000, 1)]).in_phase(Phase::Prime)];
    for index in 0..u64::from(requests) {
        let begin = 10_000_000 + index / 2 * 10_000_000;
        let first = begin + 2_000_000 + jitter + 1_000 * index;
        let events =
            [(first, 1), (first + 1_000_000 + jitter, 1), (first + 2_100_000, 1), (first + 3_000_000 + 500 * index, 1)];
        all.push(Request::new(begin, begin + 300 + 10 * index, 32, &events));
    }
    let mut timeline = timeline(&all);
    let measured = timeline.run.point.num_prompts;
    timeline.run = run_record(label, repeat);
    timeline.run.point.num_prompts = measured;
    timeline
}

/// A run in which every request of 8, in pairs, takes this long, for another purpose than its own numbers.
pub fn run_in_role(label: &str, role: Role, repeat: u32, e2e_ns: u64) -> Timeline {
    let request = |index: u64| {
        let begin = 10_000_000 + index / 2 * (e2e_ns + 1_000_000);
        Request::new(begin, begin + 300, 32, &[(begin + e2e_ns / 2, 1), (begin + e2e_ns, 1)])
    };
    let mut timeline = timeline(&(0..8).map(request).collect::<Vec<_>>());
    let measured = timeline.run.point.num_prompts;
    timeline.run = run_record(label, repeat);
    timeline.run.began_at = format!("2026-01-01T00:{repeat:02}:30Z");
    timeline.run.point.num_prompts = measured;
    timeline.run.point.role = role;
    timeline
}

/// Cores that do 1e9 operations and move 1e9 bytes a second.
pub fn cpu_peaks() -> CpuPeaks {
    CpuPeaks {
        f32_operations_per_s: 1e9,
        bytes_per_s: 1e9,
        probes: "sketched".to_owned(),
        host: "host".to_owned(),
        cores: vec![0],
        measured_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

/// An instrument that is wrong by 1 us at most.
pub fn budget() -> ErrorBudget {
    let times = Times { count: 100, p50: 400, p99: 1_000, max: 1_200 };
    let cores = Cores { engine: 0, recorder: 1 };
    let stages = Stages { tap_ns: 100, cache_line_ns: Some(80), ring_ns: Some(20), unexplained_ns: Some(200) };
    ErrorBudget {
        identity: Identity {
            host: "host".to_owned(),
            cores,
            build: "0.1.0".to_owned(),
            wait_strategy: WaitStrategy::Spin,
        },
        measured_at: "2026-01-01T00:00:00Z".to_owned(),
        rows: vec![BudgetRow {
            concurrency: 1_000,
            ttft_error_ns: times,
            ttft_error_watched_ns: None,
            itl_error_ns: Some(times),
            itl_error_watched_ns: None,
            stages,
        }],
    }
}
