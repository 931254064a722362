//! One point in a report: the metrics over its valid runs, each with its interval.

use std::collections::BTreeMap;

use serde::Serialize;

use super::convergence::{WATCHED, is_watched};
use super::entry::MetricValues;
use super::units::number;
use super::{BatchSpread, CrossCheckEntry, HiccupsEntry, Identity, InstrumentErrors, NsSpread, Ruler, RunEntry};
use crate::analysis::causes::Causes;
use crate::analysis::metrics::{Fraction, Metric, RunMetrics, Samples, Series, Statistic, Total, pooled};
use crate::analysis::verdict::{Objective, Status, objectives};
use crate::measurement::timeline::Weights;
use crate::presentation::plot::{CdfPoint, cdf};
use crate::statistics::Percentile;
use crate::statistics::Sample;
use crate::statistics::{Convergence, FEW_RUNS, Interval, WoodruffProblem, drift, over_runs, warm_cut, woodruff};

/// Evenly spaced points of a curve; the tail has more.
const CURVE_POINTS: usize = 128;

/// From as many times of the point's value on, or as small a part of it, a run is named as far off.
const FAR_OFF: f64 = 2.0;

/// From as many times the rate of the mean time on, a mean of rates is made by few requests.
const MADE_BY_BURSTS: f64 = 2.0;

/// One point over its valid runs: percentiles over all their samples; of means and rates the value over runs that
/// [`over_runs`] gives, so that each stands inside its own interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PointEntry {
    /// What was asked, and of what.
    #[serde(flatten)]
    pub identity: Identity,
    /// Runs so far, whatever became of them.
    pub num_runs: u64,
    /// Runs that the numbers below are made of.
    pub num_valid: u64,
    /// Runs by what became of the others.
    pub num_invalid: u64,
    /// Runs that ended early.
    pub num_failed_runs: u64,
    /// Runs that never began.
    pub num_skipped: u64,
    /// Planned runs that there is nothing of; not among `num_runs`.
    pub num_missing: u64,
    /// Stored runs that cannot be read; not among `num_runs`.
    pub num_damaged: u64,
    /// Why the valid runs are not put together: their engines differ. Among the warnings, too.
    #[serde(skip)]
    pub different_engines: Option<String>,
    /// What makes the numbers less trustworthy.
    pub warnings: Vec<String>,
    /// Objectives, and whether the point keeps them.
    pub slo: Vec<Objective>,
    /// Requests submitted in the measured windows.
    pub num_prompts: u64,
    /// All metrics by name.
    #[serde(flatten)]
    pub values: MetricValues,
    /// The 95 % interval of each metric; null where there is none.
    pub intervals: BTreeMap<String, Option<EntryInterval>>,
    /// What has to be said of a metric or its interval.
    pub notes: BTreeMap<String, Note>,
    /// By how much the instrument can have moved each metric, in its unit; null where nothing is known of that.
    pub instrument_error: InstrumentErrors,
    /// What it typically moves them by, for comparisons.
    #[serde(skip)]
    pub typical_error: InstrumentErrors,
    /// received - emitted.
    pub transport_ns: Option<NsSpread>,
    /// submitted - scheduled.
    pub issue_delay_ns: Option<NsSpread>,
    /// received - the recorder's look before: how much earlier a token event may have become visible.
    pub poll_gap_ns: Option<NsSpread>,
    /// Times in which the instrument was held up, and the ITLs that they lie in; null without a valid run.
    pub hiccups: Option<HiccupsEntry>,
    /// What the slowest ITLs and TTFTs of the valid runs come from.
    pub causes: Causes,
    /// The engine's own stamps against ours.
    pub cross_check: CrossCheckEntry,
    /// Tap and push inside the engine, by step.
    pub tap_push_ns: Option<NsSpread>,
    /// The same by batch size.
    pub tap_push_by_batch: Vec<BatchSpread>,
    /// Engine steps in the measured windows.
    pub steps: Option<u64>,
    /// Preemptions in them.
    pub preemptions: Option<u64>,
    /// Where its runs were not steady from their begin on, after the ramp-up of a closed load; null where nothing is steady
    /// by design, the runs are too short or too few, or the rule finds nothing.
    pub warm_cut: Option<WarmCutEntry>,
    /// What the loaded engine was found to hold, by the first run that knows; null if none does.
    pub weights: Option<Weights>,
    /// Cumulative distributions, for the charts.
    #[serde(skip)]
    pub curves: Curves,
}

/// Cumulative distributions over the valid runs of a point, thinned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// Of the TTFT.
    pub ttft: Vec<CdfPoint>,
    /// Of the ITL.
    pub itl: Vec<CdfPoint>,
}

/// The begin of the runs against the rest, by their E2E in the order of submission: gated MSER-5. Nothing is cut.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WarmCutEntry {
    /// Requests after the ramp-up that differ from those behind them.
    pub requests: u64,
    /// Mean E2E of the former over that of the latter, less 1.
    pub change: f64,
    /// Whether that is above 1 % and above what varies from run to run, at 99 %.
    pub accepted: bool,
}

impl WarmCutEntry {
    fn of(samples: &[Samples]) -> Option<WarmCutEntry> {
        let series = |run: &Samples| run.steady_e2e_ns.iter().map(|e2e_ns| *e2e_ns as f64).collect();
        let found = warm_cut(&samples.iter().map(series).collect::<Vec<Vec<f64>>>())?;
        let (requests, change) = (found.candidate as u64, found.effect.exp_m1());
        Some(WarmCutEntry { requests, change, accepted: found.is_accepted() })
    }

    fn warning(&self) -> Option<String> {
        self.accepted.then(|| {
            format!(
                "not steady from the begin: after the ramp-up the mean E2E of the first {} requests is {:+.1} % of that of the \
                 rest; raise `warmup` or `num_prompts`",
                self.requests,
                self.change * 100.0
            )
        })
    }
}

/// An interval in a report; an open end is null.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EntryInterval {
    /// Lower end, in the metric's unit.
    pub low: Option<f64>,
    /// Upper end, in the metric's unit.
    pub high: Option<f64>,
}

/// What has to be said of a metric or of its interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Note(pub String);

impl Note {
    fn few_runs() -> Note {
        Note("few runs".to_owned())
    }

    fn one_run() -> Note {
        Note("one run: no interval".to_owned())
    }
}

/// How the note of a metric begins that `until_ci` was asked of in vain.
const NOT_CONVERGED: &str = "not converged";

/// What the note of a mean has that few requests make.
pub(super) const MEAN_OF_RATES: &str = "a mean of rates,";

/// What the note of a metric has that is not known of all runs.
pub(super) const NO_SUCH_NUMBER: &str = "without this number";

/// A value over runs with its interval and note, while a point is put together.
#[derive(Default)]
struct Finding {
    /// The value over runs; `None`: that of all samples together stands.
    value: Option<f64>,
    interval: Option<Interval>,
    note: Option<Note>,
    /// Whether the value itself must not be shown.
    withheld: bool,
}

impl Finding {
    /// No number, for a reason.
    fn withheld(reason: String) -> Finding {
        Finding { note: Some(Note(reason)), withheld: true, ..Finding::default() }
    }
}

impl PointEntry {
    /// A point of its runs in the order of execution, of which there is at least one, and the samples of the valid ones
    /// among them.
    pub fn of(runs: &[&RunEntry], samples: &[Samples], ruler: Ruler<'_>) -> PointEntry {
        let mut valid: Vec<&RunEntry> = runs.iter().copied().filter(|run| run.status == Status::Valid).collect();
        let warned = warnings(&valid);
        let different_engines = different_engines(&valid);
        // They have no numbers in common.
        let samples = if different_engines.is_some() { &samples[..0] } else { samples };
        valid.retain(|_| different_engines.is_none());
        let metrics = RunMetrics::of(samples);
        let mut values = MetricValues::of(&metrics);
        let mut intervals = BTreeMap::new();
        let mut notes = BTreeMap::new();
        for (metric, value) in &mut values.0 {
            let finding =
                if value.is_some() { finding(*metric, &valid, samples, ruler.tick_s) } else { Finding::default() };
            *value = if finding.withheld { None } else { finding.value.or(*value) };
            let interval = finding.interval.map(|interval| EntryInterval { low: interval.low, high: interval.high });
            intervals.insert(metric.name(), interval);
            notes.extend(finding.note.map(|note| (metric.name(), note)));
        }
        notes.extend(made_by_bursts(&values, samples, &notes));
        let (asked, of_runs) = (&runs[0].asked, valid.iter().map(|run| &run.metrics).collect::<Vec<_>>());
        let instrument_error = InstrumentErrors::of(ruler.budget, asked, &values, &of_runs);
        let itl_p99 = Metric::Of(Series::Itl, Statistic::Percentile(Percentile::P99));
        let hiccups = HiccupsEntry::of(&metrics, values.get(itl_p99).is_some());
        let warm_cut = WarmCutEntry::of(samples);
        let mut identity = runs[0].identity.clone();
        identity.epoch = identity.epoch.filter(|epoch| runs.iter().all(|run| run.identity.epoch == Some(*epoch)));
        let with_status = |status| runs.iter().filter(|run| run.status == status).count() as u64;
        PointEntry {
            identity,
            num_runs: runs.len() as u64,
            num_valid: with_status(Status::Valid),
            num_invalid: with_status(Status::Invalid),
            num_failed_runs: with_status(Status::Failed),
            num_skipped: with_status(Status::Skipped),
            num_missing: 0,
            num_damaged: 0,
            different_engines: different_engines.clone(),
            warnings: different_engines
                .into_iter()
                .chain(warned)
                .chain(far_off(&valid, &values))
                .chain(warm_cut.and_then(|found| found.warning()))
                .chain(not_converged(&notes))
                .collect(),
            slo: objectives(&runs[0].asked.slo, |metric| values.get(metric)),
            num_prompts: metrics.totals.requests,
            typical_error: instrument_error.typical(ruler.budget, asked, &values, &of_runs),
            instrument_error,
            values,
            intervals,
            notes,
            transport_ns: NsSpread::of_point(&metrics.transport_ns),
            issue_delay_ns: NsSpread::of_point(&metrics.issue_delay_ns),
            poll_gap_ns: NsSpread::of_point(&metrics.poll_gap_ns),
            hiccups,
            causes: Causes::of_runs(valid.iter().map(|run| &run.causes)),
            cross_check: CrossCheckEntry::of(&metrics.cross_check),
            tap_push_ns: NsSpread::of_point(&metrics.tap_push_ns),
            tap_push_by_batch: BatchSpread::of(&metrics),
            steps: metrics.totals.steps,
            preemptions: metrics.totals.preemptions,
            warm_cut,
            weights: runs.iter().find_map(|run| run.engine_facts.as_ref()?.weights.clone()),
            curves: Curves {
                ttft: cdf(&pooled(samples, |run| run.ttft_ns.as_slice()), CURVE_POINTS),
                itl: cdf(&pooled(samples, |run| run.itl_ns.as_slice()), CURVE_POINTS),
            },
        }
    }
}

impl PointEntry {
    /// The objectives that the point has no value for: neither kept nor missed.
    pub(super) fn unjudged_objectives(&self) -> impl Iterator<Item = &Objective> {
        self.slo.iter().filter(|objective| objective.met.is_none())
    }

    /// Why an objective cannot be judged.
    pub(super) fn unjudged_because(&self, objective: &Objective) -> &str {
        let note = self.notes.get(&objective.metric).map(|note| note.0.as_str());
        match (self.num_valid, &self.different_engines) {
            (0, _) => "no run is valid",
            (_, Some(_)) => "its runs have different engines",
            _ => note.unwrap_or("it was not measured"),
        }
    }
}

fn finding(metric: Metric, valid: &[&RunEntry], samples: &[Samples], tick_s: f64) -> Finding {
    match metric {
        // The sum of the windows and the design's share do not vary by chance.
        Metric::Total(Total::Elapsed | Total::PrefixHitRateExpected) => Finding::default(),
        Metric::Of(series, Statistic::Percentile(percentile)) => of_percentile(series, percentile, samples),
        Metric::Of(..) | Metric::Total(_) => of_runs(metric, valid, tick_s),
    }
}

/// Value and interval of a mean or a rate, from one value per run.
fn of_runs(metric: Metric, valid: &[&RunEntry], tick_s: f64) -> Finding {
    let values: Vec<f64> = valid.iter().filter_map(|run| run.values.get(metric)).collect();
    let (known, all) = (values.len(), valid.len());
    if known < all {
        let missing = all - known;
        return Finding::withheld(format!("{missing} of {all} valid runs {NO_SUCH_NUMBER}: {}", absence(metric)));
    }
    let half_tick = 0.5 * tick_s * tick_scale(metric, valid, &values);
    let Some(found) = over_runs(&values, half_tick) else {
        return Finding { note: Some(Note("0 or less in a run: no interval".to_owned())), ..Finding::default() };
    };
    let target = valid.first().and_then(|run| run.asked.until_ci);
    let (interval, note) = match target.zip(Convergence::of(&values, half_tick)) {
        Some((target, so_far)) => (Some(so_far.interval.with(found.value)), missed(metric, &so_far, target)),
        None => (found.interval, few_runs(values.len())),
    };
    Finding { value: Some(found.value), interval, note, withheld: false }
}

/// Why a valid run can be without a metric.
fn absence(metric: Metric) -> &'static str {
    match metric {
        Metric::Total(Total::PrefixHitRateMeasured | Total::PrefixHitRateExpected) => "the engine did not count",
        Metric::Total(_) => "a window without length has no rate",
        Metric::Of(Series::Tpot, _) => "tokens that all come at one instant have no rate",
        Metric::Of(..) => "it was not measured",
    }
}

/// What is to be said of a mean or a rate for which runs were added, and which is not known as well as asked.
fn missed(metric: Metric, found: &Convergence, target: f64) -> Option<Note> {
    let is_missed = is_watched(metric) && !found.is_reached(target);
    is_missed.then(|| {
        let (percent, runs) = (found.half_width * 100.0, found.runs);
        Note(match found.drifts {
            true => format!("{NOT_CONVERGED}: ±{percent:.2} % after {runs} runs, which drift"),
            false => {
                let needed = found.runs_needed(target);
                format!("{NOT_CONVERGED}: ±{percent:.2} % after {runs} runs, it takes about {needed}")
            }
        })
    })
}

/// How far a tick of the clock moves a metric, per second of the tick.
fn tick_scale(metric: Metric, valid: &[&RunEntry], values: &[f64]) -> f64 {
    let elapsed_s = valid.first().and_then(|run| run.values.get(Metric::Total(Total::Elapsed)));
    match metric {
        Metric::Total(Total::PrefixHitRateMeasured | Total::PrefixHitRateExpected) => 0.0,
        metric if metric.higher_is_better() => values.first().zip(elapsed_s).map_or(0.0, |(rate, s)| rate / s),
        _ => 1.0,
    }
}

/// Interval of a percentile, from all samples with the runs as clusters.
fn of_percentile(series: Series, percentile: Percentile, samples: &[Samples]) -> Finding {
    let q = percentile.quantile();
    let units_per_s = series.units_per_s();
    match series {
        Series::TimePerOutputToken => {
            clustered(samples, |run| run.time_per_output_token_ns.as_slice(), q, |time| time / units_per_s)
        }
        // A high percentile of the times is a low rate: the interval of the times, turned over.
        Series::Tpot => {
            let mut finding = clustered(samples, Samples::with_rate, q, |time| 1.0 / (time / units_per_s));
            finding.interval = finding.interval.map(|times| Interval { low: times.high, high: times.low });
            finding
        }
        _ => clustered(samples, |run| run.times(series), q, |time| time / units_per_s),
    }
}

fn clustered<'a, T: Sample + 'a>(
    samples: &'a [Samples],
    pick: impl Fn(&'a Samples) -> &'a [T],
    q: f64,
    show: impl Fn(f64) -> f64,
) -> Finding {
    let runs: Vec<&[T]> = samples.iter().map(&pick).collect();
    match woodruff(&runs, &pooled(samples, pick), q) {
        Ok(found) => Finding {
            interval: Some(Interval { low: found.interval.low.map(&show), high: found.interval.high.map(&show) }),
            note: few_runs(runs.len()),
            ..Finding::default()
        },
        Err(WoodruffProblem::OneRun) => Finding { note: Some(Note::one_run()), ..Finding::default() },
        Err(WoodruffProblem::TooFewSamples { samples, needed }) => {
            Finding::withheld(format!("too few samples: {samples} of the {needed} that it takes"))
        }
    }
}

fn few_runs(runs: usize) -> Option<Note> {
    match runs {
        0 | 1 => Some(Note::one_run()),
        runs if runs < FEW_RUNS => Some(Note::few_runs()),
        _ => None,
    }
}

/// What is not known as well as was asked.
fn not_converged(notes: &BTreeMap<String, Note>) -> impl Iterator<Item = String> + '_ {
    let is_one = |(_, note): &(&String, &Note)| note.0.starts_with(NOT_CONVERGED);
    notes.iter().filter(is_one).map(|(metric, note)| format!("`{metric}`: {}", note.0))
}

/// Why runs of one point are not put together: their engines are not the same. The net below the fingerprint of a sweep, which
/// a file outside of it may escape.
fn different_engines(valid: &[&RunEntry]) -> Option<String> {
    let (first, facts) = valid.iter().find_map(|run| Some((run, run.engine_facts.as_ref()?)))?;
    valid.iter().find_map(|run| {
        let differences = facts.differences(run.engine_facts.as_ref()?);
        (!differences.is_empty()).then(|| {
            format!(
                "different engines, not pooled: repeats {} and {} differ in {}",
                first.repeat,
                run.repeat,
                differences.join(", ")
            )
        })
    })
}

/// Runs that are far from the point's value in a watched metric: the value does not move with them, and a reader has to know.
fn far_off(valid: &[&RunEntry], values: &MetricValues) -> Vec<String> {
    let of_run = |run: &&RunEntry| {
        let metric = WATCHED.into_iter().find(|metric| {
            let factor = run.values.get(*metric).zip(values.get(*metric)).map_or(1.0, |(of_run, value)| of_run / value);
            factor > 0.0 && !(1.0 / FAR_OFF..=FAR_OFF).contains(&factor)
        })?;
        let factor = number(Some(run.values.get(metric)? / values.get(metric)?));
        Some(format!("repeat {}: `{}` is {factor} times the point's value", run.repeat, metric.name()))
    };
    valid.iter().filter_map(of_run).collect()
}

/// The note of a mean of rates that few requests make, beside what is said of it already.
fn made_by_bursts(
    values: &MetricValues,
    samples: &[Samples],
    notes: &BTreeMap<String, Note>,
) -> Option<(String, Note)> {
    let metric = Metric::Of(Series::Tpot, Statistic::Average);
    let times_ns = pooled(samples, Samples::with_rate);
    let mean_ns = Fraction::mean(&times_ns);
    let factor = values.get(metric)? * mean_ns / 1e9;
    if factor <= MADE_BY_BURSTS {
        return None;
    }
    let bursts = times_ns.partition_point(|time| time.as_f64() * MADE_BY_BURSTS < mean_ns);
    let said = format!(
        "{MEAN_OF_RATES} {} times the rate of the mean time per token: {bursts} of {} requests, whose tokens came in bursts, \
         make it",
        number(Some(factor)),
        times_ns.len()
    );
    let before = notes.get(&metric.name()).map_or_else(String::new, |note| format!("{}; ", note.0));
    Some((metric.name(), Note(before + &said)))
}

/// What a warning of a busy machine says before its numbers; `None` of any other warning.
fn busy_thread(warning: &str) -> Option<&str> {
    warning
        .starts_with("busy machine: ")
        .then(|| warning.split_once(" for its core for ").map_or(warning, |(thread, _)| thread))
}

/// Warnings of the runs, each once, and drift over their order.
fn warnings(valid: &[&RunEntry]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for warning in valid.iter().flat_map(|run| &run.warnings) {
        // The waits of each run stand in its own warnings: here one run stands for all.
        let is_said =
            |said: &String| said == warning || busy_thread(said).is_some_and(|it| Some(it) == busy_thread(warning));
        if !all.iter().any(is_said) {
            all.push(warning.clone());
        }
    }
    for metric in WATCHED {
        let values: Vec<f64> = valid.iter().filter_map(|run| run.values.get(metric)).collect();
        if let Some(found) = drift(&values).filter(|found| found.flagged) {
            all.push(format!("`{}` drifts over the order of the runs (z = {:.2})", metric.name(), found.z));
        }
    }
    all
}
