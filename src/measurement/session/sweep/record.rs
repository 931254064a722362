//! The record of a run, from what is known before it and what was recorded in it.

use super::{RunHead, RunRecording, Sweep, SweepObserver};
use crate::measurement::ring::clock_ns;
use crate::measurement::session::{EngineSpec, SessionError};
use crate::measurement::telemetry::Sample;
use crate::measurement::timeline::store::RUN_SCHEMA_VERSION;
use crate::measurement::timeline::{ABSENT, Counters, Outcome, Phase, RequestEvent, RunRecord, Timeline};
use crate::question::config::Script;
use crate::question::plan::Epoch;

/// One try at a planned run.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) head: RunHead<'a>,
    /// The repeat under which it is stored.
    pub(super) repeat: u32,
    /// The repeat of the try before, which failed.
    pub(super) retry_of: Option<u32>,
}

impl<O: SweepObserver> Sweep<'_, O> {
    /// The record of a run that begins; it takes the next place in the order.
    pub(super) fn record(&mut self, epoch: &Epoch, attempt: Attempt<'_>, load_s: f64) -> RunRecord {
        let head = attempt.head;
        let order = self.order;
        self.order += 1;
        RunRecord {
            schema_version: RUN_SCHEMA_VERSION,
            point: head.run.point.clone(),
            engine_key: epoch.key.clone(),
            engine: self.specs[head.epoch as usize].engine_name().to_owned(),
            epoch: head.epoch,
            repeat: attempt.repeat,
            retry_of: attempt.retry_of,
            round: head.run.round,
            order,
            outcome: Outcome::Completed,
            engine_load_s: load_s,
            engine_warm_up: None,
            turnaround_s: None,
            engine_facts: None,
            counters: Counters::default(),
            recorder_hiccups: None,
            telemetry: None,
            clock_step_ns: None,
            compilations: None,
            speculation: None,
            cache_reset: None,
            warnings: Vec::new(),
            began_at: jiff::Timestamp::now().to_string(),
        }
    }

    /// Puts what was recorded together, complete or not.
    pub(super) fn assemble(
        &mut self,
        mut record: RunRecord,
        recording: RunRecording,
        telemetry: Vec<Sample>,
    ) -> (Timeline, Option<SessionError>) {
        let tape = recording.tape;
        record.counters = tape.counters;
        record.recorder_hiccups = tape.num_hiccups;
        record.clock_step_ns = Some(recording.clock_step_ns);
        let steps = recording.ended.as_ref().map(|ended| ended.steps);
        let (compilations, drafts) = recording.ended.map_or((None, None), |ended| (ended.compilations, ended.drafts));
        record.compilations = compilations;
        record.cache_reset = Some(recording.cache_reset);
        record.warnings.extend(recording.warnings);
        let specs = self.specs;
        if let Some(err) = &recording.failure {
            record.outcome = Outcome::Failed(match err {
                SessionError::Silent { .. } => format!("{err}; {}", progress(&tape.requests)),
                err => err.to_string(),
            });
        } else if let EngineSpec::Scripted { script, .. } = &specs[record.epoch as usize] {
            record.warnings.extend(steps.and_then(|steps| unreached_faults(script, steps)));
        }
        let mut timeline = Timeline {
            run: record,
            requests: tape.requests,
            tokens: tape.tokens,
            steps: tape.steps,
            hiccups: tape.hiccups,
            telemetry,
        };
        if let Some(drafts) = drafts {
            timeline.settle_speculation(&drafts);
        }
        timeline.run.turnaround_s = self.last_token_ns.and_then(|ended_ns| turnaround_s(&timeline, ended_ns));
        self.last_token_ns = timeline.tokens.last().map(|token| token.received_ns).or(Some(clock_ns()));
        (timeline, recording.failure)
    }
}

/// How far a run came: a lost request shows as one that never finished beside others that did.
fn progress(requests: &[RequestEvent]) -> String {
    let submitted = requests.iter().filter(|request| request.submitted_ns != ABSENT);
    let (complete, open): (Vec<&RequestEvent>, Vec<&RequestEvent>) = submitted.partition(|request| request.finished());
    let (complete, open, of) = (complete.len(), open.len(), complete.len() + open.len());
    format!("{complete} of {of} submitted requests are complete, {open} never finished")
}

/// Names the faults of a script that lie beyond the steps of a run.
fn unreached_faults(script: &Script, steps: u64) -> Option<String> {
    let faults = script.faults.iter().filter(|fault| u64::from(fault.at_step) >= steps);
    let named: Vec<String> = faults.map(|fault| format!("{} at step {}", fault.kind.as_str(), fault.at_step)).collect();
    let named = named.join(", ");
    (!named.is_empty())
        .then(|| format!("the script's faults were not reached: {named}; the run had {steps} steps, counted from 0"))
}

/// A run of which nothing was recorded.
pub(super) fn without_events(mut run: RunRecord, outcome: Outcome) -> Timeline {
    run.outcome = outcome;
    Timeline {
        run,
        requests: Vec::new(),
        tokens: Vec::new(),
        steps: Vec::new(),
        hiccups: Vec::new(),
        telemetry: Vec::new(),
    }
}

/// Seconds from the last token of the run before to the first measured submit, without the steps in between.
fn turnaround_s(timeline: &Timeline, ended_ns: u64) -> Option<f64> {
    let measured = timeline.requests.iter().filter(|request| request.phase() == Phase::Measure);
    let first_submit_ns = measured.map(|request| request.submitted_ns).filter(|ns| *ns != ABSENT).min()?;
    let before = timeline.steps.iter().filter(|step| step.ended_ns <= first_submit_ns);
    let stepping_ns: u64 = before.map(|step| step.ended_ns - step.started_ns).sum();
    Some(first_submit_ns.saturating_sub(ended_ns).saturating_sub(stepping_ns) as f64 / 1e9)
}
