//! Timelines on disk: one folder a run, `timeline.json` for the [`RunRecord`] and `timeline.bin` for the events.
//!
//! A run whose machine was sampled has `telemetry.bin` as well, see [`crate::measurement::telemetry`].
//!
//! `timeline.bin` is a header of fixed size, the requests, the token events, the step events, the hiccups, and the
//! CRC-32 of all of that.
//! Everything is in the byte order of the machine that wrote it; a machine of the other order refuses it.
//! `timeline.json` is written last: a folder without it is a run that was never completely stored. It holds the checksums of
//! the other two files and one of itself. The folder's name is the point's label and the repeat, as the record has them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytemuck::{Pod, Zeroable};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::seal::{Files, Opened, open, seal};
use super::{Hiccup, RequestEvent, RunRecord, StepEvent, Timeline, TokenEvent};
use crate::base::atomic_file::{self, Durability};
use crate::base::bounded_file::{open_regular, read_bounded};
use crate::base::checked_file::{CHANGED, CRC_BYTES, CheckedReader, FileSum, write_parts};
use crate::base::printable::printable;
use crate::measurement::telemetry::{Sample, read_samples, write_samples};

/// Version of the layout of [`RunRecord`] and of `timeline.bin` that this version writes.
pub const RUN_SCHEMA_VERSION: u32 = 3;
/// The version before, which is read as well: its record has no checksum.
pub const UNSEALED_RUN_SCHEMA_VERSION: u32 = RUN_SCHEMA_VERSION - 1;

const MAGIC: [u8; 8] = *b"BENCHTL\0";
const BYTE_ORDER_MARK: u32 = 0x0102_0304;
const RUNS_FOLDER: &str = "runs";
const SET_ASIDE_FOLDER: &str = "set-aside";
const EVENTS_FILE: &str = "timeline.bin";
const TELEMETRY_FILE: &str = "telemetry.bin";
/// The record of a run, in its folder.
pub(crate) const RECORD_FILE: &str = "timeline.json";
/// Longest record of a run that is read. One has some kilobytes; what is read takes many times its length in memory.
const MAX_RECORD_BYTES: u64 = 4 << 20;
/// Longest label of a point: with the repeat it makes the name of a folder.
const MAX_LABEL_BYTES: usize = 240;

/// The first bytes of `timeline.bin`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    byte_order: u32,
    version: u32,
    request_bytes: u32,
    token_bytes: u32,
    step_bytes: u32,
    hiccup_bytes: u32,
    requests: u64,
    tokens: u64,
    steps: u64,
    hiccups: u64,
}

/// Why a stored run or session could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder has no session.
    #[error("{}: no such file: give a folder that `bench engine` made, its --out or results/NAME-TIME", path.display())]
    NotResults {
        /// The file that is missing.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file is not what its name says, or was damaged.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do next.
        problem: String,
    },
}

impl StoreError {
    /// The file or folder.
    pub fn path(&self) -> &Path {
        match self {
            StoreError::NotResults { path } | StoreError::Io { path, .. } | StoreError::Damaged { path, .. } => path,
        }
    }

    /// What is wrong with it.
    pub fn problem(&self) -> String {
        match self {
            StoreError::NotResults { .. } => "no such file".to_owned(),
            StoreError::Io { source, .. } => source.to_string(),
            StoreError::Damaged { problem, .. } => problem.clone(),
        }
    }
}

/// The folder of all runs under a results folder.
pub fn runs_folder(results: &Path) -> PathBuf {
    results.join(RUNS_FOLDER)
}

/// The folder of one run under a results folder.
pub fn run_folder(results: &Path, point: &str, repeat: u32) -> PathBuf {
    runs_folder(results).join(format!("{point}-{repeat}"))
}

/// Stores one run in its folder under a results folder.
///
/// # Errors
/// [`StoreError::Io`]; what stood there before is then still whole. A label that is no name of a folder is one.
pub fn write_run(results: &Path, timeline: &Timeline) -> Result<(), StoreError> {
    let RunRecord { point, repeat, .. } = &timeline.run;
    let folder = run_folder(results, &point.point, *repeat);
    if !is_label(&point.point) {
        let source = io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` is no label of a point", point.point));
        return Err(StoreError::Io { path: runs_folder(results), source });
    }
    make_folder(&folder)?;
    let events = write_file(&folder.join(EVENTS_FILE), |out| write_events(out, timeline))?;
    let write_telemetry = |_| write_file(&folder.join(TELEMETRY_FILE), |out| write_samples(out, &timeline.telemetry));
    let telemetry = timeline.run.telemetry.as_ref().map(write_telemetry).transpose()?;
    write_record(&folder.join(RECORD_FILE), &timeline.run, Files { events: Some(events), telemetry })
}

/// Reads one run from its folder. Allocates what the file holds and no more, whatever its header claims.
///
/// # Errors
/// [`StoreError`]: unreadable, foreign, torn, damaged, in the folder of another run, or of another version.
pub fn read_run(folder: &Path) -> Result<Timeline, StoreError> {
    let record_path = folder.join(RECORD_FILE);
    let Opened { record: run, files } = read_record::<RunRecord>(&record_path, MAX_RECORD_BYTES)?;
    let versions = [RUN_SCHEMA_VERSION, UNSEALED_RUN_SCHEMA_VERSION];
    check_version(run.schema_version, versions, files.is_some()).map_err(damaged(&record_path))?;
    check_name(folder, &run).map_err(damaged(&record_path))?;
    let files = files.unwrap_or_default();
    let timeline = read_events(&folder.join(EVENTS_FILE), run, files.events)?;
    let telemetry = read_telemetry(folder, &timeline.run, files.telemetry)?;
    Ok(Timeline { telemetry, ..timeline })
}

/// A run without its telemetry, from its record and the file of its events.
fn read_events(path: &Path, run: RunRecord, sum: Option<FileSum>) -> Result<Timeline, StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let file = open_regular(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    check_length(length, sum).map_err(damaged(path))?;
    if length < SMALLEST_BYTES {
        let problem = format!("its {length} bytes are too few for a timeline: it was cut off or is something else");
        return Err(damaged(path)(problem));
    }
    let mut input = CheckedReader::new(file);
    let header: Header = input.record().map_err(io)?;
    header.check(length, run.schema_version).map_err(damaged(path))?;
    let requests: Vec<RequestEvent> = input.records(header.requests).map_err(io)?;
    let tokens: Vec<TokenEvent> = input.records(header.tokens).map_err(io)?;
    let steps: Vec<StepEvent> = input.records(header.steps).map_err(io)?;
    let hiccups: Vec<Hiccup> = input.records(header.hiccups).map_err(io)?;
    let crc32 = input.finish().map_err(io)?.ok_or_else(|| damaged(path)(CHANGED.to_owned()))?;
    check_sum(crc32, sum).map_err(damaged(path))?;
    if let Some(event) = tokens.iter().position(|event| event.request as usize >= requests.len()) {
        let problem = format!(
            "token event {event} belongs to request {}, and there are {}; measure the run again",
            tokens[event].request,
            requests.len()
        );
        return Err(damaged(path)(problem));
    }
    Ok(Timeline { run, requests, tokens, steps, hiccups, telemetry: Vec::new() })
}

/// The samples of a run that has a record of them.
fn read_telemetry(folder: &Path, run: &RunRecord, sum: Option<FileSum>) -> Result<Vec<Sample>, StoreError> {
    let Some(record) = &run.telemetry else { return Ok(Vec::new()) };
    let path = folder.join(TELEMETRY_FILE);
    let io = |source| StoreError::Io { path: path.clone(), source };
    let file = open_regular(&path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    check_length(length, sum).map_err(damaged(&path))?;
    let (samples, crc32) = read_samples(file, length).map_err(io)?.map_err(damaged(&path))?;
    check_sum(crc32, sum).map_err(damaged(&path))?;
    match samples.iter().position(|sample| sample.device as usize >= record.devices.len()) {
        None => Ok(samples),
        Some(index) => {
            let (device, devices) = (samples[index].device, record.devices.len());
            Err(damaged(&path)(format!(
                "sample {index} is of device {device}, and there are {devices}; measure the run again"
            )))
        }
    }
}

/// Whether a label can be the name of a folder: letters, digits, `.`, `_` and `-`, and no dot in front.
fn is_label(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let length = 1..=MAX_LABEL_BYTES;
    length.contains(&label.len()) && !label.starts_with('.') && label.bytes().all(is_plain)
}

/// The folder's name has to be that of the run in it: a copied folder would count a run twice.
fn check_name(folder: &Path, run: &RunRecord) -> Result<(), String> {
    let (label, repeat) = (&run.point.point, run.repeat);
    let name = folder.file_name().unwrap_or_default();
    if is_label(label) && name == format!("{label}-{repeat}").as_str() {
        return Ok(());
    }
    Err(format!(
        "it is the record of repeat {repeat} of point `{}`, in a folder of another name: it was copied or changed; move the \
         folder away",
        printable(label)
    ))
}

/// A file of another length than was written is refused before anything is allocated for it.
fn check_length(length: u64, sum: Option<FileSum>) -> Result<(), String> {
    match sum {
        Some(FileSum { bytes, .. }) if bytes != length => Err(format!(
            "its {length} bytes are not the {bytes} that were written: it was cut off, changed, or is the file of another run; \
             measure the run again"
        )),
        _ => Ok(()),
    }
}

/// The checksum of a file has to be the one in the run's record.
fn check_sum(found: u32, sum: Option<FileSum>) -> Result<(), String> {
    match sum {
        Some(FileSum { crc32, .. }) if crc32 != found => Err("it is not the file that was stored with this `timeline.json`, but \
                                                              that of another run; put it back, or measure the run again"
            .to_owned()),
        _ => Ok(()),
    }
}

/// The folders of all completely stored runs under a results folder, by name.
///
/// # Errors
/// [`StoreError::Io`].
pub fn stored_runs(results: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut folders = run_folders(results)?;
    // Whatever it is: what cannot be read is named then.
    folders.retain(|folder| folder.join(RECORD_FILE).symlink_metadata().is_ok());
    Ok(folders)
}

/// The folders of all runs under a results folder, torn ones too, by name.
///
/// # Errors
/// [`StoreError::Io`].
pub fn run_folders(results: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let path = runs_folder(results);
    let io = |source| StoreError::Io { path: path.clone(), source };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(io)? {
        let folder = entry.map_err(io)?.path();
        if folder.is_dir() {
            folders.push(folder);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Moves a run out of the way, into a folder of its own below `set-aside`.
///
/// # Errors
/// [`StoreError::Io`].
pub fn set_aside(results: &Path, run: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: run.to_owned(), source };
    let folder = results.join(SET_ASIDE_FOLDER);
    make_folder(&folder)?;
    let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let place = tempfile::Builder::new().prefix(&name).tempdir_in(&folder).map_err(io)?;
    // An empty folder gives way to the one that is moved there.
    std::fs::rename(run, place.keep()).map_err(io)
}

fn write_events(out: &mut impl Write, timeline: &Timeline) -> io::Result<FileSum> {
    let header = Header {
        magic: MAGIC,
        byte_order: BYTE_ORDER_MARK,
        version: timeline.run.schema_version,
        request_bytes: size_of::<RequestEvent>() as u32,
        token_bytes: size_of::<TokenEvent>() as u32,
        step_bytes: size_of::<StepEvent>() as u32,
        hiccup_bytes: size_of::<Hiccup>() as u32,
        requests: timeline.requests.len() as u64,
        tokens: timeline.tokens.len() as u64,
        steps: timeline.steps.len() as u64,
        hiccups: timeline.hiccups.len() as u64,
    };
    let parts: [&[u8]; 5] = [
        bytemuck::bytes_of(&header),
        bytemuck::cast_slice(&timeline.requests),
        bytemuck::cast_slice(&timeline.tokens),
        bytemuck::cast_slice(&timeline.steps),
        bytemuck::cast_slice(&timeline.hiccups),
    ];
    write_parts(out, &parts)
}

/// Bytes of a timeline without events.
const SMALLEST_BYTES: u64 = size_of::<Header>() as u64 + CRC_BYTES;

impl Header {
    /// Against the version of the run's record and the file's length.
    fn check(&self, length: u64, version: u32) -> Result<(), String> {
        if self.magic != MAGIC {
            return Err("it is not a timeline of `bench`: it does not begin with the mark of one".to_owned());
        }
        if self.byte_order != BYTE_ORDER_MARK {
            return Err("it was written on a machine of the other byte order: read it there".to_owned());
        }
        if self.version != version {
            return Err(other_version(self.version, version));
        }
        let sizes = self.record_bytes();
        let expected =
            [size_of::<RequestEvent>(), size_of::<TokenEvent>(), size_of::<StepEvent>(), size_of::<Hiccup>()];
        if sizes.map(|bytes| bytes as usize) != expected {
            return Err(format!("its records take {sizes:?} bytes, those of this version {expected:?}"));
        }
        match self.file_bytes() {
            Some(bytes) if bytes == length => Ok(()),
            _ => Err(format!(
                "its header promises {} requests, {} token events, {} steps and {} hiccups, and its {length} bytes \
                 hold other numbers of them: it was cut off or damaged; measure the run again",
                self.requests, self.tokens, self.steps, self.hiccups
            )),
        }
    }

    fn record_bytes(&self) -> [u32; 4] {
        [self.request_bytes, self.token_bytes, self.step_bytes, self.hiccup_bytes]
    }

    /// Length of the whole file by the counts; `None` if no file is that long.
    fn file_bytes(&self) -> Option<u64> {
        let counts = [self.requests, self.tokens, self.steps, self.hiccups];
        counts
            .iter()
            .zip(self.record_bytes())
            .try_fold(SMALLEST_BYTES, |sum, (count, bytes)| sum.checked_add(count.checked_mul(u64::from(bytes))?))
    }
}

/// Makes a folder and those that it lies in, so that they survive a loss of power.
pub(crate) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    atomic_file::make_folder(folder).map_err(|source| StoreError::Io { path: folder.to_owned(), source })
}

/// Writes a file, so that it survives a loss of power, and gives what `write` does.
fn write_file<T>(
    path: &Path,
    write: impl FnOnce(&mut io::BufWriter<&std::fs::File>) -> io::Result<T>,
) -> Result<T, StoreError> {
    atomic_file::replace(path, Durability::PowerLoss, write)
        .map_err(|source| StoreError::Io { path: path.to_owned(), source })
}

pub(crate) fn write_record(path: &Path, record: &impl Serialize, files: Files) -> Result<(), StoreError> {
    write_file(path, |out| out.write_all(&seal(record, files)?))
}

pub(crate) fn read_record<T: Serialize + DeserializeOwned>(
    path: &Path,
    max_bytes: u64,
) -> Result<Opened<T>, StoreError> {
    let bytes = read_bounded(path, max_bytes).map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    open(&bytes).map_err(damaged(path))
}

/// The error of a damaged file.
pub(crate) fn damaged(path: &Path) -> impl Fn(String) -> StoreError + '_ {
    |problem| StoreError::Damaged { path: path.to_owned(), problem }
}

/// A record has the current version and a seal, or the one before and none.
pub(crate) fn check_version(found: u32, [known, unsealed]: [u32; 2], is_sealed: bool) -> Result<(), String> {
    match (found, is_sealed) {
        (found, true) if found == known => Ok(()),
        (found, false) if found == unsealed => Ok(()),
        (found, false) if found == known => Err(format!("it has no checksum: {CHANGED}")),
        (found, _) => Err(other_version(found, known)),
    }
}

fn other_version(found: u32, known: u32) -> String {
    format!("its layout is version {found}, and version {known} is expected: use the version of `bench` that wrote it")
}
