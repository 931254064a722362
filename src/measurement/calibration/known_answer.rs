//! The whole path against the scripted engine, which writes down what it really did.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::{BATCHES, CalibrationError, Effort, KnownAnswer, TapCost, Times};
use crate::measurement::recorder::LiveTotals;
use crate::measurement::session::{
    EngineSpec, Interrupts, PrivateFolder, Progress, RunRecording, Sidecar, SidecarOptions, execute,
};
use crate::measurement::timeline::run_name;
use crate::measurement::timeline::{ABSENT, Phase};
use crate::question::config::{Script, ScriptedFinish, ScriptedRequest};
use crate::question::plan::{Load, Point};
use crate::question::resolve::{Overrides, of_script};

/// Requests at once, tokens of each, and how many of them follow each other.
type Series = [(u32, u32, u32); 4];

/// The schedule of vLLM's own test of its client: the first token after 50 ms, then one every 10 ms.
/// Requests at once have their tokens at the same instants, and a stall takes an instant: a p99 needs a hundred of them. Of
/// waves of 1,000 a run holds 32.
const FULL: (u64, u64, Series) =
    (50_000_000, 10_000_000, [(1, 10, 100), (10, 10, 100), (100, 10, 100), (1_000, 20, 32)]);
/// A shorter one, with the same wait for the first token: after 5 ms instead of 50 the median error of a TTFT is a fifth
/// (0.4 against 2.0 to 2.4 us at one request, in alternation), since caches stay warm, and a budget must not promise that.
const SHORT: (u64, u64, Series) = (50_000_000, 5_000_000, [(1, 4, 8), (10, 10, 2), (100, 10, 2), (1_000, 10, 2)]);

/// A token was watched for if the recorder's look before was no longer ago; a look takes a twentieth of it.
const WATCHED_NS: u32 = 1_000;

/// What the scripted engine has answered.
pub(super) struct Measured {
    pub(super) answers: Vec<KnownAnswer>,
    pub(super) per_step: Vec<TapCost>,
}

/// Nobody watches, and nobody interrupts but by ending the program.
struct Unwatched;

impl Progress for Unwatched {
    fn tick(&mut self, _: &LiveTotals) {}
}

impl Interrupts for Unwatched {
    async fn leave_now(&mut self) {
        std::future::pending().await
    }

    async fn leave(&mut self) {
        std::future::pending().await
    }
}

/// A row of `truth.csv`.
#[derive(Deserialize)]
struct TruthRow {
    run: String,
    request: u32,
    token: u32,
    intended_ns: u64,
    emitted_ns: u64,
}

/// Runs the schedule at every concurrency, and measures the tap in the sidecar's Python.
pub(super) async fn measure(
    options: &SidecarOptions,
    effort: Effort,
    say: &mut dyn FnMut(&str),
) -> Result<Measured, CalibrationError> {
    let folder = PrivateFolder::make()?;
    let truth = folder.temporary().join("truth.csv");
    std::fs::write(&truth, crate::measurement::session::TRUTH_HEADER).map_err(|error| unreadable(&truth, &error))?;
    let options =
        SidecarOptions { log: folder.temporary().join("sidecar.log"), with_vllm: false, warm: None, ..options.clone() };
    let mut sidecar = Sidecar::start(&options).await?;
    let (first_ns, gap_ns, series) = effort.pick(SHORT, FULL);
    let script = Arc::new(script(first_ns, gap_ns));
    let spec = EngineSpec::Scripted { script: Arc::clone(&script), truth: truth.clone() };
    let mut engine = sidecar.load(&spec).await?;
    let mut per_step = Vec::new();
    for batch in BATCHES {
        let samples_ns = engine.measure_tap(batch, effort.pick(30, 300)).await?;
        per_step.extend(Times::of(samples_ns).map(|tap_push_ns| TapCost { batch, tap_push_ns }));
    }
    let mut answers = Vec::new();
    for (concurrency, tokens, waves) in series {
        say(&format!("a known answer with {concurrency} requests at once"));
        let point = point(&script, concurrency, tokens, waves);
        let recording = execute(&mut sidecar, &mut engine, &options, &point, (0, 0), &mut Unwatched).await?;
        if let Some(failure) = recording.failure {
            return Err(failure.into());
        }
        let truth = read_truth(&truth, &run_name(&point.name, &point.point, 0))?;
        answers.push(Samples::of(&recording, &truth).answer(concurrency)?);
    }
    engine.shutdown().await;
    sidecar.shutdown().await;
    Ok(Measured { answers, per_step })
}

fn script(first_ns: u64, gap_ns: u64) -> Script {
    let request = ScriptedRequest {
        first_ns,
        gaps_ns: None,
        gap_ns,
        events: None,
        counts: None,
        cached: 0,
        finish: ScriptedFinish::Length,
    };
    Script { name: "calibration".to_owned(), requests: vec![request], faults: Vec::new(), growth_ppm: 0, noise: None }
}

/// Waves of `concurrency` requests, each request following the one that has ended.
fn point(script: &Script, concurrency: u32, tokens: u32, waves: u32) -> Point {
    let mut plan = of_script(script, Overrides { scripted: true, ..Overrides::default() });
    let point = plan.epochs.remove(0).points.remove(0); // a script's plan has one epoch of one point
    Point {
        point: format!("c{concurrency}"),
        num_prompts: concurrency * waves,
        output_len: tokens,
        scripted_output_lens: None,
        load: Load::Closed { concurrency: Some(concurrency) },
        ..point
    }
}

fn unreadable(path: &Path, problem: &impl ToString) -> CalibrationError {
    CalibrationError::Truth { path: path.to_owned(), problem: problem.to_string() }
}

/// Intended and emitted time of each token of a run, by request and token.
type Truth = HashMap<(u32, u32), (u64, u64)>;

fn read_truth(path: &PathBuf, run: &str) -> Result<Truth, CalibrationError> {
    let mut reader = ::csv::Reader::from_path(path).map_err(|error| unreadable(path, &error))?;
    let mut truth = Truth::new();
    for row in reader.deserialize() {
        let row: TruthRow = row.map_err(|error| unreadable(path, &error))?;
        if row.run == run {
            truth.insert((row.request, row.token), (row.intended_ns, row.emitted_ns));
        }
    }
    Ok(truth)
}

/// Errors and stages of the runs at one concurrency, in nanoseconds.
#[derive(Default)]
struct Samples {
    ttft_error: Vec<i64>,
    ttft_error_watched: Vec<i64>,
    itl_error: Vec<i64>,
    itl_error_watched: Vec<i64>,
    tap: Vec<i64>,
    transport: Vec<i64>,
    submit: Vec<i64>,
    schedule_error: Vec<i64>,
    /// Token events that were lost, or that the engine had not yet emitted when they came.
    unexplained: u64,
}

impl Samples {
    fn of(recording: &RunRecording, truth: &Truth) -> Samples {
        let mut samples = Samples::default();
        let requests = &recording.tape.requests;
        let measured = requests.iter().filter(|request| request.phase() == Phase::Measure);
        samples.submit.extend(
            measured
                .filter(|request| request.engine_queued_ns != ABSENT)
                .map(|request| request.engine_queued_ns as i64 - request.scheduled_ns as i64),
        );
        // By request: the next token, received - emitted of the one before, and whether that was watched for.
        let mut next = vec![(0u32, None::<(i64, bool)>); requests.len()];
        for event in &recording.tape.tokens {
            let (token, before) = &mut next[event.request as usize];
            let Some((intended_ns, emitted_ns)) = truth.get(&(event.request, *token)) else {
                samples.unexplained += 1;
                continue;
            };
            let late_ns = event.received_ns as i64 - *emitted_ns as i64;
            samples.unexplained += u64::from(late_ns < 0);
            let watched = event.poll_gap_ns().is_some_and(|gap_ns| gap_ns <= WATCHED_NS);
            match before {
                None => {
                    samples.ttft_error.push(late_ns.abs());
                    samples.ttft_error_watched.extend(watched.then_some(late_ns.abs()));
                }
                Some((before_ns, before_watched)) => {
                    let error_ns = (late_ns - *before_ns).abs();
                    samples.itl_error.push(error_ns);
                    samples.itl_error_watched.extend((watched && *before_watched).then_some(error_ns));
                }
            }
            samples.tap.push(event.emitted_ns as i64 - *emitted_ns as i64);
            samples.transport.push(event.received_ns as i64 - event.emitted_ns as i64);
            samples.schedule_error.push(*emitted_ns as i64 - *intended_ns as i64);
            (*token, *before) = (*token + event.count, Some((late_ns, watched)));
        }
        samples.unexplained += truth.len().abs_diff(recording.tape.tokens.len()) as u64;
        samples
    }

    fn answer(self, concurrency: u32) -> Result<KnownAnswer, CalibrationError> {
        if self.unexplained > 0 {
            let problem = format!("{} token events were lost, or came before the engine had them", self.unexplained);
            return Err(CalibrationError::Answer { concurrency, problem });
        }
        let times = |samples_ns: Vec<i64>, what: &str| {
            let problem = format!("the run gave no {what}");
            Times::of(samples_ns).ok_or(CalibrationError::Answer { concurrency, problem })
        };
        Ok(KnownAnswer {
            concurrency,
            ttft_error_ns: times(self.ttft_error, "first token")?,
            ttft_error_watched_ns: Times::of(self.ttft_error_watched),
            itl_error_ns: Times::of(self.itl_error),
            itl_error_watched_ns: Times::of(self.itl_error_watched),
            tap_ns: times(self.tap, "token")?,
            transport_ns: times(self.transport, "token")?,
            submit_ns: times(self.submit, "stamp of a request's admission")?,
            schedule_error_ns: times(self.schedule_error, "token")?,
        })
    }
}
