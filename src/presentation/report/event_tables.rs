//! `tokens.parquet` and `steps.parquet`: every recorded event, a row each. `name`, `point` and `repeat` lead to the run in
//! `requests.parquet`, and `step` from a token to its step.

use std::io::{self, Write};

use super::parquet_table::{Columns, ParquetTable, Values};
use crate::measurement::timeline::{RunRecord, StepEvent, Timeline, TokenEvent};
use Values::{Integer, Seconds, Text};

/// A row per token event.
pub(super) struct Tokens;

/// A token event with its run.
pub(super) struct TokenRow<'a> {
    run: &'a RunRecord,
    phase: &'static str,
    token: &'a TokenEvent,
    /// The request's event before.
    before_ns: Option<u64>,
}

impl Columns for Tokens {
    type Row<'a> = TokenRow<'a>;
    const ROW: &'static str = "token";
    const COLUMNS: &'static [(&'static str, Values<Tokens>)] = &[
        ("name", Text(|row| row.run.point.name.clone())),
        ("point", Text(|row| row.run.point.point.clone())),
        ("repeat", Integer(|row| Some(row.run.repeat.into()))),
        ("request", Integer(|row| Some(row.token.request.into()))),
        ("phase", Text(|row| row.phase.to_owned())),
        ("step", Integer(|row| row.token.step().map(u64::from))),
        ("count", Integer(|row| Some(row.token.count.into()))),
        ("emitted_ns", Integer(|row| Some(row.token.emitted_ns))),
        ("received_ns", Integer(|row| Some(row.token.received_ns))),
        ("poll_gap_ns", Integer(|row| row.token.poll_gap_ns().map(u64::from))),
        ("itl_s", Seconds(|row| Some(row.token.received_ns.checked_sub(row.before_ns?)? as f64 / 1e9))),
    ];
}

/// A row per engine step.
pub(super) struct Steps;

/// A step with its run.
pub(super) struct StepRow<'a> {
    run: &'a RunRecord,
    step: &'a StepEvent,
}

impl Columns for Steps {
    type Row<'a> = StepRow<'a>;
    const ROW: &'static str = "step";
    const COLUMNS: &'static [(&'static str, Values<Steps>)] = &[
        ("name", Text(|row| row.run.point.name.clone())),
        ("point", Text(|row| row.run.point.point.clone())),
        ("repeat", Integer(|row| Some(row.run.repeat.into()))),
        ("step", Integer(|row| Some(row.step.step.into()))),
        ("started_ns", Integer(|row| Some(row.step.started_ns))),
        ("ended_ns", Integer(|row| Some(row.step.ended_ns))),
        ("step_s", Seconds(|row| Some(row.step.ended_ns.checked_sub(row.step.started_ns)? as f64 / 1e9))),
        ("prefill_requests", Integer(|row| Some(row.step.prefill_requests.into()))),
        ("prefill_tokens", Integer(|row| Some(row.step.prefill_tokens.into()))),
        ("decode_requests", Integer(|row| Some(row.step.decode_requests.into()))),
        ("decode_tokens", Integer(|row| Some(row.step.decode_tokens.into()))),
        ("running", Integer(|row| Some(row.step.running.into()))),
        ("waiting", Integer(|row| Some(row.step.waiting.into()))),
        ("kv_cache_usage_ppm", Integer(|row| Some(row.step.kv_cache_usage_ppm.into()))),
        ("preemptions", Integer(|row| Some(row.step.preemptions.into()))),
        ("token_events", Integer(|row| Some(row.step.token_events.into()))),
        ("tap_push_ns", Integer(|row| Some(row.step.tap_push_ns.into()))),
    ];
}

/// Adds all token events of a run, in the order in which they came.
pub(super) fn add_tokens<W: Write + Send>(table: &mut ParquetTable<W, Tokens>, timeline: &Timeline) -> io::Result<()> {
    let mut last_ns: Vec<Option<u64>> = vec![None; timeline.requests.len()];
    let row = |token| {
        let of: &TokenEvent = token;
        let request = of.request as usize;
        let phase = timeline.requests.get(request).map_or("unknown", |request| request.phase().as_str());
        let before_ns = last_ns.get_mut(request).and_then(|last| last.replace(of.received_ns));
        TokenRow { run: &timeline.run, phase, token: of, before_ns }
    };
    table.add(&timeline.tokens.iter().map(row).collect::<Vec<_>>())
}

/// Adds all steps of a run.
pub(super) fn add_steps<W: Write + Send>(table: &mut ParquetTable<W, Steps>, timeline: &Timeline) -> io::Result<()> {
    let rows: Vec<StepRow<'_>> = timeline.steps.iter().map(|step| StepRow { run: &timeline.run, step }).collect();
    table.add(&rows)
}
