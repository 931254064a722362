//! What ten million token events cost: memory per event at its peak, seconds to fill, analyse, store and load, and what
//! `bench report` takes to make every file of the report from them, the page among them; and how soon Chromium shows that page
//! and answers in it.
//!
//! `cargo bench --bench capacity [-- EVENTS]`; it takes `chromium` and `chromedriver`. Exits with 1 where a limit is not kept.

#[path = "../tests/browser/browser.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod browser;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use bench::analysis::metrics::RunMetrics;
use bench::analysis::verdict::{Status, Verdict};
use bench::measurement::results::{SESSION_SCHEMA_VERSION, SessionRecord, write_session};
use bench::measurement::timeline::store::{read_run, run_folder, write_run};
use bench::measurement::timeline::{FinishReason, Hiccup, Phase, RequestEvent, StepEvent, Timeline, TokenEvent};
use bench::presentation::exchange::csv;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;

/// Limits of the whole, for the default number of events.
const EVENTS: u64 = 10_000_000;
const LIMIT_BYTES_PER_EVENT: f64 = 64.0;
const LIMIT_S: f64 = 5.0;
const LIMIT_REPORT_S: f64 = 10.0;
const LIMIT_REPORT_GIB: f64 = 1.5;
const LIMIT_PAGE_MB: f64 = 10.0;
const LIMIT_PAGE_S: f64 = 2.0;

/// Requests in flight, each with this many tokens: the batch of every step.
const BATCH: u64 = 64;
const TOKENS_PER_REQUEST: u64 = 1_000;
const STEP_NS: u64 = 5_000_000;

/// The recorder's core has a hiccup in each of so many steps, and the engine's in each of others.
const STEPS_PER_RECORDER_HICCUP: u64 = 16;
const STEPS_PER_ENGINE_HICCUP: u64 = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo itself gives `--bench`.
    let asked = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let events = asked.map_or(Ok(EVENTS), |argument| argument.parse())?;
    let before_bytes = peak_bytes()?;

    let (mut timeline, fill_s) = timed(|| filled(events));
    let ((metrics, verdict), analyse_s) = timed(|| {
        let metrics = RunMetrics::of_timeline(&timeline);
        let verdict = Verdict::of(&timeline, &metrics);
        (metrics, verdict)
    });
    let bytes_per_event = (peak_bytes()? - before_bytes) as f64 / events as f64;
    assert_eq!(verdict.status, Status::Valid, "{:?}", verdict.reasons);
    let gaps = metrics.itl_ns.map_or(0, |gaps| gaps.count);
    let marked = metrics.itl_marks.marked.unwrap_or(0);

    let folder = tempfile::tempdir()?;
    timeline.run.point.point = "capacity".to_owned();
    let (stored, store_s) = timed(|| write_run(folder.path(), &timeline));
    stored?;
    write_session(folder.path(), &session()?)?;
    drop(timeline);
    // Of one point alone the page has nothing to pick from.
    let mut beside = filled(events / 100);
    (beside.run.point.point, beside.run.order) = ("beside".to_owned(), 1);
    write_run(folder.path(), &beside)?;
    let (loaded, load_s) = timed(|| read_run(&run_folder(folder.path(), "capacity", 0)));
    assert_eq!(loaded?.tokens.len() as u64, events);
    let report = report(folder.path())?;

    println!("{events} token events, {gaps} gaps, {marked} of them with a hiccup");
    println!(
        "{bytes_per_event:.1} bytes per event at the peak of recording and analysing (limit {LIMIT_BYTES_PER_EVENT})"
    );
    println!(
        "fill {fill_s:.2} s, analyse {analyse_s:.2} s (limit of both {LIMIT_S} s), store {store_s:.2} s, load {load_s:.2} s"
    );
    println!(
        "bench report: {:.2} s (limit {LIMIT_REPORT_S} s), {:.2} GiB at its peak (limit {LIMIT_REPORT_GIB} GiB), report.html of \
         {:.2} MB (limit {LIMIT_PAGE_MB} MB)",
        report.took_s, report.peak_gib, report.page_mb
    );
    let page = shown(&folder.path().join("report.html"))?;
    println!(
        "Chromium, with a second point of a hundredth: every chart drawn and the page idle after {:.2} s (limit \
         {LIMIT_PAGE_S} s), charts anew without a point after {:.2} s",
        page.idle_s, page.picked_s
    );
    let is_over = bytes_per_event > LIMIT_BYTES_PER_EVENT || fill_s + analyse_s > LIMIT_S;
    if is_over
        || report.took_s > LIMIT_REPORT_S
        || report.peak_gib > LIMIT_REPORT_GIB
        || report.page_mb > LIMIT_PAGE_MB
        || page.idle_s > LIMIT_PAGE_S
    {
        std::process::exit(1);
    }
    Ok(())
}

/// What `bench report` took.
struct ReportCost {
    took_s: f64,
    peak_gib: f64,
    page_mb: f64,
}

/// Makes the report as its users do, in a process of its own.
fn report(folder: &Path) -> Result<ReportCost, Box<dyn std::error::Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.arg("report").arg(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let (status, took_s) = timed(|| command.status());
    assert!(status?.success(), "bench report failed");
    // No other process was waited for.
    let peak_kib = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    let page_bytes = std::fs::metadata(folder.join("report.html"))?.len();
    Ok(ReportCost { took_s, peak_gib: peak_kib as f64 / f64::from(1 << 20), page_mb: page_bytes as f64 / 1e6 })
}

/// How soon a page can be used, in seconds.
struct PageTimes {
    /// From the beginning of its navigation until every chart is drawn and nothing else waits for the page's thread.
    idle_s: f64,
    /// From a click on a point until the next picture.
    picked_s: f64,
}

/// Opens a page in a browser of its own, on a laptop's screen.
fn shown(page: &Path) -> Result<PageTimes, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let browser = browser::Browser::start(1_280, 800, "light").await;
        browser.client.goto(&format!("file://{}", page.display())).await?;
        browser.wait_until("document.documentElement.dataset.drawn === 'all'").await;
        let idle = "const done = arguments[0]; requestIdleCallback(() => done(performance.now()));";
        let idle_ms = browser.client.execute_async(idle, vec![]).await?;
        let pick = "const done = arguments[0], began = performance.now(); document.querySelector('#points input').click();\
                    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));";
        let picked_ms = browser.client.execute_async(pick, vec![]).await?;
        browser.close().await;
        let seconds = |ms: serde_json::Value| ms.as_f64().map(|ms| ms / 1e3).ok_or("a time that is no number");
        Ok(PageTimes { idle_s: seconds(idle_ms)?, picked_s: seconds(picked_ms)? })
    })
}

/// What a results folder has to say of its command.
fn session() -> serde_json::Result<SessionRecord> {
    serde_json::from_value(json!({
        "schema_version": SESSION_SCHEMA_VERSION,
        "bench_version": env!("CARGO_PKG_VERSION"),
        "plan": {"name": "capacity", "seed": 0, "epochs": []},
        "environment": null,
        "instrument": {
            "clock": {"name": "CLOCK_MONOTONIC", "resolution_ns": 1.0, "read_ns": 1.0},
            "wait_strategy": "none: these events were made up", "recorder_core": null, "recorder_priority": null,
            "engine_cores": [], "not_permitted": [], "error_budget": null,
        },
        "started_at": "",
    }))
}

/// A sound run of which every step gives one token to each request of a batch, with uneven steps.
fn filled(events: u64) -> Timeline {
    let steps = events.div_ceil(BATCH);
    // A name and a run to hang the events on; the events themselves replace those of the import.
    let text = "run,request,phase,kind,count,scheduled_ns,submitted_ns,received_ns\nm,1,measure,submit,1,1,1,\n";
    let imported = csv::read_from(std::path::Path::new("capacity"), text.as_bytes());
    let mut timeline = imported.map(|mut runs| runs.swap_remove(0)).expect("a file of one event");
    timeline.tokens = Vec::with_capacity(events as usize);
    timeline.steps = Vec::with_capacity(steps as usize);
    timeline.requests = Vec::new();
    let mut now_ns = 1_000_000_000;
    for step in 0..steps {
        if step % TOKENS_PER_REQUEST == 0 {
            let request = RequestEvent::planned(Phase::Measure, 128, u32::MAX, 0);
            let submitted = RequestEvent { scheduled_ns: now_ns, submitted_ns: now_ns, ..request };
            timeline.requests.extend(std::iter::repeat_n(submitted, BATCH as usize));
        }
        now_ns += STEP_NS + step * 7_919 % 400_000;
        push_step(&mut timeline, step, now_ns, BATCH.min(events - step * BATCH));
    }
    timeline.run.point.num_prompts = timeline.requests.len() as u32;
    timeline.run.recorder_hiccups = Some(timeline.hiccups.len() as u64);
    timeline
}

fn push_step(timeline: &mut Timeline, step: u64, emitted_ns: u64, batch: u64) {
    let first = (step / TOKENS_PER_REQUEST * BATCH) as u32;
    for request in first..first + batch as u32 {
        let received_ns = emitted_ns + 300 + (step * 31 + u64::from(request) * 17) % 2_000;
        let poll_gap_ns = 40 + (received_ns % 97) as u32;
        let event = TokenEvent { received_ns, emitted_ns, request, step: step as u32, count: 1, poll_gap_ns };
        timeline.tokens.push(event);
        let state = &mut timeline.requests[request as usize];
        state.finish_emitted_ns = emitted_ns;
        state.finish_received_ns = received_ns;
        state.finish_reason = FinishReason::Length as u8;
        state.output_tokens = if state.output_tokens == u32::MAX { 1 } else { state.output_tokens + 1 };
    }
    if step.is_multiple_of(STEPS_PER_RECORDER_HICCUP) {
        timeline.hiccups.push(Hiccup { began_ns: emitted_ns - 40_000, ended_ns: emitted_ns - 10_000 });
    }
    timeline.steps.push(StepEvent {
        started_ns: timeline.steps.last().map_or(emitted_ns - STEP_NS, |before| before.ended_ns + 5_000),
        ended_ns: emitted_ns + 20_000,
        tapped_ns: emitted_ns,
        step: step as u32,
        decode_requests: batch as u32,
        decode_tokens: batch as u32,
        token_events: batch as u32,
        running: batch as u32,
        tap_push_ns: 8_000,
        involuntary_switches: u32::from(step.is_multiple_of(STEPS_PER_ENGINE_HICCUP)),
        ..bytemuck::Zeroable::zeroed()
    });
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = Instant::now();
    let result = work();
    (result, begin.elapsed().as_secs_f64())
}

/// Most memory that this process has held so far.
fn peak_bytes() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
