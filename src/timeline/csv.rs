//! Timelines as `events.csv`: written for other programs, and read from anyone.
//!
//! One row per event; `run` is `name|point|repeat`. Of a submit row `count` is the prompt's tokens, of a token row the
//! event's, and of a finish row all output tokens.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::store::RUN_SCHEMA_VERSION;
use super::{Counters, FinishReason, Outcome, Phase, RequestEvent, RunRecord, Timeline, TokenEvent, known};
use crate::device::DeviceClass;
use crate::metrics::scheduled_ns;
use crate::plan::{Drive, EngineKey, IgnoredInEq, Limits, Load, Point, PrefixMode, Quantization, StepApi};

/// [`RunRecord::engine`] of a timeline that was read from a CSV file: nothing is known of what ran.
pub const IMPORTED_ENGINE: &str = "imported";

/// The columns, in the order in which they are written.
pub const COLUMNS: [&str; 10] =
    ["run", "request", "phase", "kind", "step", "count", "scheduled_ns", "submitted_ns", "emitted_ns", "received_ns"];

/// Columns that a file may lack.
const OPTIONAL_COLUMNS: [&str; 2] = ["step", "emitted_ns"];

/// Why a file could not be read as a timeline.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A row is not an event.
    #[error("{}:{line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: u64,
        /// The column, what is wrong with it, and what is expected.
        problem: String,
    },
}

/// The name of a run in the column `run`.
pub fn run_name(name: &str, point: &str, repeat: u32) -> String {
    format!("{name}|{point}|{repeat}")
}

/// Writes the header row.
///
/// # Errors
/// Those of the writer.
pub fn write_header<W: Write>(out: &mut csv::Writer<W>) -> csv::Result<()> {
    out.write_record(COLUMNS)
}

/// Writes all events of one run: submits, then token events in the order of arrival, then finishes.
///
/// # Errors
/// Those of the writer.
pub fn write_events<W: Write>(out: &mut csv::Writer<W>, timeline: &Timeline) -> csv::Result<()> {
    let record = &timeline.run;
    let run = run_name(&record.point.name, &record.point.point, record.repeat);
    let mut row = |request: usize, phase: Phase, kind: &str, step: Option<u32>, count: u32, times: [Option<u64>; 4]| {
        let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
        let [scheduled, submitted, emitted, received] = times.map(number);
        let (request, step, count) = (request.to_string(), number(step.map(u64::from)), count.to_string());
        let fields = [&run, &request, phase.as_str(), kind, &step, &count, &scheduled, &submitted, &emitted, &received];
        out.write_record(fields)
    };
    for (index, request) in timeline.requests.iter().enumerate() {
        if let Some(submitted_ns) = known(request.submitted_ns) {
            let times = [Some(scheduled_ns(request)), Some(submitted_ns), None, None];
            row(index, request.phase(), "submit", None, request.asked_prompt_tokens, times)?;
        }
    }
    for event in &timeline.tokens {
        let index = event.request as usize;
        let phase = timeline.requests.get(index).map_or(Phase::Prime, RequestEvent::phase);
        let times = [None, None, known(event.emitted_ns), Some(event.received_ns)];
        row(index, phase, "token", event.step(), event.count, times)?;
    }
    for (index, request) in timeline.requests.iter().enumerate().filter(|(_, request)| request.finished()) {
        let times = [None, None, known(request.finish_emitted_ns), Some(request.finish_received_ns)];
        row(index, request.phase(), "finish", None, request.output_tokens, times)?;
    }
    Ok(())
}

/// Reads the timelines of a file, one for each of its runs, in the order in which they begin.
///
/// # Errors
/// [`CsvError`], which names the line and the column. A file without events is one too.
pub fn read(path: &Path) -> Result<Vec<Timeline>, CsvError> {
    let file = std::fs::File::open(path).map_err(|source| CsvError::Io { path: path.to_owned(), source })?;
    read_from(path, io::BufReader::new(file))
}

/// [`read`] of what `input` gives; `path` is for messages.
///
/// # Errors
/// As of [`read`].
pub fn read_from(path: &Path, input: impl Read) -> Result<Vec<Timeline>, CsvError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
    let columns = reader.headers().map_err(|error| csv_failed(path, error)).and_then(|header| {
        Columns::of(header).map_err(|problem| CsvError::Row { path: path.to_owned(), line: 1, problem })
    })?;
    let mut runs: Vec<ImportedRun> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| csv_failed(path, error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let row = Row { columns: &columns, record: &record };
        let name = row.text("run");
        let index = match by_name.get(name) {
            Some(index) => *index,
            None => {
                by_name.insert(name.to_owned(), runs.len());
                runs.push(ImportedRun::default());
                runs.len() - 1
            }
        };
        runs[index].add(&row).map_err(|problem| CsvError::Row { path: path.to_owned(), line, problem })?;
    }
    if runs.is_empty() {
        let problem = "there is no event in this file: it needs a row for each submit, token and finish".to_owned();
        return Err(CsvError::Row { path: path.to_owned(), line: 1, problem });
    }
    let mut names: Vec<(String, usize)> = by_name.into_iter().collect();
    names.sort_by_key(|(_, index)| *index);
    let timelines = runs.into_iter().zip(names).enumerate();
    Ok(timelines.map(|(order, (run, (name, _)))| run.into_timeline(&name, order as u32)).collect())
}

fn csv_failed(path: &Path, error: csv::Error) -> CsvError {
    let line = error.position().map_or(0, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(source) => CsvError::Io { path: path.to_owned(), source },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let problem = format!("{len} fields where the header has {expected_len} columns");
            CsvError::Row { path: path.to_owned(), line, problem }
        }
        csv::ErrorKind::Utf8 { err, .. } => {
            CsvError::Row { path: path.to_owned(), line, problem: format!("not UTF-8 text: {err}") }
        }
        other => CsvError::Row { path: path.to_owned(), line, problem: format!("{other:?}") },
    }
}

/// Where each of [`COLUMNS`] stands in a file.
struct Columns([Option<usize>; COLUMNS.len()]);

impl Columns {
    fn of(header: &StringRecord) -> Result<Columns, String> {
        let positions = COLUMNS.map(|name| header.iter().position(|column| column == name));
        let missing = COLUMNS
            .iter()
            .zip(positions)
            .find(|(name, position)| position.is_none() && !OPTIONAL_COLUMNS.contains(*name));
        match missing {
            Some((name, _)) => Err(format!("no column `{name}`: the header needs {}", COLUMNS.join(","))),
            None => Ok(Columns(positions)),
        }
    }
}

/// One row of a file.
struct Row<'a> {
    columns: &'a Columns,
    record: &'a StringRecord,
}

impl Row<'_> {
    fn text(&self, column: &str) -> &str {
        let position = COLUMNS.iter().position(|name| *name == column).and_then(|index| self.columns.0[index]);
        position.and_then(|position| self.record.get(position)).unwrap_or("")
    }

    /// `None` for an empty field.
    fn optional(&self, column: &str, limit: u64) -> Result<Option<u64>, String> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<u64>() {
            Ok(value) if value < limit => Ok(Some(value)),
            _ => Err(format!("column `{column}`: `{text}` is not a whole number from 0 to {}", limit - 1)),
        }
    }

    fn time_ns(&self, column: &str) -> Result<u64, String> {
        let value = self.optional(column, i64::MAX as u64)?;
        value.ok_or_else(|| format!("column `{column}` is empty, and a {} row needs it", self.text("kind")))
    }

    fn number(&self, column: &str) -> Result<u32, String> {
        match self.optional(column, u32::MAX.into())? {
            Some(value) => Ok(value as u32),
            None => Err(format!("column `{column}` is empty, and a {} row needs it", self.text("kind"))),
        }
    }

    fn phase(&self) -> Result<Phase, String> {
        let text = self.text("phase");
        let known = [Phase::Prime, Phase::Warmup, Phase::Measure].into_iter().find(|phase| phase.as_str() == text);
        known.ok_or_else(|| format!("column `phase`: `{text}` is none of prime, warmup, measure"))
    }
}

/// A run while its rows are read.
#[derive(Default)]
struct ImportedRun {
    requests: Vec<RequestEvent>,
    tokens: Vec<TokenEvent>,
    by_id: HashMap<String, u32>,
}

impl ImportedRun {
    fn add(&mut self, row: &Row<'_>) -> Result<(), String> {
        let index = self.request(row)?;
        let request = &mut self.requests[index as usize];
        match row.text("kind") {
            "submit" if known(request.submitted_ns).is_some() => {
                return Err(format!("request `{}` was submitted on an earlier line", row.text("request")));
            }
            "submit" => {
                request.asked_prompt_tokens = row.number("count")?;
                request.scheduled_ns = row.time_ns("scheduled_ns")?;
                request.submitted_ns = row.time_ns("submitted_ns")?;
            }
            "token" => self.tokens.push(TokenEvent {
                received_ns: row.time_ns("received_ns")?,
                emitted_ns: row.optional("emitted_ns", i64::MAX as u64)?.unwrap_or(super::ABSENT),
                request: index,
                step: row.optional("step", u32::MAX.into())?.map_or(u32::MAX, |step| step as u32),
                count: row.number("count")?,
                poll_gap_ns: u32::MAX,
            }),
            "finish" if request.finished() => {
                return Err(format!("request `{}` finished on an earlier line", row.text("request")));
            }
            "finish" => {
                request.output_tokens = row.number("count")?;
                request.finish_received_ns = row.time_ns("received_ns")?;
                request.finish_emitted_ns = row.optional("emitted_ns", i64::MAX as u64)?.unwrap_or(super::ABSENT);
                request.finish_reason = FinishReason::Other as u8;
            }
            other => return Err(format!("column `kind`: `{other}` is none of submit, token, finish")),
        }
        Ok(())
    }

    /// The index of a row's request, which is made at its first row.
    fn request(&mut self, row: &Row<'_>) -> Result<u32, String> {
        let (id, phase) = (row.text("request"), row.phase()?);
        if id.is_empty() {
            return Err("column `request` is empty: it needs an id that is unique in the run".to_owned());
        }
        if let Some(index) = self.by_id.get(id) {
            let before = self.requests[*index as usize].phase();
            if before != phase {
                let (now, before) = (phase.as_str(), before.as_str());
                return Err(format!("column `phase`: request `{id}` is {now} here and {before} on an earlier line"));
            }
            return Ok(*index);
        }
        let index = self.requests.len() as u32;
        self.requests.push(RequestEvent::planned(phase, 0, u32::MAX, 0));
        self.by_id.insert(id.to_owned(), index);
        Ok(index)
    }

    fn into_timeline(self, name: &str, order: u32) -> Timeline {
        let measured = self.requests.iter().filter(|request| request.phase() == Phase::Measure).count();
        let run = imported_run(name, order, measured as u32);
        Timeline { run, requests: self.requests, tokens: self.tokens, steps: Vec::new(), hiccups: Vec::new() }
    }
}

/// What is known of a run of which only the events are. A name that is not `name|point|repeat` stands for all of it.
fn imported_run(name: &str, order: u32, num_prompts: u32) -> RunRecord {
    let mut parts = name.rsplitn(3, '|');
    let (entry, point, repeat) = match (parts.next(), parts.next(), parts.next()) {
        (Some(repeat), Some(point), Some(entry)) if repeat.parse::<u32>().is_ok() => {
            (entry, point, repeat.parse().unwrap_or(0))
        }
        _ => (name, name, 0),
    };
    let point = Point {
        name: entry.to_owned(),
        point: point.to_owned(),
        input_len: 0,
        output_len: 0,
        scripted_output_lens: None,
        prefix_len: 0,
        prefix_mode: PrefixMode::Inside,
        num_prompts,
        repeats: 1,
        warmup: 0,
        seed: 0,
        load: Load::Closed { concurrency: None },
        drive: Drive::Free,
        limits: Limits::default(),
        slo: Default::default(),
        location: IgnoredInEq::default(),
    };
    let engine_key = EngineKey {
        device: DeviceClass::Cpu,
        model: String::new(),
        tensor_parallel_size: 1,
        quantization: Quantization::None,
        engine_args: Vec::new(),
        step_api: StepApi::EngineCore,
        args_location: IgnoredInEq::default(),
    };
    RunRecord {
        schema_version: RUN_SCHEMA_VERSION,
        point,
        engine_key,
        engine: IMPORTED_ENGINE.to_owned(),
        epoch: 0,
        repeat,
        round: 0,
        order,
        outcome: Outcome::Completed,
        engine_load_s: 0.0,
        turnaround_s: None,
        engine_facts: None,
        counters: Counters::default(),
        recorder_hiccups: None,
        clock_step_ns: None,
        cache_reset: None,
        warnings: Vec::new(),
        began_at: String::new(),
    }
}
