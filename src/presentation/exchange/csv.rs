//! Timelines as `events.csv`: written for other programs, and read from anyone.
//!
//! One row per event; `run` is `name|point|repeat`. Of a submit row `count` is the prompt's tokens, of a token row the
//! event's, and of a finish row all output tokens. A token row also says how long before the recorder's look was, and
//! which hiccups lie in the ITL that it ends.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::lines::Lines;
use crate::analysis::metrics::{HiccupMark, HiccupMarks, RequestTokens, scheduled_ns};
use crate::base::bounded_file::open_regular;
use crate::base::printable::{excerpt, printable, spreadsheet_cell, without_guard};
use crate::machine::device::DeviceClass;
use crate::measurement::timeline::store::RUN_SCHEMA_VERSION;
use crate::measurement::timeline::{
    ABSENT, Counters, FinishReason, IMPORTED_ENGINE, Outcome, Phase, RequestEvent, RunRecord, Timeline, TokenEvent,
    known, run_name,
};
use crate::question::plan::{
    Drive, EngineKey, IgnoredInEq, Limits, Load, Point, PrefixMode, Quantization, Role, StepApi,
};

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

/// Largest time of a file, in nanoseconds: the difference of two times is a signed number of 64 bits.
const MAX_TIME_NS: u64 = i64::MAX as u64;
/// Largest count or step of a file: the next number stands for an unknown one.
const MAX_NUMBER: u64 = u32::MAX as u64 - 1;
/// Characters of a field that a message repeats.
const SHOWN_CHARS: usize = 60;

/// Why a file could not be read as a timeline.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// The file system refused.
    #[error("{}: {source}", printable(&path.to_string_lossy()))]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A row is not an event.
    #[error("{}:{line}: {problem}", printable(&path.to_string_lossy()))]
    Row {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: u64,
        /// The column, what is wrong with it, and what is expected.
        problem: String,
    },
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
    let run = spreadsheet_cell(&run);
    let mut write = |kind: &str, row: Written| {
        let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
        let (request, count) = (row.request.to_string(), row.count.to_string());
        let [step, poll_gap] = [row.step, row.poll_gap_ns].map(|value| number(value.map(u64::from)));
        let [scheduled, submitted, emitted, received] = row.times_ns.map(number);
        let phase = timeline.requests.get(row.request).map_or(Phase::Prime, RequestEvent::phase).as_str();
        let hiccup = row.hiccup.map_or("", HiccupMark::as_str);
        let times = [&scheduled, &submitted, &emitted, &received, &poll_gap].map(String::as_str);
        let head = [run.as_ref(), &request, phase, kind, &step, &count];
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

/// Reads the timelines of a regular file, one for each of its runs, in the order in which they begin.
///
/// # Errors
/// [`CsvError`], which names the line and the column. A file without events is one too.
pub fn read(path: &Path) -> Result<Vec<Timeline>, CsvError> {
    let file = open_regular(path).map_err(|source| CsvError::Io { path: path.to_owned(), source })?;
    read_from(path, file)
}

/// [`read`] of what `input` gives; `path` is for messages.
///
/// # Errors
/// As of [`read`].
pub fn read_from(path: &Path, input: impl Read) -> Result<Vec<Timeline>, CsvError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(Lines::new(input));
    let header = reader.headers().cloned().map_err(|error| csv_failed(path, &mut reader, error))?;
    let line = reader.get_mut().line_of(0);
    let columns = Columns::of(&header).map_err(|problem| CsvError::Row { path: path.to_owned(), line, problem })?;
    let mut runs = ImportedRuns::default();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| csv_failed(path, &mut reader, error))? {
        let line = reader.get_mut().line_of(record.position().map_or(0, csv::Position::byte));
        let row = Row { columns: &columns, record: &record };
        let added = runs.of(row.text("run")).and_then(|run| run.add(&row));
        added.map_err(|problem| CsvError::Row { path: path.to_owned(), line, problem })?;
    }
    if runs.runs.is_empty() {
        let problem = "there is no event in this file: it needs a row for each submit, token and finish".to_owned();
        return Err(CsvError::Row { path: path.to_owned(), line, problem });
    }
    let timelines = runs.runs.into_iter().enumerate();
    Ok(timelines.map(|(order, (name, run))| run.into_timeline(name, order as u32)).collect())
}

fn csv_failed<R: Read>(path: &Path, reader: &mut csv::Reader<Lines<R>>, error: csv::Error) -> CsvError {
    let begin = error.position().map_or(0, csv::Position::byte);
    let line = reader.get_mut().line_of(begin);
    let problem = match error.into_kind() {
        csv::ErrorKind::Io(source) => return CsvError::Io { path: path.to_owned(), source },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header has {expected_len} columns")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("not UTF-8 text: {err}"),
        other => format!("{other:?}"),
    };
    CsvError::Row { path: path.to_owned(), line, problem }
}

/// Where each of [`COLUMNS`] stands in a file.
struct Columns([Option<usize>; COLUMNS.len()]);

impl Columns {
    fn of(header: &StringRecord) -> Result<Columns, String> {
        let twice = COLUMNS.iter().find(|name| header.iter().filter(|column| column == *name).count() > 1);
        if let Some(name) = twice {
            return Err(format!("duplicate column `{name}`: remove one"));
        }
        let positions = COLUMNS.map(|name| header.iter().position(|column| column == name));
        let is_required = |name: &&str| !OPTIONAL_COLUMNS.contains(name);
        let missing = COLUMNS.iter().zip(positions).find(|(name, position)| position.is_none() && is_required(name));
        match missing {
            Some((name, _)) => {
                let required: Vec<&str> = COLUMNS.into_iter().filter(is_required).collect();
                let (required, optional) = (required.join(","), OPTIONAL_COLUMNS.join(","));
                Err(format!("no column `{name}`: the header needs {required}, and may have {optional}"))
            }
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

    /// A field as a message repeats it.
    fn shown(&self, column: &str) -> Cow<'_, str> {
        excerpt(self.text(column), SHOWN_CHARS)
    }

    /// `None` for an empty field.
    fn optional(&self, column: &str, most: u64) -> Result<Option<u64>, String> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        // `parse` alone takes a plus sign.
        match text.parse::<u64>() {
            Ok(value) if value <= most && !text.starts_with('+') => Ok(Some(value)),
            _ => Err(format!("column `{column}`: `{}` is not a whole number from 0 to {most}", self.shown(column))),
        }
    }

    fn required(&self, column: &str, most: u64) -> Result<u64, String> {
        let value = self.optional(column, most)?;
        value.ok_or_else(|| format!("column `{column}` is empty, and a {} row needs it", self.text("kind")))
    }

    fn time_ns(&self, column: &str) -> Result<u64, String> {
        self.required(column, MAX_TIME_NS)
    }

    fn number(&self, column: &str) -> Result<u32, String> {
        self.required(column, MAX_NUMBER).map(|value| value as u32)
    }

    /// A time, or what stands for an unknown one.
    fn optional_ns(&self, column: &str) -> Result<u64, String> {
        Ok(self.optional(column, MAX_TIME_NS)?.unwrap_or(ABSENT))
    }

    /// A number, or what stands for an unknown one.
    fn optional_number(&self, column: &str) -> Result<u32, String> {
        Ok(self.optional(column, MAX_NUMBER)?.map_or(u32::MAX, |value| value as u32))
    }

    /// A mark says that a hiccup was there and not when, so that it has no place in a timeline: it is only checked.
    fn check_hiccup(&self) -> Result<(), String> {
        let text = self.text("hiccup");
        let known = [HiccupMark::Recorder, HiccupMark::Engine, HiccupMark::Both].map(HiccupMark::as_str);
        if text.is_empty() || known.contains(&text) {
            return Ok(());
        }
        Err(format!("column `hiccup`: `{}` is none of {}, nor empty", self.shown("hiccup"), known.join(", ")))
    }

    fn phase(&self) -> Result<Phase, String> {
        let text = self.text("phase");
        let known = [Phase::Prime, Phase::Warmup, Phase::Measure].into_iter().find(|phase| phase.as_str() == text);
        known.ok_or_else(|| format!("column `phase`: `{}` is none of prime, warmup, measure", self.shown("phase")))
    }
}

/// The runs of a file while it is read, in the order in which they begin.
#[derive(Default)]
struct ImportedRuns {
    runs: Vec<(RunName, ImportedRun)>,
    by_text: HashMap<String, usize>,
    /// The same names, taken apart.
    by_name: HashMap<RunName, String>,
}

impl ImportedRuns {
    /// The run whose name is `text` in the column `run`.
    fn of(&mut self, text: &str) -> Result<&mut ImportedRun, String> {
        let index = match self.by_text.get(text) {
            Some(index) => *index,
            None => {
                let name = RunName::of(without_guard(text));
                if let Some(other) = self.by_name.insert(name.clone(), text.to_owned()) {
                    let [text, other] = [text, &other].map(|text| excerpt(text, SHOWN_CHARS));
                    return Err(format!("column `run`: `{text}` and `{other}` are one run: write its name in one way"));
                }
                self.by_text.insert(text.to_owned(), self.runs.len());
                self.runs.push((name, ImportedRun::default()));
                self.runs.len() - 1
            }
        };
        Ok(&mut self.runs[index].1)
    }
}

/// A text of the column `run`, taken apart. One that is not `name|point|repeat` stands for name and point.
#[derive(Clone, PartialEq, Eq, Hash)]
struct RunName {
    entry: String,
    point: String,
    repeat: u32,
}

impl RunName {
    fn of(text: &str) -> RunName {
        let mut parts = text.rsplitn(3, '|');
        let (repeat, point, entry) = (parts.next(), parts.next(), parts.next());
        let repeat = repeat.filter(|repeat| !repeat.starts_with('+')).and_then(|repeat| repeat.parse().ok());
        match (entry, point, repeat) {
            (Some(entry), Some(point), Some(repeat)) => {
                RunName { entry: entry.to_owned(), point: point.to_owned(), repeat }
            }
            _ => RunName { entry: text.to_owned(), point: text.to_owned(), repeat: 0 },
        }
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
                return Err(format!("request `{}` was submitted on an earlier line", row.shown("request")));
            }
            "submit" => {
                request.asked_prompt_tokens = row.number("count")?;
                request.scheduled_ns = row.time_ns("scheduled_ns")?;
                request.submitted_ns = row.time_ns("submitted_ns")?;
            }
            "token" => {
                row.check_hiccup()?;
                self.tokens.push(TokenEvent {
                    received_ns: row.time_ns("received_ns")?,
                    emitted_ns: row.optional_ns("emitted_ns")?,
                    request: index,
                    step: row.optional_number("step")?,
                    count: row.number("count")?,
                    poll_gap_ns: row.optional_number("poll_gap_ns")?,
                });
            }
            "finish" if request.finished() => {
                return Err(format!("request `{}` finished on an earlier line", row.shown("request")));
            }
            "finish" => {
                request.output_tokens = row.number("count")?;
                request.finish_received_ns = row.time_ns("received_ns")?;
                request.finish_emitted_ns = row.optional_ns("emitted_ns")?;
                request.finish_reason = FinishReason::Other as u8;
            }
            _ => return Err(format!("column `kind`: `{}` is none of submit, token, finish", row.shown("kind"))),
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
                let (now, before, id) = (phase.as_str(), before.as_str(), row.shown("request"));
                return Err(format!("column `phase`: request `{id}` is {now} here and {before} on an earlier line"));
            }
            return Ok(*index);
        }
        let index = self.requests.len() as u32;
        self.requests.push(RequestEvent::planned(phase, 0, u32::MAX, 0));
        self.by_id.insert(id.to_owned(), index);
        Ok(index)
    }

    fn into_timeline(self, name: RunName, order: u32) -> Timeline {
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

/// What is known of a run of which only the events are.
fn imported_run(name: RunName, order: u32, num_prompts: u32) -> RunRecord {
    let RunName { entry, point, repeat } = name;
    let point = Point {
        name: entry,
        point,
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
