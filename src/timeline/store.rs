//! Timelines on disk: one folder a run, `timeline.json` for the [`RunRecord`] and `timeline.bin` for the events.
//!
//! A run whose machine was sampled has `telemetry.bin` as well, see [`crate::telemetry`].
//!
//! `timeline.bin` is a header of fixed size, the requests, the token events, the step events, the hiccups, and the
//! CRC-32 of all of that.
//! Everything is in the byte order of the machine that wrote it; a machine of the other order refuses it.
//! `timeline.json` is written last: a folder without it is a run that was never completely stored.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytemuck::{Pod, Zeroable};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Hiccup, RequestEvent, RunRecord, SESSION_SCHEMA_VERSION, SessionRecord, StepEvent, Timeline, TokenEvent};
use crate::atomic_file::{self, Durability};
use crate::telemetry::{Sample, read_samples, write_samples};

/// Version of the layout of [`RunRecord`] and of `timeline.bin` that this version writes and reads.
pub const RUN_SCHEMA_VERSION: u32 = 2;

const MAGIC: [u8; 8] = *b"BENCHTL\0";
const BYTE_ORDER_MARK: u32 = 0x0102_0304;
const RUNS_FOLDER: &str = "runs";
const SET_ASIDE_FOLDER: &str = "set-aside";
const SESSION_FILE: &str = "session.json";
const EVENTS_FILE: &str = "timeline.bin";
const TELEMETRY_FILE: &str = "telemetry.bin";
const RECORD_FILE: &str = "timeline.json";
const CRC_BYTES: u64 = 4;

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

/// The folder of all runs under a results folder.
pub fn runs_folder(results: &Path) -> PathBuf {
    results.join(RUNS_FOLDER)
}

/// The folder of one run under a results folder.
pub fn run_folder(results: &Path, point: &str, repeat: u32) -> PathBuf {
    runs_folder(results).join(format!("{point}-{repeat}"))
}

/// Stores the session of a results folder, which is made if it is missing.
///
/// # Errors
/// [`StoreError::Io`].
pub fn write_session(results: &Path, session: &SessionRecord) -> Result<(), StoreError> {
    let folder = runs_folder(results);
    std::fs::create_dir_all(&folder).map_err(|source| StoreError::Io { path: folder.clone(), source })?;
    write_json(&folder.join(SESSION_FILE), session)
}

/// Reads the session of a results folder.
///
/// # Errors
/// [`StoreError`]; a missing file reads as a folder that is not one of results.
pub fn read_session(results: &Path) -> Result<SessionRecord, StoreError> {
    let path = runs_folder(results).join(SESSION_FILE);
    if !path.exists() {
        let problem = "no such file: give a folder that `bench engine` made, its --out or results/NAME-TIME".to_owned();
        return Err(StoreError::Damaged { path, problem });
    }
    let session: SessionRecord = read_json(&path)?;
    check_version(&path, session.schema_version, SESSION_SCHEMA_VERSION)?;
    Ok(session)
}

/// Stores one run in its folder under a results folder.
///
/// # Errors
/// [`StoreError::Io`]; what stood there before is then still whole.
pub fn write_run(results: &Path, timeline: &Timeline) -> Result<(), StoreError> {
    let folder = run_folder(results, &timeline.run.point.point, timeline.run.repeat);
    std::fs::create_dir_all(&folder).map_err(|source| StoreError::Io { path: folder.clone(), source })?;
    let path = folder.join(EVENTS_FILE);
    atomic_file::replace(&path, Durability::PowerLoss, |out| write_events(out, timeline))
        .map_err(|source| StoreError::Io { path, source })?;
    if timeline.run.telemetry.is_some() {
        let path = folder.join(TELEMETRY_FILE);
        atomic_file::replace(&path, Durability::PowerLoss, |out| write_samples(out, &timeline.telemetry))
            .map_err(|source| StoreError::Io { path, source })?;
    }
    write_json(&folder.join(RECORD_FILE), &timeline.run)
}

/// Reads one run from its folder. Allocates what the file holds and no more, whatever its header claims.
///
/// # Errors
/// [`StoreError`]: unreadable, foreign, torn, damaged, or of another version.
pub fn read_run(folder: &Path) -> Result<Timeline, StoreError> {
    let record_path = folder.join(RECORD_FILE);
    let run: RunRecord = read_json(&record_path)?;
    check_version(&record_path, run.schema_version, RUN_SCHEMA_VERSION)?;
    let path = folder.join(EVENTS_FILE);
    let io = |source| StoreError::Io { path: path.clone(), source };
    let mut file = File::open(&path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let damaged = |problem| StoreError::Damaged { path: path.clone(), problem };
    let header = read_header(&mut file, length).map_err(io)?.map_err(damaged)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytemuck::bytes_of(&header));
    let requests: Vec<RequestEvent> = read_records(&mut file, header.requests, &mut crc).map_err(io)?;
    let tokens: Vec<TokenEvent> = read_records(&mut file, header.tokens, &mut crc).map_err(io)?;
    let steps: Vec<StepEvent> = read_records(&mut file, header.steps, &mut crc).map_err(io)?;
    let hiccups: Vec<Hiccup> = read_records(&mut file, header.hiccups, &mut crc).map_err(io)?;
    let mut stored = [0; CRC_BYTES as usize];
    file.read_exact(&mut stored).map_err(io)?;
    if u32::from_ne_bytes(stored) != crc.finalize() {
        return Err(damaged(
            "its checksum does not agree with its content: the file was changed or damaged; \
                            take the run from a backup or measure it again"
                .to_owned(),
        ));
    }
    if let Some(event) = tokens.iter().position(|event| event.request as usize >= requests.len()) {
        let problem = format!(
            "token event {event} belongs to request {}, and there are {}; measure the run again",
            tokens[event].request,
            requests.len()
        );
        return Err(damaged(problem));
    }
    let telemetry = read_telemetry(folder, &run)?;
    Ok(Timeline { run, requests, tokens, steps, hiccups, telemetry })
}

/// The samples of a run that has a record of them.
fn read_telemetry(folder: &Path, run: &RunRecord) -> Result<Vec<Sample>, StoreError> {
    let Some(record) = &run.telemetry else { return Ok(Vec::new()) };
    let path = folder.join(TELEMETRY_FILE);
    let bytes = std::fs::read(&path).map_err(|source| StoreError::Io { path: path.clone(), source })?;
    let samples = read_samples(&bytes).map_err(|problem| StoreError::Damaged { path: path.clone(), problem })?;
    match samples.iter().position(|sample| sample.device as usize >= record.devices.len()) {
        None => Ok(samples),
        Some(index) => {
            let (device, devices) = (samples[index].device, record.devices.len());
            let problem =
                format!("sample {index} is of device {device}, and there are {devices}; measure the run again");
            Err(StoreError::Damaged { path, problem })
        }
    }
}

/// The folders of all completely stored runs under a results folder, by name.
///
/// # Errors
/// [`StoreError::Io`].
pub fn stored_runs(results: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut folders = run_folders(results)?;
    folders.retain(|folder| folder.join(RECORD_FILE).is_file());
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
    std::fs::create_dir_all(&folder).map_err(io)?;
    let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let place = tempfile::Builder::new().prefix(&name).tempdir_in(&folder).map_err(io)?;
    // An empty folder gives way to the one that is moved there.
    std::fs::rename(run, place.keep()).map_err(io)
}

fn write_events(out: &mut impl Write, timeline: &Timeline) -> io::Result<()> {
    let header = Header {
        magic: MAGIC,
        byte_order: BYTE_ORDER_MARK,
        version: RUN_SCHEMA_VERSION,
        request_bytes: size_of::<RequestEvent>() as u32,
        token_bytes: size_of::<TokenEvent>() as u32,
        step_bytes: size_of::<StepEvent>() as u32,
        hiccup_bytes: size_of::<Hiccup>() as u32,
        requests: timeline.requests.len() as u64,
        tokens: timeline.tokens.len() as u64,
        steps: timeline.steps.len() as u64,
        hiccups: timeline.hiccups.len() as u64,
    };
    let mut crc = crc32fast::Hasher::new();
    let parts: [&[u8]; 5] = [
        bytemuck::bytes_of(&header),
        bytemuck::cast_slice(&timeline.requests),
        bytemuck::cast_slice(&timeline.tokens),
        bytemuck::cast_slice(&timeline.steps),
        bytemuck::cast_slice(&timeline.hiccups),
    ];
    for part in parts {
        crc.update(part);
        out.write_all(part)?;
    }
    out.write_all(&crc.finalize().to_ne_bytes())
}

/// The header, checked against this version and against the file's length.
fn read_header(file: &mut File, length: u64) -> io::Result<Result<Header, String>> {
    let mut header = Header::zeroed();
    if length < size_of::<Header>() as u64 {
        return Ok(Err(format!("its {length} bytes are too few for a timeline: it was cut off or is something else")));
    }
    file.read_exact(bytemuck::bytes_of_mut(&mut header))?;
    Ok(header.check(length).map(|()| header))
}

impl Header {
    fn check(&self, length: u64) -> Result<(), String> {
        if self.magic != MAGIC {
            return Err("it is not a timeline of `bench`: it does not begin with the mark of one".to_owned());
        }
        if self.byte_order != BYTE_ORDER_MARK {
            return Err("it was written on a machine of the other byte order: read it there".to_owned());
        }
        if self.version != RUN_SCHEMA_VERSION {
            return Err(other_version(self.version, RUN_SCHEMA_VERSION));
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
            .try_fold(size_of::<Header>() as u64 + CRC_BYTES, |sum, (count, bytes)| {
                sum.checked_add(count.checked_mul(u64::from(bytes))?)
            })
    }
}

fn read_records<T: Pod>(file: &mut File, count: u64, crc: &mut crc32fast::Hasher) -> io::Result<Vec<T>> {
    let mut records = vec![T::zeroed(); count as usize];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut records);
    file.read_exact(bytes)?;
    crc.update(bytes);
    Ok(records)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    atomic_file::replace(path, Durability::PowerLoss, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
    .map_err(|source| StoreError::Io { path: path.to_owned(), source })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let text = std::fs::read(path).map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|error| StoreError::Damaged {
        path: path.to_owned(),
        problem: format!("not what `bench` wrote: {error}"),
    })
}

fn check_version(path: &Path, found: u32, known: u32) -> Result<(), StoreError> {
    if found == known {
        return Ok(());
    }
    Err(StoreError::Damaged { path: path.to_owned(), problem: other_version(found, known) })
}

fn other_version(found: u32, known: u32) -> String {
    format!("its layout is version {found}, and this `bench` reads version {known}: use the version that wrote it")
}
