//! A results folder: written as runs end, and rebuilt from its stored runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::charts::{bins_per_run, sections};
use super::html::html;
use super::parquet_table::ParquetTable;
use super::picture::Picture;
use super::requests_table;
use super::reset_check::reset_checks;
use super::run_reader::RunReader;
use super::sample_cache::SampleCache;
use super::sentinel::sentinels;
use super::{DamagedRun, PointEntry, Report, ReportError, ResultsFolder, Ruler, RunEntry};
use crate::analysis::metrics::Samples;
use crate::analysis::verdict::Status;
use crate::base::atomic_file::{self, Durability};
use crate::measurement::results::{SessionRecord, UNSEALED_SESSION_SCHEMA_VERSION, read_session, write_session};
use crate::measurement::timeline::Timeline;
use crate::measurement::timeline::store::{self, UNSEALED_RUN_SCHEMA_VERSION};
use crate::presentation::exchange::csv;
use crate::presentation::plot::{Chart, Rasterizer, png, svg};
use crate::question::plan::Role;

pub(super) const SUMMARY_FILE: &str = "summary_report.json";
const REQUESTS_FILE: &str = "requests.parquet";
const HTML_FILE: &str = "report.html";

/// Shortest time between two versions of `summary_report.json` while a command measures.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(2);
/// Runs that are looked through for one of the same point, with which a run can share what was asked.
const SHARED_AMONG: usize = 1_000;
/// At most one part in so many of the time goes into them: they grow with the runs, and the runs do not wait for them.
const SUMMARY_SHARE: u32 = 100;

/// The results of a command while it measures.
///
/// The raw record of each run is on disk before the next begins. `summary_report.json` follows at most every 2 s and takes at most
/// 1 % of the time. It is written again with the other files, which grow with every request, in [`Results::finish`]. Should the
/// command die before, [`rebuild`] makes them.
pub struct Results {
    folder: ResultsFolder,
    report: Report,
    /// Labels of the points that have had a run since their numbers were worked out.
    outdated: BTreeSet<String>,
    samples: SampleCache,
    /// When `summary_report.json` is to be written again.
    summary_due: Instant,
}

impl Results {
    /// Opens a results folder, which is made if it is missing, so that an unwritable one is found before the first run.
    ///
    /// # Errors
    /// [`ReportError`]; nothing has been measured yet, and nothing of another command's was changed.
    pub fn create(folder: &Path, session: &SessionRecord) -> Result<Results, ReportError> {
        Results::begin(ResultsFolder::begin(folder)?, session)
    }

    /// The same in a folder that is open already.
    ///
    /// # Errors
    /// [`ReportError`]; nothing has been measured yet.
    pub fn begin(folder: ResultsFolder, session: &SessionRecord) -> Result<Results, ReportError> {
        write_session(folder.path(), session)?;
        Results::of(folder, Report::empty(Some(session)))
    }

    /// Of a folder whose runs so far are in this report.
    pub(super) fn of(folder: ResultsFolder, report: Report) -> Result<Results, ReportError> {
        let (outdated, samples) = (BTreeSet::new(), SampleCache::default());
        let mut results = Results { folder, report, outdated, samples, summary_due: Instant::now() };
        results.update_summary()?;
        Ok(results)
    }

    /// Stores a run that has ended, however it did, and adds it to the report.
    ///
    /// # Errors
    /// [`ReportError`]; the report and the files are as they were, or the run is stored and not yet in them.
    pub fn add(&mut self, timeline: &Timeline) -> Result<&RunEntry, ReportError> {
        // What was stored before is gone with its folder: one that has disappeared is not made again for the rest.
        let runs = store::runs_folder(self.folder.path());
        std::fs::metadata(&runs).map_err(|source| ReportError::Write { path: runs, source })?;
        store::write_run(self.folder.path(), timeline)?;
        let samples = Samples::of(timeline);
        let mut entry = RunEntry::of_samples(timeline, &samples, self.report.ruler());
        let before =
            self.report.runs.iter().rev().take(SHARED_AMONG).find(|run| run.identity.point == entry.identity.point);
        before.into_iter().chain(self.report.runs.last()).for_each(|run| entry.share_with(run));
        if entry.asked.role == Role::Measured {
            self.outdated.insert(entry.identity.point.clone());
            if entry.status == Status::Valid {
                self.samples.put(&entry, samples);
            }
        }
        self.report.runs.push(entry);
        if Instant::now() >= self.summary_due {
            self.update_summary()?;
        }
        Ok(&self.report.runs[self.report.runs.len() - 1])
    }

    /// Writes all files, and gives the report.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn finish(self) -> Result<Report, ReportError> {
        let (report, written) = self.close();
        written.map(|()| report)
    }

    /// Writes all files that can be written, and gives the report whatever became of them.
    pub fn close(mut self) -> (Report, Result<(), ReportError>) {
        self.refresh();
        let written = write_all(self.folder.path(), &mut self.report);
        (self.report, written)
    }

    /// The report so far. The runs are all there; [`Results::refresh`] brings the rest up to them.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Works out what follows from several runs: points, sentinels, what is missing. A point whose runs cannot be read any more
    /// keeps its numbers, and the runs are named.
    pub fn refresh(&mut self) {
        let folder = self.folder.path();
        let mut outdated = std::mem::take(&mut self.outdated);
        let mut points = Vec::new();
        self.report.damaged.clear();
        for runs in by_point(&self.report.runs) {
            if !outdated.remove(&runs[0].identity.point) {
                continue;
            }
            match stored_point(folder, &runs, self.report.ruler(), &mut self.samples) {
                Ok(point) => points.push(point),
                Err(damaged) => {
                    self.outdated.insert(runs[0].identity.point.clone());
                    self.report.damaged.push(damaged);
                }
            }
        }
        for point in points {
            let same = |known: &&mut PointEntry| known.identity.point == point.identity.point;
            match self.report.points.iter_mut().find(same) {
                Some(known) => *known = point,
                None => self.report.points.push(point),
            }
        }
        finish_report(folder, &mut self.report);
    }

    /// Writes the summary of all runs so far, and says when it is to be written again.
    fn update_summary(&mut self) -> Result<(), ReportError> {
        let began = Instant::now();
        self.refresh();
        write_summary(self.folder.path(), &self.report, Durability::Process)?;
        self.summary_due = Instant::now() + SUMMARY_INTERVAL.max(began.elapsed() * SUMMARY_SHARE);
        Ok(())
    }
}

/// Makes every file of a results folder anew from its stored session and runs.
///
/// # Errors
/// [`ReportError`]: the folder is not one of results, its session is damaged, or a file cannot be written.
pub fn rebuild(folder: &Path) -> Result<Report, ReportError> {
    let mut report = read(folder)?;
    write_all(folder, &mut report)?;
    Ok(report)
}

/// The report of a results folder, from its stored session and runs. One timeline is in memory at a time. Runs that cannot be
/// read, or are not in the plan, are named in [`Report::damaged`].
///
/// # Errors
/// [`ReportError`]: the folder is not one of results, or its session is damaged.
pub fn read(folder: &Path) -> Result<Report, ReportError> {
    let session = read_session(folder)?;
    let mut report = Report::empty(Some(&session));
    report.unsealed_records += u64::from(session.schema_version == UNSEALED_SESSION_SCHEMA_VERSION);
    let mut reader = RunReader::of(&session);
    for folders in by_label(store::stored_runs(folder)?) {
        let mut read = Vec::new();
        for stored in &folders {
            match reader.read(stored) {
                Ok(timeline) => {
                    let samples = Samples::of(&timeline);
                    report.unsealed_records += u64::from(timeline.run.schema_version == UNSEALED_RUN_SCHEMA_VERSION);
                    read.push((RunEntry::of_samples(&timeline, &samples, report.ruler()), samples));
                }
                Err(error) => report.damaged.push(DamagedRun::of(folder, stored, &error)),
            }
        }
        read.sort_by_key(|(run, _)| run.order);
        let (runs, samples): (Vec<RunEntry>, Vec<Samples>) = read.into_iter().unzip();
        let valid = runs.iter().zip(samples).filter(|(run, _)| run.status == Status::Valid);
        let samples: Vec<Samples> = valid.map(|(_, samples)| samples).collect();
        if !runs.is_empty() && runs.iter().all(|run| run.asked.role == Role::Measured) {
            let point = PointEntry::of(&runs.iter().collect::<Vec<_>>(), &samples, report.ruler());
            report.points.push(point);
        }
        report.runs.extend(runs);
    }
    report.runs.sort_by_key(|run| run.order);
    finish_report(folder, &mut report);
    Ok(report)
}

/// Adds to the runs and points of a report what follows from all of them, and puts the points in order.
fn finish_report(folder: &Path, report: &mut Report) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (place, run) in report.runs.iter().enumerate() {
        first.entry(&run.identity.point).or_insert(place);
    }
    report.points.sort_by_key(|point| first.get(point.identity.point.as_str()));
    report.sentinels = sentinels(&report.runs);
    match reset_checks(folder, &report.runs) {
        Ok(checks) => report.reset_checks = checks,
        Err(error) => report.damaged.push(DamagedRun::of(folder, error.path().parent().unwrap_or(folder), &error)),
    }
    report.add_damaged(Vec::new());
}

/// The folders of stored runs by their point, whose label is all of a name up to the repeat.
fn by_label(folders: Vec<PathBuf>) -> Vec<Vec<PathBuf>> {
    let mut labels: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let label = name.rsplit_once('-').map_or(name.as_str(), |(label, _)| label);
        labels.entry(label.to_owned()).or_default().push(folder);
    }
    labels.into_values().collect()
}

/// The metrics and verdicts of the timelines in a CSV file that anyone gives.
///
/// # Errors
/// [`ReportError::Csv`], which names the line and the column.
pub fn from_csv(path: &Path) -> Result<Report, ReportError> {
    let timelines = csv::read(path)?;
    let mut report = Report::empty(None);
    report.runs = timelines.iter().map(|timeline| RunEntry::of(timeline, Ruler::UNKNOWN)).collect();
    let mut points = Vec::new();
    for runs in by_point(&report.runs) {
        let valid = runs.iter().filter(|run| run.status == Status::Valid);
        let samples: Vec<Samples> = valid.map(|run| Samples::of(&timelines[run.order as usize])).collect();
        points.push(PointEntry::of(&runs, &samples, Ruler::UNKNOWN));
    }
    report.points = points;
    Ok(report)
}

/// Writes all files of a report whose runs are stored in the folder, those that can be written. A run that cannot be read any more
/// is in none of the charts, and is named in [`Report::damaged`].
///
/// # Errors
/// [`ReportError`]; [`ReportError::NotWritten`] names the files that are not there. Each file is as it was before or whole.
pub fn write_all(folder: &Path, report: &mut Report) -> Result<(), ReportError> {
    let (mut pictures, mut damaged) = (Vec::new(), Vec::new());
    let bins = bins_per_run(report.runs.len());
    let mut unwritten = Unwritten::default();
    unwritten.note(replace(&folder.join(REQUESTS_FILE), |out| {
        let mut table = ParquetTable::begin(out)?;
        for run in &report.runs {
            let stored = store::run_folder(folder, &run.identity.point, run.repeat);
            let timeline = match store::read_run(&stored) {
                Ok(timeline) => timeline,
                Err(error) => {
                    damaged.push(DamagedRun::of(folder, &stored, &error));
                    continue;
                }
            };
            requests_table::add(&mut table, &timeline, run.status)?;
            let is_shown = run.status == Status::Valid && run.asked.role == Role::Measured;
            pictures.extend(Picture::of(&timeline, bins).filter(|_| is_shown));
        }
        table.finish()
    }))?;
    report.add_damaged(damaged);
    let report = &*report;
    let (sections, empty) = sections(report, &pictures);
    unwritten.note(write_text(&folder.join(HTML_FILE), &html(report, &sections)))?;
    let charts: Vec<&Chart> = sections.iter().flat_map(|section| &section.charts).collect();
    write_charts(folder, &charts, &empty, &mut unwritten)?;
    // Last and synced: what other programs read of the report is there after a loss of power, and the names of the rest with it.
    unwritten.note(write_summary(folder, report, Durability::PowerLoss))?;
    unwritten.result(folder)
}

/// The files that could not be written, and why the first of them was not.
#[derive(Default)]
struct Unwritten {
    names: Vec<String>,
    source: Option<std::io::Error>,
}

impl Unwritten {
    /// Keeps in mind that a file could not be written; other errors are handed on.
    fn note(&mut self, written: Result<(), ReportError>) -> Result<(), ReportError> {
        let Err(ReportError::Write { path, source }) = written else { return written };
        self.names.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        self.source.get_or_insert(source);
        Ok(())
    }

    fn result(self, folder: &Path) -> Result<(), ReportError> {
        match self.source {
            None => Ok(()),
            Some(source) => Err(ReportError::NotWritten { folder: folder.to_owned(), names: self.names, source }),
        }
    }
}

/// The charts as files. Those of an earlier report that has nothing to show any more are removed.
fn write_charts(
    folder: &Path,
    charts: &[&Chart],
    empty: &[&str],
    unwritten: &mut Unwritten,
) -> Result<(), ReportError> {
    let rasterizer = Rasterizer::new();
    for chart in charts {
        let text = svg(chart)?;
        unwritten.note(write_text(&folder.join(format!("{}.svg", chart.id)), &text))?;
        let image = png(&rasterizer, chart, &text)?;
        unwritten.note(replace(&folder.join(format!("{}.png", chart.id)), |out| out.write_all(&image)))?;
    }
    for path in empty.iter().flat_map(|id| ["svg", "png"].map(|kind| folder.join(format!("{id}.{kind}")))) {
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                unwritten.note(Err(ReportError::Write { path, source }))?;
            }
            _ => (),
        }
    }
    Ok(())
}

/// The runs of each point, points and runs in the order of execution. Imported runs of one label under two names are two
/// points.
fn by_point(runs: &[RunEntry]) -> Vec<Vec<&RunEntry>> {
    let mut points: Vec<Vec<&RunEntry>> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for run in runs.iter().filter(|run| run.asked.role == Role::Measured) {
        let place = *places.entry((&run.identity.name, &run.identity.point)).or_insert_with(|| {
            points.push(Vec::new());
            points.len() - 1
        });
        points[place].push(run);
    }
    points
}

/// The numbers of a point over its runs; the inner error is the run that cannot be read any more.
fn stored_point(
    folder: &Path,
    runs: &[&RunEntry],
    ruler: Ruler<'_>,
    cache: &mut SampleCache,
) -> Result<PointEntry, DamagedRun> {
    let valid = || runs.iter().filter(|run| run.status == Status::Valid);
    let mut samples = Vec::new();
    for run in valid() {
        let read = || -> Result<Samples, DamagedRun> {
            let stored = store::run_folder(folder, &run.identity.point, run.repeat);
            let timeline = store::read_run(&stored).map_err(|error| DamagedRun::of(folder, &stored, &error))?;
            Ok(Samples::of(&timeline))
        };
        samples.push(cache.take(run).map_or_else(read, Ok)?);
    }
    let point = PointEntry::of(runs, &samples, ruler);
    valid().zip(samples).for_each(|(run, samples)| cache.put(run, samples));
    Ok(point)
}

fn write_summary(folder: &Path, report: &Report, durability: Durability) -> Result<(), ReportError> {
    replace_durably(&folder.join(SUMMARY_FILE), durability, |out| {
        serde_json::to_writer_pretty(&mut *out, report)?;
        out.write_all(b"\n")
    })
}

fn write_text(path: &Path, text: &str) -> Result<(), ReportError> {
    replace(path, |out| out.write_all(text.as_bytes()))
}

/// Writes a file of a results folder, whole or not at all. It can be rebuilt, and need not survive a loss of power.
pub(super) fn replace(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<&std::fs::File>) -> std::io::Result<()>,
) -> Result<(), ReportError> {
    replace_durably(path, Durability::Process, write)
}

fn replace_durably(
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut std::io::BufWriter<&std::fs::File>) -> std::io::Result<()>,
) -> Result<(), ReportError> {
    atomic_file::replace(path, durability, write).map_err(|source| ReportError::Write { path: path.to_owned(), source })
}
