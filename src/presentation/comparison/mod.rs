//! A against B: what a change did to each point, with an interval, and a decision that keeps its error rates.
//!
//! Pairs are decided: the two runs of a pair ran directly one after the other, in an order that a coin chose, so that what
//! changes over time speaks for neither. Two results that were measured one after the other are shown side by side and never
//! decided.

mod decision;
mod differences;
mod page;
mod pairs;
mod saved;
mod sides;
mod table;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::analysis::metrics::Metric;
use crate::analysis::verdict::{Objective, objectives};
use crate::base::atomic_file::{self, Durability};
use crate::presentation::report::{PointEntry, Report, RunEntry, TableFormat};
use crate::question::plan::Arm;
use crate::statistics::{LEVEL, PairedMethod, benjamini_hochberg, can_hold, holm, pairs_against};
pub use decision::Decision;
pub use sides::Side;

/// Version of the layout of [`Comparison`]. `schemas/comparison-<version>.schema.json` describes it.
pub const COMPARISON_SCHEMA_VERSION: u32 = 1;

/// The JSON Schema of [`Comparison`].
pub const COMPARISON_SCHEMA: &str = include_str!("../../../schemas/comparison-1.schema.json");

/// What is asked of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The metrics; empty for the usual ones.
    pub metrics: Vec<Metric>,
    /// Relative change from which on a difference matters: 0.01 is 1 %.
    pub threshold: f64,
    /// Objectives that both sides are held against: metrics and bounds.
    pub slo: std::collections::BTreeMap<String, f64>,
}

/// How both sides were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Design {
    /// In pairs, each in an order of its own. Decided.
    RandomPairs,
    /// In two commands. What else changed between them is not known: unverified, never decided.
    SavedResults,
}

/// Two sides, point by point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// [`COMPARISON_SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of `bench` that compared.
    pub bench_version: String,
    /// How both sides were measured.
    pub design: Design,
    /// Where A comes from, and what it is.
    pub a: String,
    /// Where B comes from, and what it is.
    pub b: String,
    /// How much of side A was measured, and of side B.
    pub sides: [Side; 2],
    /// Relative change from which on a difference matters.
    pub threshold: f64,
    /// The points that both sides have.
    pub points: Vec<PointComparison>,
    /// What cannot be compared or trusted, and why.
    pub remarks: Vec<String>,
    /// Whether B is worse anywhere: slower by more than the threshold after Holm's correction over all of `points`, or beyond
    /// an objective that A keeps.
    pub got_worse: bool,
}

/// One point on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PointComparison {
    /// Name of the configuration's entry.
    pub name: String,
    /// Label of the point on side A.
    pub point_a: String,
    /// Label of the point on side B.
    pub point_b: String,
    /// Pairs of valid runs; 0 for saved results.
    pub pairs: usize,
    /// Pairs that are left out, as one of their runs is not valid.
    pub pairs_left_out: usize,
    /// Valid runs on side A, and on side B.
    pub runs: [u64; 2],
    /// What is compared.
    pub metrics: Vec<MetricComparison>,
    /// Objectives on side A, and on side B.
    pub slo: [Vec<Objective>; 2],
}

/// One metric on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricComparison {
    /// Its name.
    pub metric: String,
    /// Over all valid runs of side A, in the metric's unit.
    pub a: Option<f64>,
    /// Over all valid runs of side B.
    pub b: Option<f64>,
    /// B / A.
    pub ratio: Option<f64>,
    /// Ends of its 95 % interval.
    pub low: Option<f64>,
    /// See `low`.
    pub high: Option<f64>,
    /// How ratio and interval were found: `signed-rank`, `paired-t`; null for saved results (Mann and Whitney's ranks from seven runs a side on, below
    /// Welch on logarithms).
    pub method: Option<PairedMethod>,
    /// Two-sided p-value of no effect.
    pub p: Option<f64>,
    /// Holm's over all metrics of all points: for gates.
    pub p_holm: Option<f64>,
    /// Benjamini and Hochberg's: for exploration.
    pub p_fdr: Option<f64>,
    /// Relative effect that as many pairs find in 80 % of the cases.
    pub detectable: Option<f64>,
    /// By how much the instrument can typically move this number, in its unit; null if it is not known of both sides.
    pub instrument_error: Option<f64>,
    /// The larger of the known timing errors of the two sides. Differences below it are under the instrument's resolution.
    #[serde(skip)]
    largest_known_error: Option<f64>,
    /// What is decided.
    pub decision: Decision,
    /// Whether the whole interval lies within the threshold.
    pub is_equivalent: bool,
    /// What has to be said of it.
    pub note: Option<String>,
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum ComparisonError {
    /// One result, and no pairs in it.
    #[error(
        "{0} has no pairs to compare; give a second result, or measure pairs: `bench engine --ab KEY=A,B`, or `compare` in a \
         `matrix`"
    )]
    NoPairs(PathBuf),
    /// Two results without a common point.
    #[error("{a} and {b} have no point in common: a point is the same by its entry's name and its label")]
    NothingInCommon {
        /// One of them.
        a: PathBuf,
        /// The other.
        b: PathBuf,
    },
    /// A result without points.
    #[error("{folder} has no point to compare: {counts}")]
    NoPoints {
        /// The result.
        folder: PathBuf,
        /// Its runs, planned and measured.
        counts: String,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Comparison {
    /// Both sides of the pairs in a result.
    ///
    /// # Errors
    /// [`ComparisonError::NoPairs`].
    pub fn of_pairs(report: &Report, folder: &Path, question: &Question) -> Result<Comparison, ComparisonError> {
        let points = pairs::compare(report, question);
        if points.is_empty() {
            return Err(ComparisonError::NoPairs(folder.to_owned()));
        }
        let arms = [Arm::A, Arm::B];
        let names = arms.map(|arm| format!("{}, {}", folder.display(), pairs::values(report, arm)));
        let sides = arms.map(|arm| Side::of(report, Some(arm)));
        Ok(Comparison::new(Design::RandomPairs, names, sides, points, Vec::new(), question))
    }

    /// Two results that were measured one after the other, each with its folder.
    ///
    /// # Errors
    /// [`ComparisonError::NothingInCommon`], [`ComparisonError::NoPoints`].
    pub fn of_saved(
        a: (&Report, &Path),
        b: (&Report, &Path),
        question: &Question,
    ) -> Result<Comparison, ComparisonError> {
        let sides = [a.0, b.0].map(|report| Side::of(report, None));
        for ((report, folder), side) in [a, b].into_iter().zip(&sides) {
            if report.points.is_empty() {
                return Err(ComparisonError::NoPoints { folder: folder.to_owned(), counts: side.counts() });
            }
        }
        let (points, remarks) = saved::compare(a.0, b.0, question);
        if points.is_empty() {
            return Err(ComparisonError::NothingInCommon { a: a.1.to_owned(), b: b.1.to_owned() });
        }
        let names = [a.1, b.1].map(|folder| folder.display().to_string());
        Ok(Comparison::new(Design::SavedResults, names, sides, points, remarks, question))
    }

    fn new(
        design: Design,
        [a, b]: [String; 2],
        sides: [Side; 2],
        mut points: Vec<PointComparison>,
        remarks: Vec<String>,
        question: &Question,
    ) -> Comparison {
        let mut tests: Vec<&mut MetricComparison> =
            points.iter_mut().flat_map(|point| &mut point.metrics).filter(|metric| metric.p.is_some()).collect();
        let p: Vec<f64> = tests.iter().filter_map(|metric| metric.p).collect();
        for ((metric, holm), fdr) in tests.iter_mut().zip(holm(&p)).zip(benjamini_hochberg(&p)) {
            (metric.p_holm, metric.p_fdr) = (Some(holm), Some(fdr));
        }
        let mut comparison = Comparison {
            schema_version: COMPARISON_SCHEMA_VERSION,
            bench_version: env!("CARGO_PKG_VERSION").to_owned(),
            design,
            a,
            b,
            sides,
            threshold: question.threshold,
            points,
            remarks,
            got_worse: false,
        };
        let of_sides = ["A", "B"].iter().zip(&comparison.sides).flat_map(|(name, side)| side.remarks(name));
        comparison.remarks.extend(of_sides.collect::<Vec<_>>());
        comparison.got_worse = comparison.points.iter().any(PointComparison::got_worse);
        comparison.remarks.extend(comparison.out_of_reach());
        comparison
    }

    /// Why no metric of any point could have been worse, however much slower B is; `None` where one could.
    fn out_of_reach(&self) -> Option<String> {
        let tested = |point: &PointComparison| point.metrics.iter().filter(|metric| metric.p.is_some()).count();
        let tests = self.points.iter().map(tested).sum::<usize>();
        let pairs: Vec<usize> = self.points.iter().filter(|point| tested(point) > 0).map(|point| point.pairs).collect();
        let most = pairs.iter().max().filter(|_| self.design == Design::RandomPairs)?;
        (!pairs.iter().any(|pairs| can_hold(*pairs, tests))).then(|| {
            format!(
                "{most} pairs cannot show that anything got worse: against {tests} tests Holm's correction takes {} that all agree. \
                 Measure more pairs, or compare fewer metrics (`bench compare DIR --metric`)",
                pairs_against(tests)
            )
        })
    }

    /// Whether anything could be decided: a gate that never could is none.
    pub fn is_decided(&self) -> bool {
        let metrics = self.points.iter().flat_map(|point| &point.metrics);
        let is_decided =
            |metric: &MetricComparison| !matches!(metric.decision, Decision::Insufficient | Decision::Unverified);
        let has_objectives = self.points.iter().any(|point| !point.slo[1].is_empty());
        self.unjudged_objectives().is_empty()
            && ((self.out_of_reach().is_none() && metrics.into_iter().any(is_decided)) || has_objectives)
    }

    /// The objectives that one side has no number for: neither kept nor missed.
    fn unjudged_objectives(&self) -> Vec<String> {
        let of_point = |point: &PointComparison| {
            let sides = ["A", "B"].into_iter().zip([&point.point_a, &point.point_b]).zip(&point.slo);
            let unjudged = sides.flat_map(|((side, label), slo)| {
                let of_side = slo.iter().filter(|objective| objective.met.is_none());
                of_side.map(move |objective| format!("{} of {label} in {side}", objective.metric))
            });
            unjudged.collect::<Vec<_>>()
        };
        self.points.iter().flat_map(of_point).collect()
    }

    /// Why the comparison answers nothing, so that its success would be none; `None` where it does.
    pub fn undecided(&self) -> Option<String> {
        let unjudged = self.unjudged_objectives();
        if let [first, others @ ..] = &unjudged[..] {
            let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            return Some(format!("no number for the objective {first}{more}; measure more `repeats` or `num_prompts`"));
        }
        let is_measured = self.points.iter().flat_map(|point| &point.metrics).any(MetricComparison::is_known);
        match self.design {
            Design::RandomPairs if self.is_decided() => None,
            Design::RandomPairs => Some("too few valid pairs; measure more `repeats`".to_owned()),
            // Side by side is all that was asked for.
            Design::SavedResults if is_measured => None,
            Design::SavedResults => Some("no metric has a number on both sides".to_owned()),
        }
    }

    /// Whether every planned run of both sides was measured and is valid.
    pub fn is_whole(&self) -> bool {
        self.sides.iter().all(Side::is_whole)
    }

    /// The comparison in a format, ending in a line break.
    pub fn render(&self, format: TableFormat) -> String {
        table::render(self, format)
    }

    /// Writes `comparison.json` and `comparison.html` into a folder, which is made if it is missing.
    ///
    /// # Errors
    /// [`ComparisonError::Write`].
    pub fn write(&self, folder: &Path) -> Result<(), ComparisonError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ComparisonError::Write { path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        for (name, text) in
            [("comparison.json", table::render(self, TableFormat::Json)), ("comparison.html", page::html(self))]
        {
            let path = folder.join(name);
            atomic_file::replace(&path, Durability::Process, |file| file.write_all(text.as_bytes()))
                .map_err(failed(&path))?;
        }
        Ok(())
    }
}

impl PointComparison {
    /// Both sides as they were measured, not compared yet.
    fn of(a: &PointEntry, b: &PointEntry, question: &Question) -> PointComparison {
        PointComparison {
            name: a.identity.name.clone(),
            point_a: a.identity.point.clone(),
            point_b: b.identity.point.clone(),
            pairs: 0,
            pairs_left_out: 0,
            runs: [a.num_valid, b.num_valid],
            metrics: Vec::new(),
            slo: [a, b].map(|point| objectives(&question.slo, |metric| point.values.get(metric))),
        }
    }

    /// Each objective on both sides, and whether B misses it where A keeps it.
    fn objectives(&self) -> impl Iterator<Item = (&Objective, &Objective, bool)> {
        let both = self.slo[0].iter().zip(&self.slo[1]);
        both.map(|(a, b)| (a, b, a.met == Some(true) && b.met == Some(false)))
    }

    fn num_newly_missed(&self) -> usize {
        self.objectives().filter(|(.., is_newly_missed)| *is_newly_missed).count()
    }

    fn got_worse(&self) -> bool {
        self.num_newly_missed() > 0 || self.metrics.iter().any(MetricComparison::is_worse)
    }
}

impl MetricComparison {
    /// Both sides as they were measured, not compared yet.
    fn of(metric: Metric, a: &PointEntry, b: &PointEntry) -> MetricComparison {
        let (of_a, of_b) = (a.values.get(metric), b.values.get(metric));
        let errors = [a, b].map(|point| point.typical_error.get(metric));
        let is_known = of_a.is_some() && of_b.is_some();
        MetricComparison {
            metric: metric.name(),
            a: of_a,
            b: of_b,
            ratio: None,
            low: None,
            high: None,
            method: None,
            p: None,
            p_holm: None,
            p_fdr: None,
            detectable: None,
            instrument_error: errors[0].zip(errors[1]).map(|(of_a, of_b)| of_a.max(of_b)),
            largest_known_error: errors.into_iter().flatten().reduce(f64::max),
            decision: Decision::Insufficient,
            is_equivalent: false,
            note: (!is_known).then(|| "not measured, or too few samples".to_owned()),
        }
    }

    /// Whether both sides have a value that may be shown. Where a point has too few samples for a percentile, its runs have even
    /// fewer.
    fn is_known(&self) -> bool {
        self.a.is_some() && self.b.is_some()
    }

    /// Whether B is worse by more than the threshold, in spite of all the other tests.
    pub fn is_worse(&self) -> bool {
        let holds = self.p_holm.is_some_and(|p| p <= LEVEL);
        self.decision == Decision::Slower && !self.is_equivalent && holds
    }
}

/// The runs of a report by the label of their point.
fn runs_by_point<'r>(runs: impl IntoIterator<Item = &'r RunEntry>) -> HashMap<&'r str, Vec<&'r RunEntry>> {
    let mut by_point: HashMap<&str, Vec<&RunEntry>> = HashMap::new();
    for run in runs {
        by_point.entry(&run.identity.point).or_default().push(run);
    }
    by_point
}

fn metrics_of(question: &Question) -> Vec<Metric> {
    if question.metrics.is_empty() { Metric::COMPARED.to_vec() } else { question.metrics.clone() }
}
