//! One run in a report.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{CrossCheckEntry, HiccupsEntry, Identity, InstrumentErrors, Ruler};
use crate::analysis::causes::Causes;
use crate::analysis::conditions::WindowTelemetry;
use crate::analysis::metrics::{Metric, RunMetrics, Samples};
use crate::analysis::roofline::Roofline;
use crate::analysis::verdict::{Objective, Status, Verdict};
use crate::measurement::timeline::IMPORTED_ENGINE;
use crate::measurement::timeline::{Counters, EngineFacts, Speculation, Timeline, WarmUp};
use crate::question::plan::Point;
use crate::statistics::fewest_samples;
use crate::statistics::{Distribution, Percentile};

/// One run: identity, verdict and metrics. Null stands for what was not measured.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RunEntry {
    /// What was asked, and of what.
    #[serde(flatten)]
    pub identity: Identity,
    /// Which of the point's repeats, from 0; beyond the planned ones a run that was measured anew.
    pub repeat: u32,
    /// The repeat in whose place it was measured, because that one failed; null for a planned run.
    pub retry_of: Option<u32>,
    /// The round that it ran in, from 0.
    pub round: Option<u32>,
    /// Position in the order of execution, from 0.
    pub order: u32,
    /// The verdict.
    pub status: Status,
    /// Why it is not valid.
    pub reasons: Vec<String>,
    /// What makes it less trustworthy.
    pub warnings: Vec<String>,
    /// Objectives, and whether this run keeps them.
    pub slo: Vec<Objective>,
    /// When it began, for people only.
    pub began_at: Option<String>,
    /// Seconds that loading the engine took; 0 when it was reused.
    pub engine_load_s: Option<f64>,
    /// How the engine was warmed up right before this run; null where it was not.
    pub engine_warm_up: Option<WarmUp>,
    /// Seconds since the run before that were not spent stepping.
    pub turnaround_s: Option<f64>,
    /// Requests submitted in the measured window.
    pub num_prompts: u64,
    /// Requests that were to be measured.
    pub num_prompts_planned: u64,
    /// Requests of them that did not finish; null for a run that never began.
    pub num_failed: Option<u64>,
    /// All metrics by name.
    #[serde(flatten)]
    pub values: MetricValues,
    /// By how much the instrument can have moved each metric, in its unit; null where nothing is known of that.
    pub instrument_error: InstrumentErrors,
    /// received - emitted.
    pub transport_ns: Option<NsSpread>,
    /// submitted - scheduled.
    pub issue_delay_ns: Option<NsSpread>,
    /// received - the recorder's look before: how much earlier a token event may have become visible.
    pub poll_gap_ns: Option<NsSpread>,
    /// Times in which the instrument was held up, and the ITLs that they lie in; null without metrics.
    pub hiccups: Option<HiccupsEntry>,
    /// What the slowest ITLs and TTFTs come from.
    pub causes: Causes,
    /// The engine's own stamps against ours.
    pub cross_check: CrossCheckEntry,
    /// Tap and push inside the engine, by step.
    pub tap_push_ns: Option<NsSpread>,
    /// The same by batch size.
    pub tap_push_by_batch: Vec<BatchSpread>,
    /// What the machine said of itself in the measured window; null for a run that was not sampled.
    pub telemetry: Option<WindowTelemetry>,
    /// What the steps of the measured window needed, and what share of the device's limit they reached; null where the steps
    /// or the model are not known.
    pub roofline: Option<Roofline>,
    /// Engine steps in the measured window.
    pub steps: Option<u64>,
    /// Preemptions in them.
    pub preemptions: Option<u64>,
    /// What was drafted in the measured window; null for an engine without speculative decoding.
    pub speculation: Option<Speculation>,
    /// What the transport and the recorder counted.
    pub counters: Option<Counters>,
    /// Step of the wall clock over the run.
    pub clock_step_ns: Option<i64>,
    /// Whether the prefix cache was reset before the run.
    pub cache_reset: Option<bool>,
    /// What the engine said of itself; the same in memory for all runs that share it.
    #[serde(serialize_with = "shared")]
    pub engine_facts: Option<Arc<EngineFacts>>,
    /// The same metrics in the timeline's own units.
    #[serde(skip)]
    pub metrics: RunMetrics,
    /// What was asked, likewise.
    #[serde(skip)]
    pub asked: Arc<Point>,
}

/// Three numbers of a set of times, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NsSpread {
    /// Median.
    pub p50: i64,
    /// 99th percentile; null in a point whose runs have too few times for one.
    pub p99: Option<i64>,
    /// Largest.
    pub max: i64,
}

/// Time of tap and push in the steps of one batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BatchSpread {
    /// Requests in the batch.
    pub batch: u32,
    /// Steps of that size.
    pub steps: u64,
    /// Median.
    pub p50_ns: i64,
    /// 99th percentile.
    pub p99_ns: i64,
    /// Largest.
    pub max_ns: i64,
}

/// Values of metrics in the order of a report; serialized as a map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricValues(pub Vec<(Metric, Option<f64>)>);

impl MetricValues {
    /// All metrics of a run.
    pub fn of(metrics: &RunMetrics) -> MetricValues {
        MetricValues(Metric::all().map(|metric| (metric, metric.value(metrics))).collect())
    }

    /// One of them.
    pub fn get(&self, wanted: Metric) -> Option<f64> {
        self.0.iter().find(|(metric, _)| *metric == wanted).and_then(|(_, value)| *value)
    }
}

impl Serialize for MetricValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (metric, value) in &self.0 {
            map.serialize_entry(&metric.name(), value)?;
        }
        map.end()
    }
}

/// Whether so many samples have a percentile that may be shown to a reader.
pub(super) fn has_percentile(percentile: Percentile, samples: u64) -> bool {
    samples >= fewest_samples(percentile.quantile())
}

impl NsSpread {
    /// Of a distribution in nanoseconds, of one run: a description of what happened.
    pub fn of<T: Copy + Into<i64>>(times: &Option<Distribution<T>>) -> Option<NsSpread> {
        times.as_ref().map(|times| NsSpread {
            p50: times.p50.into(),
            p99: Some(times.p99.into()),
            max: times.max.into(),
        })
    }

    /// Of a distribution over the runs of a point, which has a 99th percentile where there are samples enough.
    pub(super) fn of_point<T: Copy + Into<i64>>(times: &Option<Distribution<T>>) -> Option<NsSpread> {
        let spread = NsSpread::of(times)?;
        let has_p99 = times.as_ref().is_some_and(|times| has_percentile(Percentile::P99, times.count));
        Some(NsSpread { p99: spread.p99.filter(|_| has_p99), ..spread })
    }
}

impl BatchSpread {
    /// Of all batch sizes of a run.
    pub fn of(metrics: &RunMetrics) -> Vec<BatchSpread> {
        let by_batch = metrics.tap_push_by_batch.iter();
        by_batch
            .map(|(batch, times)| BatchSpread {
                batch: *batch,
                steps: times.count,
                p50_ns: times.p50,
                p99_ns: times.p99,
                max_ns: times.max,
            })
            .collect()
    }
}

/// Serializes what is shared as if it were not.
fn shared<T: Serialize, S: Serializer>(value: &Option<Arc<T>>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_deref().serialize(serializer)
}

impl RunEntry {
    /// Takes over from another run what both have in common.
    pub(super) fn share_with(&mut self, other: &RunEntry) {
        if self.engine_facts == other.engine_facts {
            self.engine_facts = other.engine_facts.clone();
        }
        if self.asked == other.asked {
            self.asked = Arc::clone(&other.asked);
        }
    }

    /// The metrics and the verdict of a timeline. A run that ended early has no metrics: part of a run is not the run.
    pub fn of(timeline: &Timeline, ruler: Ruler<'_>) -> RunEntry {
        RunEntry::of_samples(timeline, &Samples::of(timeline), ruler)
    }

    /// The same of a timeline whose samples were taken already.
    pub fn of_samples(timeline: &Timeline, samples: &Samples, ruler: Ruler<'_>) -> RunEntry {
        let run = &timeline.run;
        let (totals, window) = (samples.totals, samples.window);
        let whole = RunMetrics::of(std::slice::from_ref(samples));
        let verdict = Verdict::of(timeline, &whole);
        let counts = matches!(verdict.status, Status::Valid | Status::Invalid);
        let metrics = if counts { whole } else { RunMetrics::of(&[]) };
        let asked = run.engine != IMPORTED_ENGINE;
        let values = MetricValues::of(&metrics);
        let window = window.filter(|_| counts);
        let telemetry = window.and_then(|window| WindowTelemetry::of(timeline, window, totals.output_tokens));
        let roofline = window.and_then(|window| Roofline::of(timeline, window, ruler.cpu_peaks));
        let throttled = telemetry.as_ref().map(WindowTelemetry::warnings).unwrap_or_default();
        RunEntry {
            identity: Identity::of(run),
            repeat: run.repeat,
            retry_of: run.retry_of,
            round: asked.then_some(run.round),
            order: run.order,
            status: verdict.status,
            reasons: verdict.reasons,
            warnings: [verdict.warnings, throttled].concat(),
            slo: Objective::of_run(&run.point.slo, &metrics),
            began_at: asked.then(|| run.began_at.clone()),
            engine_load_s: asked.then_some(run.engine_load_s),
            engine_warm_up: run.engine_warm_up.clone(),
            turnaround_s: run.turnaround_s,
            num_prompts: totals.requests,
            num_prompts_planned: run.point.num_prompts.into(),
            num_failed: (verdict.status != Status::Skipped).then_some(totals.failed),
            instrument_error: InstrumentErrors::of(ruler.budget, &run.point, &values, &[&metrics]),
            values,
            transport_ns: NsSpread::of(&metrics.transport_ns),
            issue_delay_ns: NsSpread::of(&metrics.issue_delay_ns),
            poll_gap_ns: NsSpread::of(&metrics.poll_gap_ns),
            hiccups: HiccupsEntry::of(&metrics, metrics.itl_ns.is_some()),
            causes: if counts { Causes::of(timeline, samples) } else { Causes::default() },
            cross_check: CrossCheckEntry::of(&metrics.cross_check),
            tap_push_ns: NsSpread::of(&metrics.tap_push_ns),
            tap_push_by_batch: BatchSpread::of(&metrics),
            telemetry,
            roofline,
            steps: metrics.totals.steps,
            preemptions: metrics.totals.preemptions,
            speculation: run.speculation.filter(|_| counts),
            counters: asked.then_some(run.counters),
            clock_step_ns: run.clock_step_ns,
            cache_reset: run.cache_reset,
            engine_facts: run.engine_facts.clone().map(Arc::new),
            metrics,
            asked: Arc::new(run.point.clone()),
        }
    }
}
