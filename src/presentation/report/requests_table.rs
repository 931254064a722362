//! `requests.parquet`: a row per request, for pandas, polars and DuckDB.

use std::io::{self, Write};

use super::parquet_table::{Columns, ParquetTable, Values};
use crate::analysis::metrics::{
    RequestTokens, block_size_in_use, elapsed_ns, expected_cached_tokens, known_elapsed_ns, scheduled_ns,
};
use crate::analysis::verdict::Status;
use crate::measurement::timeline::{FinishReason, RequestEvent, RunRecord, Timeline, known};

/// A request with its run, from which every column is taken.
pub(super) struct Row<'a> {
    run: &'a RunRecord,
    status: Status,
    index: usize,
    request: &'a RequestEvent,
    tokens: &'a RequestTokens,
}

use Values::{Integer, Seconds, Text};

/// A row per request.
pub(super) struct Requests;

impl Columns for Requests {
    type Row<'a> = Row<'a>;
    const ROW: &'static str = "request";
    const COLUMNS: &'static [(&'static str, Values<Requests>)] = COLUMNS;
}

const COLUMNS: &[(&str, Values<Requests>)] = &[
    ("name", Text(|row| row.run.point.name.clone())),
    ("point", Text(|row| row.run.point.point.clone())),
    ("repeat", Integer(|row| Some(row.run.repeat.into()))),
    ("round", Integer(|row| Some(row.run.round.into()))),
    ("order", Integer(|row| Some(row.run.order.into()))),
    ("engine", Text(|row| row.run.engine.clone())),
    ("run_status", Text(|row| row.status.as_str().to_owned())),
    ("request", Integer(|row| Some(row.index as u64))),
    ("phase", Text(|row| row.request.phase().as_str().to_owned())),
    ("scheduled_ns", Integer(|row| known(row.request.scheduled_ns))),
    ("submitted_ns", Integer(|row| known(row.request.submitted_ns))),
    ("first_token_ns", Integer(|row| row.answered().map(|tokens| tokens.first_received_ns))),
    ("last_token_ns", Integer(|row| row.answered().map(|tokens| tokens.last_received_ns))),
    ("finished_ns", Integer(|row| known(row.request.finish_received_ns))),
    ("engine_queued_ns", Integer(|row| known(row.request.engine_queued_ns))),
    ("engine_scheduled_ns", Integer(|row| known(row.request.engine_scheduled_ns))),
    ("engine_first_token_ns", Integer(|row| known(row.request.engine_first_token_ns))),
    ("engine_last_token_ns", Integer(|row| known(row.request.engine_last_token_ns))),
    ("asked_prompt_tokens", Integer(|row| counted(row.request.asked_prompt_tokens))),
    ("asked_output_tokens", Integer(|row| counted(row.request.asked_output_tokens))),
    ("asked_prefix_tokens", Integer(|row| counted(row.request.asked_prefix_tokens))),
    ("prompt_tokens", Integer(|row| counted(row.request.prompt_tokens))),
    ("expected_cached_tokens", Integer(|row| row.expected_cached_tokens())),
    ("cached_tokens", Integer(|row| counted(row.request.cached_tokens))),
    ("output_tokens", Integer(|row| Some(row.tokens.tokens))),
    ("token_events", Integer(|row| Some(row.tokens.events))),
    ("preemptions", Integer(|row| Some(row.request.preemptions.into()))),
    ("finish_reason", Text(|row| finish_reason(row.request).to_owned())),
    ("ttft_s", Seconds(|row| Some(seconds(elapsed_ns(row.scheduled()?, row.answered()?.first_received_ns))))),
    ("ttft_service_s", Seconds(|row| Some(seconds(elapsed_ns(row.submitted()?, row.answered()?.first_received_ns))))),
    ("e2e_s", Seconds(|row| Some(seconds(elapsed_ns(row.scheduled()?, row.answered()?.last_received_ns))))),
    ("issue_delay_s", Seconds(|row| Some(seconds(elapsed_ns(row.scheduled()?, row.submitted()?))))),
    ("time_per_output_token_s", Seconds(|row| Some(row.tokens.time_per_output_token_ns()?.as_f64() / 1e9))),
    ("queue_s", Seconds(|row| between(row.request.engine_queued_ns, row.request.engine_scheduled_ns))),
    ("prefill_s", Seconds(|row| between(row.request.engine_scheduled_ns, row.request.engine_first_token_ns))),
    ("decode_s", Seconds(|row| between(row.request.engine_first_token_ns, row.request.engine_last_token_ns))),
];

impl Row<'_> {
    fn answered(&self) -> Option<&RequestTokens> {
        (self.tokens.events > 0).then_some(self.tokens)
    }

    /// Prompt tokens that were to come from the cache; `None` if nothing is known of it.
    fn expected_cached_tokens(&self) -> Option<u64> {
        let block_size = block_size_in_use(self.run.engine_facts.as_ref()?)?;
        Some(expected_cached_tokens(self.request, block_size).into())
    }

    fn submitted(&self) -> Option<u64> {
        known(self.request.submitted_ns)
    }

    fn scheduled(&self) -> Option<u64> {
        self.submitted().map(|_| scheduled_ns(self.request))
    }
}

fn counted(tokens: u32) -> Option<u64> {
    (tokens != u32::MAX).then_some(tokens.into())
}

fn seconds(time_ns: i64) -> f64 {
    time_ns as f64 / 1e9
}

fn between(from_ns: u64, to_ns: u64) -> Option<f64> {
    known_elapsed_ns(from_ns, to_ns).map(seconds)
}

fn finish_reason(request: &RequestEvent) -> &'static str {
    FinishReason::from_u8(request.finish_reason).unwrap_or(FinishReason::Other).as_str()
}

/// Adds all requests of a run.
pub(super) fn add<W: Write + Send>(
    table: &mut ParquetTable<W, Requests>,
    timeline: &Timeline,
    status: Status,
) -> io::Result<()> {
    let tokens = RequestTokens::of(timeline);
    let requests = timeline.requests.iter().zip(&tokens).enumerate();
    let rows: Vec<Row<'_>> =
        requests.map(|(index, (request, tokens))| Row { run: &timeline.run, status, index, request, tokens }).collect();
    table.add(&rows)
}
