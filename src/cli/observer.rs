//! Who watches a sweep: shows what happens, keeps the results and how long they took.

use super::interrupts::UserInterrupts;
use super::screen::Screen;
use crate::analysis::metrics::{Metric, Statistic};
use crate::machine::device::StolenTime;
use crate::measurement::recorder::LiveTotals;
use crate::measurement::ring::clock_ns;
use crate::measurement::session::{Interrupts, Progress, SweepObserver};
use crate::measurement::timeline::{Outcome, Timeline};
use crate::presentation::report::MetricValues;
use crate::presentation::report::{Results, converged};
use crate::question::plan::{EngineKey, LoadTimes, Point, RunTimes};

/// Runs of a point whose times are kept for the next estimate.
const MOST_TIMES: usize = 100;

/// Shows what happens and keeps the results.
pub(super) struct Observer<'a> {
    pub(super) screen: &'a mut Screen,
    pub(super) interrupts: UserInterrupts,
    pub(super) results: Results,
    pub(super) host_warnings: Vec<String>,
    pub(super) cores: usize,
    pub(super) stolen: StolenTime,
    pub(super) began_ns: u64,
    pub(super) times: Vec<MeasuredTime>,
}

impl Progress for Observer<'_> {
    fn tick(&mut self, totals: &LiveTotals) {
        self.screen.tick(totals);
    }
}

impl Interrupts for Observer<'_> {
    /// The first interrupt is noted, and the run goes on to its end; the second one counts at once.
    async fn leave_now(&mut self) {
        while self.interrupts.seen() < 2 {
            self.interrupts.next().await;
            if self.interrupts.seen() == 1 {
                self.screen.say("interrupted: finishing this run, then leaving; once more to leave now");
            }
        }
    }

    async fn leave(&mut self) {
        if self.interrupts.seen() == 0 {
            self.interrupts.next().await;
        }
    }
}

impl SweepObserver for Observer<'_> {
    fn waiting_for(&mut self, what: &str) {
        self.screen.wait_for(what);
    }

    fn remark(&mut self, what: &str) {
        self.screen.say(what);
    }

    fn run_begins(&mut self, point: &Point, repeat: u32, number: u32, total: u32) {
        self.stolen = StolenTime::read();
        self.began_ns = clock_ns();
        self.screen.begin_run(point, repeat, number, total);
    }

    fn run_ends(&mut self, mut timeline: Timeline) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let run_s = clock_ns().saturating_sub(self.began_ns) as f64 / 1e9;
        if timeline.run.outcome == Outcome::Completed {
            let stolen = StolenTime::read().warning_since(self.stolen, run_s, self.cores);
            timeline.run.warnings.extend(self.host_warnings.iter().cloned().chain(stolen));
        }
        let entry = self.results.add(&timeline)?;
        let of_point = self.times.iter().filter(|time| time.point.point == entry.identity.point).count();
        if entry.status == crate::analysis::verdict::Status::Valid && of_point < MOST_TIMES {
            self.times.push(MeasuredTime::of(&timeline, &entry.values, run_s));
        }
        let point = entry.asked.clone();
        self.screen.end_run(entry);
        if let Some(known) = converged(&point, &self.results.report().runs) {
            let (runs, percent) = (known.runs, known.half_width * 100.0);
            self.screen.say(&format!("{}: known to ±{percent:.2} % after {runs} runs", point.point));
        }
        Ok(())
    }

    fn is_known(&self, point: &Point) -> bool {
        converged(point, &self.results.report().runs).is_some()
    }

    fn leave_after_run(&self) -> bool {
        self.interrupts.seen() > 0
    }
}

/// How long a valid run took and what it gave, for the next estimate.
pub(super) struct MeasuredTime {
    pub(super) key: EngineKey,
    point: Point,
    /// Of the first run on its engine.
    pub(super) load: Option<LoadTimes>,
    run_s: f64,
    prefill: (u64, u64),
    decode: (u64, u64),
    values: Vec<(String, f64)>,
}

impl MeasuredTime {
    fn of(timeline: &Timeline, values: &MetricValues, run_s: f64) -> MeasuredTime {
        let (mut prefill, mut decode) = ((0, 0), (0, 0));
        for step in &timeline.steps {
            let took_ns = step.ended_ns - step.started_ns;
            if step.prefill_tokens > 0 {
                prefill = (prefill.0 + took_ns, prefill.1 + u64::from(step.prefill_tokens));
            } else {
                decode = (decode.0 + took_ns, decode.1 + 1);
            }
        }
        let run = &timeline.run;
        let (key, point) = (run.engine_key.clone(), run.point.clone());
        let warm_up_s = run.engine_warm_up.as_ref().map(|warm_up| warm_up.took_s);
        let load = (run.engine_load_s > 0.0).then_some(LoadTimes { load_s: run.engine_load_s, warm_up_s });
        // A run has too few samples for the percentiles that a comparison would show.
        let is_mean = |metric: &&Metric| !matches!(metric, Metric::Of(_, Statistic::Percentile(_)));
        let compared = Metric::COMPARED.iter().filter(is_mean);
        let values = compared.filter_map(|metric| Some((metric.name(), values.get(*metric)?))).collect();
        MeasuredTime { key, point, load, run_s, prefill, decode, values }
    }

    pub(super) fn run_times(&self) -> RunTimes<'_> {
        RunTimes {
            point: &self.point,
            run_s: self.run_s,
            prefill_s: self.prefill.0 as f64 / 1e9,
            prefill_tokens: self.prefill.1,
            decode_s: self.decode.0 as f64 / 1e9,
            decode_steps: self.decode.1,
            values: &self.values,
        }
    }
}
