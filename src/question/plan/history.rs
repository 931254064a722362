//! What earlier commands measured on this machine; the only source of an estimated time.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{EngineKey, Load, Point};
use crate::base::bounded_file::read_bounded;
use crate::base::owned_folder;
use crate::machine::device::DeviceClass;
use crate::statistics::Spread;

/// Version of the file's layout.
const SCHEMA_VERSION: u32 = 1;
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most engines that are remembered; the one that was not measured for longest goes first.
const MAX_ENGINES: usize = 200;
/// Most points that are remembered of an engine.
const MAX_POINTS: usize = 2_000;

/// Measured times, by engine and machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    schema_version: u32,
    /// Counts up with every record, so that the oldest engine is known.
    records: u64,
    /// Seconds of the latest import of vLLM, by device class.
    #[serde(default)]
    imports_s: BTreeMap<String, f64>,
    /// By [`engine_id`].
    engines: BTreeMap<String, EngineHistory>,
}

/// What was measured of one engine on one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineHistory {
    /// Seconds of the latest load.
    pub(super) load_s: f64,
    /// Seconds of the latest warm-up after a load; `None` in records of older versions.
    #[serde(default)]
    pub(super) warm_up_s: Option<f64>,
    last_record: u64,
    /// By the point's work, see [`work_id`].
    pub(super) points: BTreeMap<String, PointHistory>,
}

/// The latest measurement of one kind of run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointHistory {
    /// Mean seconds of a run, from the end of the run before.
    pub(super) run_s: f64,
    /// Of those, seconds in steps that computed prompt tokens, and how many tokens those were.
    pub(super) prefill_s: f64,
    pub(super) prefill_tokens: f64,
    /// Of those, seconds in all other steps, and how many steps those were.
    pub(super) decode_s: f64,
    pub(super) decode_steps: f64,
    /// Requests in a batch, see [`batch_of`].
    pub(super) batch: u32,
    /// How runs differ from each other, by metric: of the command that had most runs, the latest of those.
    #[serde(default)]
    pub(super) spreads: BTreeMap<String, Spread>,
}

/// How long one run took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunTimes<'p> {
    /// What was measured.
    pub point: &'p Point,
    /// Seconds from the end of the run before to the end of this one: staging, priming and warming up included.
    pub run_s: f64,
    /// Seconds in steps that computed prompt tokens.
    pub prefill_s: f64,
    /// The prompt tokens that those steps computed.
    pub prefill_tokens: u64,
    /// Seconds in all other steps.
    pub decode_s: f64,
    /// The number of those steps.
    pub decode_steps: u64,
    /// What was measured in it, by metric.
    pub values: &'p [(String, f64)],
}

/// How long a new engine took before its first run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadTimes {
    /// Seconds to load it.
    pub load_s: f64,
    /// Seconds to warm it up; `None` if it was not.
    pub warm_up_s: Option<f64>,
}

/// Why a history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is none of this program's histories.
    #[error("{path}: not a history that this version reads ({reason}); delete it, it only serves to estimate times", path = path.display())]
    Malformed {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        reason: String,
    },
}

/// Identity of an engine on a machine: the SHA-256 of its key and the number of cores, in hexadecimal.
fn engine_id(key: &EngineKey, cores: usize) -> String {
    // A key has no map and no float, so that its JSON is the same every time.
    let key = serde_json::to_string(key).unwrap_or_default();
    Sha256::digest(format!("{key} {cores}")).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything about a point that decides how long a run of it takes.
fn work_id(point: &Point) -> String {
    let Point { input_len, output_len, prefix_len, num_prompts, warmup, .. } = point;
    let prefixes = if point.primed_prefixes() > 1 { format!("x{}", point.num_prefixes) } else { String::new() };
    let Load::Closed { concurrency } = point.load;
    let limits = (point.limits.max_num_seqs, point.limits.max_num_batched_tokens);
    let shown = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let (concurrency, seqs, tokens) = (shown(concurrency), shown(limits.0), shown(limits.1));
    format!(
        "{input_len}/{output_len}/{prefix_len}{prefixes} {num_prompts}+{warmup} {concurrency}/{seqs}/{tokens} {:?}",
        point.drive
    )
}

/// The most requests that can run at once.
pub(super) fn batch_of(point: &Point) -> u32 {
    let Load::Closed { concurrency } = point.load;
    [concurrency, point.limits.max_num_seqs].into_iter().flatten().fold(point.num_prompts, u32::min).max(1)
}

impl History {
    /// The history in the file at `path`; an empty one if there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is not a history.
    pub fn load(path: &Path) -> Result<History, HistoryError> {
        let io = |source| HistoryError::Io { path: path.to_path_buf(), source };
        let malformed = |reason: String| HistoryError::Malformed { path: path.to_path_buf(), reason };
        let bytes = match read_bounded(path, MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(History::default()),
            Err(error) if matches!(error.kind(), ErrorKind::FileTooLarge | ErrorKind::InvalidInput) => {
                return Err(malformed(error.to_string()));
            }
            Err(error) => return Err(io(error)),
        };
        let history: History = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if history.schema_version != SCHEMA_VERSION {
            return Err(malformed(format!("schema_version is {}, not {SCHEMA_VERSION}", history.schema_version)));
        }
        Ok(history)
    }

    /// Replaces the file at `path`, whole or not at all; its folder is made if it is missing.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), HistoryError> {
        let io = |source| HistoryError::Io { path: path.to_path_buf(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        owned_folder::make(folder).map_err(io)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
        let text = serde_json::to_vec(self).map_err(|error| io(error.into()))?;
        file.write_all(&text).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(path).map_err(|error| io(error.error))?;
        Ok(())
    }

    /// Remembers how many seconds importing vLLM for `device` took.
    pub fn record_import(&mut self, device: DeviceClass, import_s: f64) {
        self.schema_version = SCHEMA_VERSION;
        self.imports_s.insert(device.as_str().to_owned(), import_s);
    }

    /// Remembers an engine on a machine with `cores` cores: how long it took to come up, if it was loaded, and its valid
    /// runs.
    pub fn record(&mut self, key: &EngineKey, cores: usize, load: Option<LoadTimes>, runs: &[RunTimes<'_>]) {
        self.schema_version = SCHEMA_VERSION;
        self.records += 1;
        let engine = self.engines.entry(engine_id(key, cores)).or_default();
        engine.last_record = self.records;
        if let Some(load) = load {
            (engine.load_s, engine.warm_up_s) = (load.load_s, load.warm_up_s);
        }
        let mut by_work: BTreeMap<String, Vec<&RunTimes<'_>>> = BTreeMap::new();
        for run in runs {
            by_work.entry(work_id(run.point)).or_default().push(run);
        }
        for (work, runs) in by_work {
            if engine.points.len() >= MAX_POINTS && !engine.points.contains_key(&work) {
                engine.points.pop_first();
            }
            let mut latest = PointHistory::mean(&runs);
            for (metric, before) in engine.points.remove(&work).into_iter().flat_map(|before| before.spreads) {
                let spread = latest.spreads.entry(metric).or_insert(before);
                if before.degrees > spread.degrees {
                    *spread = before;
                }
            }
            engine.points.insert(work, latest);
        }
        while self.engines.len() > MAX_ENGINES {
            let oldest = self.engines.iter().min_by_key(|(_, engine)| engine.last_record).map(|(id, _)| id.clone());
            self.engines.remove(&oldest.unwrap_or_default());
        }
    }

    /// Seconds of the latest import for `device`.
    pub(super) fn import_s(&self, device: DeviceClass) -> Option<f64> {
        self.imports_s.get(device.as_str()).copied()
    }

    pub(super) fn engine(&self, key: &EngineKey, cores: usize) -> Option<&EngineHistory> {
        self.engines.get(&engine_id(key, cores))
    }
}

impl EngineHistory {
    pub(super) fn point(&self, point: &Point) -> Option<&PointHistory> {
        self.points.get(&work_id(point))
    }
}

impl PointHistory {
    /// The mean of runs of the same work, of which there is at least one.
    fn mean(runs: &[&RunTimes<'_>]) -> PointHistory {
        let mean = |value: fn(&RunTimes<'_>) -> f64| runs.iter().map(|run| value(run)).sum::<f64>() / runs.len() as f64;
        PointHistory {
            run_s: mean(|run| run.run_s),
            prefill_s: mean(|run| run.prefill_s),
            prefill_tokens: mean(|run| run.prefill_tokens as f64),
            decode_s: mean(|run| run.decode_s),
            decode_steps: mean(|run| run.decode_steps as f64),
            batch: batch_of(runs[0].point),
            spreads: spreads(runs),
        }
    }
}

/// The spread of each metric that every run has. None where the same work stands for several points: how those differ is no
/// spread.
fn spreads(runs: &[&RunTimes<'_>]) -> BTreeMap<String, Spread> {
    if runs.iter().any(|run| run.point.point != runs[0].point.point) {
        return BTreeMap::new();
    }
    let mut by_metric: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (metric, value) in runs.iter().flat_map(|run| run.values) {
        by_metric.entry(metric).or_default().push(*value);
    }
    let of_all = by_metric.into_iter().filter(|(_, values)| values.len() == runs.len());
    of_all.filter_map(|(metric, values)| Some((metric.to_owned(), Spread::of(&values)?))).collect()
}
