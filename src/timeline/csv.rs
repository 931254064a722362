//! Timelines as `events.csv`: written for other programs, and read from anyone.
//!
//! One row per event; `run` is `name|point|repeat`. Of a submit row `count` is the prompt's tokens, of a token row the
//! event's, and of a finish row all output tokens. A token row also says how long before the recorder's look was, and
//! which hiccups lie in the ITL that it ends.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::store::RUN_SCHEMA_VERSION;
use super::{Counters, FinishReason, Outcome, Phase, RequestEvent, RunRecord, Timeline, TokenEvent, known};
use crate::device::DeviceClass;
use crate::metrics::{HiccupMark, HiccupMarks, RequestTokens, scheduled_ns};
use crate::plan::{Drive, EngineKey, IgnoredInEq, Limits, Load, Point, PrefixMode, Quantization, Role, StepApi};

/// [`RunRecord::engine`] of a timeline that was read from a CSV file: nothing is known of what ran.
pub const IMPORTED_ENGINE: &str = "imported";

/// The columns, in the order in which they are written.
pub const COLUMNS: [&str; 12] = [
    "run",
    "request",
    "phase",
    "kind",
    "step",
    "count",
    "scheduled_ns",
    "submitted_ns",
    "emitted_ns",
    "received_ns",
    "poll_gap_ns",
    "hiccup",
];

/// Columns that a file may lack.
const OPTIONAL_COLUMNS: [&str; 4] = ["step", "emitted_ns", "poll_gap_ns", "hiccup"];

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
    let mut write = |kind: &str, row: Written| {
        let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
        let (request, count) = (row.request.to_string(), row.count.to_string());
        let [step, poll_gap] = [row.step, row.poll_gap_ns].map(|value| number(value.map(u64::from)));
        let [scheduled, submitted, emitted, received] = row.times_ns.map(number);
        let phase = timeline.requests.get(row.request).map_or(Phase::Prime, RequestEvent::phase).as_str();
        let hiccup = row.hiccup.map_or("", HiccupMark::as_str);
        let times = [&scheduled, &submitted, &emitted, &received, &poll_gap].map(String::as_str);
        let head = [&run, &request, phase, kind, &step, &count];
        out.write_record(head.into_iter().chain(times).chain([hiccup]))
    };
    for (index, request) in timeline.requests.iter().enumerate() {
        if let Some(submitted_ns) = known(request.submitted_ns) {
            let times_ns = [Some(scheduled_ns(request)), Some(submitted_ns), None, None];
            write("submit", Written::of(index, request.asked_prompt_tokens, times_ns))?;
        }
    }
    let mut requests = vec![RequestTokens::default(); timeline.requests.len()];
    let mut marks = HiccupMarks::of(timeline);
    for event in &timeline.tokens {
        let index = event.request as usize;
        let gap = requests.get_mut(index).and_then(|request| request.add(event));
        let times_ns = [None, None, known(event.emitted_ns), Some(event.received_ns)];
        let (step, poll_gap_ns, hiccup) = (event.step(), event.poll_gap_ns(), gap.and_then(|gap| marks.mark(&gap)));
        write("token", Written { step, poll_gap_ns, hiccup, ..Written::of(index, event.count, times_ns) })?;
    }
    for (index, request) in timeline.requests.iter().enumerate().filter(|(_, request)| request.finished()) {
        let times_ns = [None, None, known(request.finish_emitted_ns), Some(request.finish_received_ns)];
        write("finish", Written::of(index, request.output_tokens, times_ns))?;
    }
    Ok(())
}

/// A row to be written: what is not that of its run, its request or its kind.
struct Written {
    request: usize,
    count: u32,
    /// Scheduled, submitted, emitted and received.
    times_ns: [Option<u64>; 4],
    step: Option<u32>,
    poll_gap_ns: Option<u32>,
    hiccup: Option<HiccupMark>,
}

impl Written {
    fn of(request: usize, count: u32, times_ns: [Option<u64>; 4]) -> Written {
        Written { request, count, times_ns, step: None, poll_gap_ns: None, hiccup: None }
    }
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

    /// A mark says that a hiccup was there and not when, so that it has no place in a timeline: it is only checked.
    fn check_hiccup(&self) -> Result<(), String> {
        let text = self.text("hiccup");
        let known = [HiccupMark::Recorder, HiccupMark::Engine, HiccupMark::Both].map(HiccupMark::as_str);
        if text.is_empty() || known.contains(&text) {
            return Ok(());
        }
        Err(format!("column `hiccup`: `{text}` is none of {}, nor empty", known.join(", ")))
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
            "token" => {
                row.check_hiccup()?;
                let short =
                    |column| row.optional(column, u32::MAX.into()).map(|value| value.map_or(u32::MAX, |n| n as u32));
                self.tokens.push(TokenEvent {
                    received_ns: row.time_ns("received_ns")?,
                    emitted_ns: row.optional("emitted_ns", i64::MAX as u64)?.unwrap_or(super::ABSENT),
                    request: index,
                    step: short("step")?,
                    count: row.number("count")?,
                    poll_gap_ns: short("poll_gap_ns")?,
                });
            }
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
        Timeline {
            run,
            requests: self.requests,
            tokens: self.tokens,
            steps: Vec::new(),
            hiccups: Vec::new(),
            telemetry: Vec::new(),
        }
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
        num_prefixes: 1,
        prefix_hit_rate: None,
        workload: None,
        num_prompts,
        repeats: 1,
        until_ci: None,
        telemetry_hz: 0,
        warmup: 0,
        seed: 0,
        load: Load::Closed { concurrency: None },
        drive: Drive::Free,
        limits: Limits::default(),
        slo: Default::default(),
        role: Role::Measured,
        pair: None,
        location: IgnoredInEq::default(),
    };
    let engine_key = EngineKey {
        device: DeviceClass::Cpu,
        model: String::new(),
        tensor_parallel_size: 1,
        quantization: Quantization::None,
        quantization_switches: Default::default(),
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
        retry_of: None,
        round: 0,
        order,
        outcome: Outcome::Completed,
        engine_load_s: 0.0,
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
        began_at: String::new(),
    }
}
