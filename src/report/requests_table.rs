//! `requests.parquet`: a row per request, for pandas, polars and DuckDB.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use crate::metrics::{
    RequestTokens, block_size_in_use, elapsed_ns, expected_cached_tokens, known_elapsed_ns, scheduled_ns,
};
use crate::timeline::{FinishReason, RequestEvent, RunRecord, Timeline, known};
use crate::verdict::Status;

/// A request with its run, from which every column is taken.
struct Row<'a> {
    run: &'a RunRecord,
    status: Status,
    index: usize,
    request: &'a RequestEvent,
    tokens: &'a RequestTokens,
}

/// How a column's values are taken from a row.
enum Values {
    Text(fn(&Row<'_>) -> String),
    Integer(fn(&Row<'_>) -> Option<u64>),
    Seconds(fn(&Row<'_>) -> Option<f64>),
}
use Values::{Integer, Seconds, Text};

const COLUMNS: &[(&str, Values)] = &[
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

/// The table while it is written: a row group per run, so that one run is in memory at a time.
pub(super) struct RequestsTable<W: Write + Send> {
    writer: SerializedFileWriter<W>,
}

impl<W: Write + Send> RequestsTable<W> {
    /// Begins a table.
    pub(super) fn begin(out: W) -> io::Result<RequestsTable<W>> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(out, schema()?, Arc::new(properties)).map_err(io::Error::other)?;
        Ok(RequestsTable { writer })
    }

    /// Adds all requests of a run.
    pub(super) fn add(&mut self, timeline: &Timeline, status: Status) -> io::Result<()> {
        if timeline.requests.is_empty() {
            return Ok(());
        }
        let tokens = RequestTokens::of(timeline);
        let requests = timeline.requests.iter().zip(&tokens).enumerate();
        let rows: Vec<Row<'_>> = requests
            .map(|(index, (request, tokens))| Row { run: &timeline.run, status, index, request, tokens })
            .collect();
        let mut group = self.writer.next_row_group().map_err(io::Error::other)?;
        for (_, values) in COLUMNS {
            write_column(&mut group, values, &rows).map_err(io::Error::other)?;
        }
        group.close().map_err(io::Error::other)?;
        Ok(())
    }

    /// Writes the end of the table.
    pub(super) fn finish(self) -> io::Result<()> {
        self.writer.close().map_err(io::Error::other)?;
        Ok(())
    }
}

fn schema() -> io::Result<TypePtr> {
    let field = |(name, values): &(&str, Values)| {
        let (physical, repetition, converted) = match values {
            Text(_) => (Physical::BYTE_ARRAY, Repetition::REQUIRED, ConvertedType::UTF8),
            Integer(_) => (Physical::INT64, Repetition::OPTIONAL, ConvertedType::NONE),
            Seconds(_) => (Physical::DOUBLE, Repetition::OPTIONAL, ConvertedType::NONE),
        };
        let builder = Type::primitive_type_builder(name, physical);
        builder.with_repetition(repetition).with_converted_type(converted).build().map(Arc::new)
    };
    let fields = COLUMNS.iter().map(field).collect::<Result<Vec<TypePtr>, _>>().map_err(io::Error::other)?;
    Type::group_type_builder("request").with_fields(fields).build().map(Arc::new).map_err(io::Error::other)
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &Values,
    rows: &[Row<'_>],
) -> parquet::errors::Result<()> {
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    match values {
        Text(take) => {
            let texts: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(take(row).into_bytes())).collect();
            column.typed::<ByteArrayType>().write_batch(&texts, None, None)?;
        }
        Integer(take) => {
            let (present, levels) = with_levels(rows, |row| take(row).map(|value| value as i64));
            column.typed::<Int64Type>().write_batch(&present, Some(&levels), None)?;
        }
        Seconds(take) => {
            let (present, levels) = with_levels(rows, take);
            column.typed::<DoubleType>().write_batch(&present, Some(&levels), None)?;
        }
    }
    column.close()
}

/// The values that there are, and by row whether there is one.
fn with_levels<T>(rows: &[Row<'_>], take: impl Fn(&Row<'_>) -> Option<T>) -> (Vec<T>, Vec<i16>) {
    let values: Vec<Option<T>> = rows.iter().map(take).collect();
    let levels = values.iter().map(|value| i16::from(value.is_some())).collect();
    (values.into_iter().flatten().collect(), levels)
}
