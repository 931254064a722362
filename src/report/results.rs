//! A results folder: written as runs end, and rebuilt from its stored runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::charts::{bins_per_run, sections};
use super::html::html;
use super::parquet_table::ParquetTable;
use super::picture::Picture;
use super::requests_table;
use super::reset_check::reset_checks;
use super::resumption::lock;
use super::sentinel::sentinels;
use super::{PointEntry, Report, ReportError, Ruler, RunEntry};
use crate::atomic_file::{self, Durability};
use crate::metrics::Samples;
use crate::plan::Role;
use crate::plot::{Chart, Rasterizer, png, svg};
use crate::timeline::store::{self, StoreError};
use crate::timeline::{SessionRecord, Timeline, csv};
use crate::verdict::Status;

const SUMMARY_FILE: &str = "summary_report.json";
const REQUESTS_FILE: &str = "requests.parquet";
const HTML_FILE: &str = "report.html";

/// The results of a command while it measures.
///
/// After each run the raw record and `summary_report.json` are on disk; the other files, which grow with every request,
/// are written by [`Results::finish`]. Should the command die before, [`rebuild`] makes them.
pub struct Results {
    pub(super) folder: PathBuf,
    pub(super) report: Report,
    /// Locked, so that no other command writes here.
    pub(super) _lock: File,
}

impl Results {
    /// Opens a results folder, which is made if it is missing, so that an unwritable one is found before the first run.
    ///
    /// # Errors
    /// [`ReportError`]; nothing has been measured yet.
    pub fn create(folder: &Path, session: &SessionRecord) -> Result<Results, ReportError> {
        store::write_session(folder, session)?;
        let results = Results { folder: folder.to_owned(), report: Report::empty(Some(session)), _lock: lock(folder)? };
        write_summary(&results.folder, &results.report)?;
        Ok(results)
    }

    /// Stores a run that has ended, however it did, and adds it to the report.
    ///
    /// # Errors
    /// [`ReportError`]; the report and the files are as they were, or the run is stored and not yet in them.
    pub fn add(&mut self, timeline: &Timeline) -> Result<&RunEntry, ReportError> {
        // What was stored before is gone with its folder: one that has disappeared is not made again for the rest.
        let runs = store::runs_folder(&self.folder);
        std::fs::metadata(&runs).map_err(|source| ReportError::Write { path: runs, source })?;
        store::write_run(&self.folder, timeline)?;
        let entry = RunEntry::of(timeline, self.report.ruler());
        let (label, role) = (entry.identity.point.clone(), entry.asked.role);
        self.report.runs.push(entry);
        match role {
            Role::Measured => self.update_point(&label)?,
            Role::Sentinel => self.report.sentinels = sentinels(&self.report.runs),
            Role::AfterReset | Role::FreshEngine => {
                self.report.reset_checks = reset_checks(&self.folder, &self.report.runs)?;
            }
        }
        write_summary(&self.folder, &self.report)?;
        Ok(&self.report.runs[self.report.runs.len() - 1])
    }

    /// Writes all files, and gives the report.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn finish(self) -> Result<Report, ReportError> {
        write_all(&self.folder, &self.report)?;
        Ok(self.report)
    }

    /// The report so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    fn update_point(&mut self, label: &str) -> Result<(), ReportError> {
        let runs: Vec<&RunEntry> = self.report.runs.iter().filter(|run| run.identity.point == label).collect();
        let entry = stored_point(&self.folder, &runs, self.report.ruler())?;
        match self.report.points.iter_mut().find(|point| point.identity.point == label) {
            Some(point) => *point = entry,
            None => self.report.points.push(entry),
        }
        Ok(())
    }
}

/// Makes every file of a results folder anew from its stored session and runs.
///
/// # Errors
/// [`ReportError`]: the folder is not one of results, or a stored run is damaged.
pub fn rebuild(folder: &Path) -> Result<Report, ReportError> {
    let report = read(folder)?;
    write_all(folder, &report)?;
    Ok(report)
}

/// The report of a results folder, from its stored session and runs. One timeline is in memory at a time.
///
/// # Errors
/// As of [`rebuild`].
pub fn read(folder: &Path) -> Result<Report, ReportError> {
    let session = store::read_session(folder)?;
    let mut report = Report::empty(Some(&session));
    for folders in by_label(store::stored_runs(folder)?) {
        let mut read = Vec::new();
        for stored in &folders {
            let timeline = store::read_run(stored)?;
            let samples = Samples::of(&timeline);
            read.push((RunEntry::of_samples(&timeline, &samples, report.ruler()), samples));
        }
        read.sort_by_key(|(run, _)| run.order);
        let (runs, samples): (Vec<RunEntry>, Vec<Samples>) = read.into_iter().unzip();
        let valid = runs.iter().zip(samples).filter(|(run, _)| run.status == Status::Valid);
        let samples: Vec<Samples> = valid.map(|(_, samples)| samples).collect();
        if runs.iter().all(|run| run.asked.role == Role::Measured) {
            let point = PointEntry::of(&runs.iter().collect::<Vec<_>>(), &samples, report.ruler());
            report.points.push(point);
        }
        report.runs.extend(runs);
    }
    report.runs.sort_by_key(|run| run.order);
    let first = |point: &PointEntry| report.runs.iter().position(|run| run.identity.point == point.identity.point);
    report.points.sort_by_cached_key(first);
    report.sentinels = sentinels(&report.runs);
    report.reset_checks = reset_checks(folder, &report.runs)?;
    Ok(report)
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

/// Writes all files of a report whose runs are stored in the folder.
///
/// # Errors
/// [`ReportError`]; each file is as it was before or whole.
pub fn write_all(folder: &Path, report: &Report) -> Result<(), ReportError> {
    let mut pictures = Vec::new();
    let bins = bins_per_run(report.runs.len());
    replace(&folder.join(REQUESTS_FILE), |out| {
        let mut table = ParquetTable::begin(out)?;
        for run in &report.runs {
            let stored = store::run_folder(folder, &run.identity.point, run.repeat);
            let timeline = store::read_run(&stored)?;
            requests_table::add(&mut table, &timeline, run.status)?;
            let is_shown = run.status == Status::Valid && run.asked.role == Role::Measured;
            pictures.extend(Picture::of(&timeline, bins).filter(|_| is_shown));
        }
        Ok(table.finish()?)
    })?;
    let (sections, empty) = sections(report, &pictures);
    write_text(&folder.join(HTML_FILE), &html(report, &sections))?;
    let charts: Vec<&Chart> = sections.iter().flat_map(|section| &section.charts).collect();
    write_charts(folder, &charts, &empty)?;
    write_summary(folder, report)
}

/// The charts as files. Those of an earlier report that has nothing to show any more are removed.
fn write_charts(folder: &Path, charts: &[&Chart], empty: &[&str]) -> Result<(), ReportError> {
    let rasterizer = Rasterizer::new();
    for chart in charts {
        let text = svg(chart)?;
        write_text(&folder.join(format!("{}.svg", chart.id)), &text)?;
        let image = png(&rasterizer, chart, &text)?;
        replace(&folder.join(format!("{}.png", chart.id)), |out| Ok(out.write_all(&image)?))?;
    }
    for path in empty.iter().flat_map(|id| ["svg", "png"].map(|kind| folder.join(format!("{id}.{kind}")))) {
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ReportError::Write { path, source });
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

fn stored_point(folder: &Path, runs: &[&RunEntry], ruler: Ruler<'_>) -> Result<PointEntry, ReportError> {
    let mut samples = Vec::new();
    for run in runs.iter().filter(|run| run.status == Status::Valid) {
        let stored = store::run_folder(folder, &run.identity.point, run.repeat);
        samples.push(Samples::of(&store::read_run(&stored)?));
    }
    Ok(PointEntry::of(runs, &samples, ruler))
}

pub(super) fn write_summary(folder: &Path, report: &Report) -> Result<(), ReportError> {
    replace(&folder.join(SUMMARY_FILE), |out| {
        serde_json::to_writer_pretty(&mut *out, report).map_err(std::io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    })
}

fn write_text(path: &Path, text: &str) -> Result<(), ReportError> {
    replace(path, |out| Ok(out.write_all(text.as_bytes())?))
}

/// Why the content of a file could not be made or written, before the file's name is added.
pub(super) enum Failure {
    Write(std::io::Error),
    Store(StoreError),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Write(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

/// Writes a file of a results folder, whole or not at all.
pub(super) fn replace(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<&std::fs::File>) -> Result<(), Failure>,
) -> Result<(), ReportError> {
    // What is written here can be rebuilt: it need not survive a loss of power.
    atomic_file::replace(path, Durability::Process, write).map_err(|failure| match failure {
        Failure::Write(source) => ReportError::Write { path: path.to_owned(), source },
        Failure::Store(error) => ReportError::Store(error),
    })
}
