//! Whether a run's numbers are what was asked for: VALID, or INVALID with every reason.

mod events;
mod objective;
mod requests;
mod settings;
mod stamps;
mod steps;
mod times;
mod weights;

pub use objective::{Objective, objectives};
pub use stamps::STAMP_TOLERANCE_NS;
pub use times::LONGEST_RUN_NS;

use serde::Serialize;

use crate::analysis::metrics::{Metric, RequestTokens, RunMetrics, Statistic};
use crate::measurement::timeline::IMPORTED_ENGINE;
use crate::measurement::timeline::{Counters, Outcome, Phase, RunRecord, Timeline, known};
use crate::statistics::fewest_samples;

/// Largest step of the wall clock against the monotonic one over a run, in nanoseconds. A larger one means that
/// somebody set the clock, or that the machine slept.
pub const CLOCK_STEP_LIMIT_NS: i64 = 1_000_000;

/// The 99th percentile of the issue delay may be this long in any case, in nanoseconds: what waking a thread costs on
/// a machine that is not idle.
pub const ISSUE_DELAY_FLOOR_NS: i64 = 1_000_000;

/// Beyond the floor it may be this part of the median E2E latency: a slot of a closed load is then empty for at most a
/// hundredth of the time, and so is the concurrency that was asked for.
pub const ISSUE_DELAY_E2E_PARTS: i64 = 100;

/// A recorder that did not look for this long, in nanoseconds, was stopped: no scheduler of a machine that measures takes as
/// long. What came meanwhile has the time of its end.
pub const STANDSTILL_NS: u64 = 500_000_000;

/// How a run counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its numbers are what was asked for.
    Valid,
    /// It ran to its end and its numbers are not what was asked for.
    Invalid,
    /// It ended early.
    Failed,
    /// It never began.
    Skipped,
}

impl Status {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Valid => "valid",
            Status::Invalid => "invalid",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        }
    }
}

/// A run's status, with everything that speaks against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// How the run counts.
    pub status: Status,
    /// Why it is not valid, each a short sentence; empty for a valid run.
    pub reasons: Vec<String>,
    /// What makes the numbers less trustworthy without making them wrong.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// The verdict on a run.
    pub fn of(timeline: &Timeline, metrics: &RunMetrics) -> Verdict {
        let mut warnings = timeline.run.warnings.clone();
        let (status, reasons) = match &timeline.run.outcome {
            Outcome::Skipped(cause) => (Status::Skipped, vec![cause.clone()]),
            Outcome::Failed(cause) => (Status::Failed, vec![cause.clone()]),
            Outcome::Completed => {
                warnings.extend(uncached_prefix(&timeline.run));
                warnings.extend(hiccups_without_room(timeline, metrics));
                let reasons = reasons_against(timeline, metrics);
                (if reasons.is_empty() { Status::Valid } else { Status::Invalid }, reasons)
            }
        };
        Verdict { status, reasons, warnings }
    }
}

/// Something that several requests, events or steps have in common, with the first of them as an example.
#[derive(Default)]
struct Finding {
    count: u64,
    first: Option<String>,
}

impl Finding {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(example);
    }

    /// `3 of 8 requests gave no token (first: request 5)`.
    fn reason(self, of: u64, what: &str, did: &str) -> Option<String> {
        Some(format!("{} of {of} {what} {did} (first: {})", self.count, self.first?))
    }
}

fn reasons_against(timeline: &Timeline, metrics: &RunMetrics) -> Vec<String> {
    let run = &timeline.run;
    let mut reasons = Vec::new();
    let measured = timeline.requests.iter().filter(|request| request.phase() == Phase::Measure).count();
    if measured == 0 {
        reasons.push("no request was measured".to_owned());
    } else if measured != run.point.num_prompts as usize {
        reasons.push(format!("{} requests were to be measured, and {measured} were staged", run.point.num_prompts));
    }
    let tokens = RequestTokens::of(timeline);
    reasons.extend(requests::reasons(timeline, &tokens));
    reasons.extend(times::reasons(timeline));
    reasons.extend(events::reasons(timeline));
    reasons.extend(counted(&run.counters));
    if !(timeline.steps.is_empty() && run.engine == IMPORTED_ENGINE) {
        reasons.extend(steps::reasons(timeline));
    }
    reasons.extend(stamps::reasons(timeline, &tokens));
    reasons.extend(issue_delay(metrics));
    reasons.extend(standstill(timeline));
    reasons.extend(clock_step(run));
    reasons.extend(compiled_in_window(timeline));
    if run.cache_reset == Some(false) {
        reasons
            .push("the prefix cache could not be reset before the run: hits may come from the run before".to_owned());
    }
    reasons.extend(loaded_engine(run));
    reasons.extend(too_few_samples(run, metrics));
    reasons
}

/// A script and a file of events have no engine to look at.
fn loaded_engine(run: &RunRecord) -> Vec<String> {
    let Some(facts) = run.engine_facts.as_ref().filter(|_| run.engine == "vllm") else { return Vec::new() };
    let mut reasons = weights::reasons(run.engine_key.quantization, facts.weights.as_ref());
    reasons.extend(settings::reasons(&run.engine_key, facts));
    reasons
}

fn counted(counters: &Counters) -> impl Iterator<Item = String> {
    let faults = [
        (counters.ring_dropped, "found the event ring full and were dropped"),
        (counters.recorder_overflow, "found no room in the recorder's memory and were dropped"),
        (counters.malformed, "were malformed"),
        (counters.unexplained, "belong to no submitted and unfinished request"),
    ];
    faults.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} event records {what}"))
}

fn issue_delay(metrics: &RunMetrics) -> Option<String> {
    let (delay_ns, e2e_ns) = (metrics.issue_delay_ns?.p99, metrics.e2e_ns?.p50);
    let limit_ns = ISSUE_DELAY_FLOOR_NS.max(e2e_ns / ISSUE_DELAY_E2E_PARTS);
    (delay_ns > limit_ns).then(|| {
        format!(
            "requests were issued late: the p99 of the issue delay is {:.3} ms, and its limit {:.3} ms",
            delay_ns as f64 / 1e6,
            limit_ns as f64 / 1e6
        )
    })
}

fn standstill(timeline: &Timeline) -> Option<String> {
    let longest_ns = timeline.hiccups.iter().map(|hiccup| hiccup.ended_ns.saturating_sub(hiccup.began_ns)).max()?;
    (longest_ns >= STANDSTILL_NS).then(|| {
        format!(
            "the harness stood still for {:.1} s: what came meanwhile was stamped at its end",
            longest_ns as f64 / 1e9
        )
    })
}

fn clock_step(run: &RunRecord) -> Option<String> {
    let step_ns = run.clock_step_ns.filter(|step_ns| step_ns.unsigned_abs() > CLOCK_STEP_LIMIT_NS.unsigned_abs())?;
    let (step_ms, limit_ms) = (step_ns as f64 / 1e6, CLOCK_STEP_LIMIT_NS as f64 / 1e6);
    Some(format!("the wall clock stepped by {step_ms:.3} ms during the run (limit {limit_ms} ms)"))
}

/// Programs that became ready while requests were measured: what waited for them was not served as in the steady state.
fn compiled_in_window(timeline: &Timeline) -> Option<String> {
    let measured = timeline.requests.iter().filter(|request| request.phase() == Phase::Measure);
    let first_submit_ns = measured.map(|request| request.submitted_ns).filter(|at_ns| known(*at_ns).is_some()).min()?;
    let last_token_ns = timeline.tokens.last()?.received_ns;
    let mut found = Finding::default();
    for compilation in timeline.run.compilations.iter().flatten() {
        if (first_submit_ns..=last_token_ns).contains(&compilation.ready_ns) {
            found.add(|| compilation.program.clone());
        }
    }
    let (count, first) = (found.count, found.first?);
    Some(format!("the engine compiled {count} programs in the measured window (first: {first}); raise warmup"))
}

/// Percentiles that an objective asks for and that all repeats together cannot show.
fn too_few_samples(run: &RunRecord, metrics: &RunMetrics) -> Vec<String> {
    let mut reasons = Vec::new();
    for name in run.point.slo.keys() {
        let Some(Metric::Of(series, Statistic::Percentile(percentile))) = Metric::named(name) else { continue };
        let samples = metrics.spread(series).map_or(0, |spread| spread.count);
        let (repeats, needed) = (u64::from(run.point.repeats), fewest_samples(percentile.quantile()));
        if samples * repeats < needed {
            reasons.push(format!(
                "too few samples for `{name}`: {samples} in each of {repeats} runs, and it takes {needed} in all; \
                 raise num_prompts or repeats"
            ));
        }
    }
    reasons
}

fn uncached_prefix(run: &RunRecord) -> Option<String> {
    let off = run.engine_facts.as_ref().is_some_and(|facts| !facts.prefix_caching);
    (off && run.point.prefix_len > 0).then(|| {
        format!(
            "prefix caching is off: the {} shared prompt tokens are computed for each request",
            run.point.prefix_len
        )
    })
}

fn hiccups_without_room(timeline: &Timeline, metrics: &RunMetrics) -> Option<String> {
    let (count, kept) = (timeline.run.recorder_hiccups?, timeline.hiccups.len() as u64);
    (count > kept && metrics.totals.recorder_hiccups.is_none()).then(|| {
        format!(
            "the recorder's core had {count} hiccups, and there was room for {kept}: of the later ones nothing is known; \
             give the recorder a core of its own"
        )
    })
}
