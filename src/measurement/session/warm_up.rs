//! Warming up a new engine: short runs are thrown away until their steps take as long as in the one before.

use std::time::Instant;

use crate::measurement::timeline::{EngineFacts, StepEvent, WarmUp};
use crate::question::plan::{Load, Point, Role};

/// Runs that are thrown away at most.
const MAX_RUNS: u32 = 8;
/// Output tokens of such a run at most: the first steps of an engine are slow whatever their lengths.
const OUTPUT_TOKENS: u32 = 32;
/// Fewer steps than this say nothing of their spread.
const FEWEST_STEPS: usize = 5;
/// Width between the quartiles of a normal distribution, in standard deviations.
const QUARTILES_IN_DEVIATIONS: f64 = 1.349;

/// The run that is thrown away in place of one of `point`: one batch, and few tokens.
pub(super) fn short(point: &Point, facts: &EngineFacts) -> Point {
    let Load::Closed { concurrency } = point.load;
    let batch = [concurrency, point.limits.max_num_seqs, Some(facts.max_num_seqs)].into_iter().flatten();
    let num_prompts = batch.fold(point.num_prompts, u32::min).max(1);
    Point {
        num_prompts,
        num_prefixes: point.num_prefixes.min(num_prompts),
        output_len: point.output_len.min(OUTPUT_TOKENS),
        scripted_output_lens: None,
        warmup: 0,
        role: Role::Measured,
        ..point.clone()
    }
}

/// The runs so far, and whether another one is needed.
pub(super) struct Settling {
    began: Instant,
    runs: Vec<Option<StepTimes>>,
}

/// Median and spread of the steps of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct StepTimes {
    median_ns: u64,
    /// Standard deviation by the quartiles, as a share of the median.
    deviation: f64,
    enough: bool,
}

impl Settling {
    /// Before the first run.
    pub(super) fn begin() -> Settling {
        Settling { began: Instant::now(), runs: Vec::new() }
    }

    /// The repeat of the next run, a stream of prompts that no measured run has; `None` once the engine has settled, or at
    /// the bound. At least two runs, as one has nothing to agree with; two that cannot be compared are enough.
    pub(super) fn next(&self) -> Option<u32> {
        let done = self.runs.len() as u32;
        let is_over = done >= MAX_RUNS || (done >= 2 && self.settled() != Some(false));
        (!is_over).then(|| u32::MAX - done)
    }

    /// Adds a run.
    pub(super) fn add(&mut self, steps: &[StepEvent]) {
        self.runs.push(StepTimes::of(steps));
    }

    /// Whether the medians of the last two runs differ by no more than their own spread allows. Over whole runs a median
    /// varies about half as much as the single steps, so that their root of squares is twice what chance alone makes of the
    /// difference.
    fn settled(&self) -> Option<bool> {
        let [.., Some(one), Some(other)] = self.runs[..] else { return None };
        if !(one.enough && other.enough) {
            return None;
        }
        let apart = (other.median_ns as f64 / one.median_ns as f64).ln().abs();
        Some(apart <= one.deviation.hypot(other.deviation))
    }

    /// What the record of the engine's first run says of it.
    pub(super) fn finish(&self) -> WarmUp {
        WarmUp {
            runs: self.runs.len() as u32,
            settled: self.settled(),
            median_step_ns: self.runs.iter().map(|run| run.map(|times| times.median_ns)).collect(),
            took_s: self.began.elapsed().as_secs_f64(),
        }
    }
}

impl WarmUp {
    /// What to say of an engine that did not settle.
    pub(super) fn warning(&self) -> Option<String> {
        let [.., Some(one), Some(other)] = self.median_step_ns[..] else { return None };
        (self.settled == Some(false)).then(|| {
            format!(
                "the new engine had not settled after {} warm-up runs: the median step took {:.3} ms in the last but one and \
                 {:.3} ms in the last",
                self.runs,
                one as f64 / 1e6,
                other as f64 / 1e6
            )
        })
    }
}

impl StepTimes {
    /// Of the steps that decode and nothing else, or of all where those are too few. `None` without a step.
    fn of(steps: &[StepEvent]) -> Option<StepTimes> {
        let took = |step: &StepEvent| step.ended_ns.saturating_sub(step.started_ns);
        let decodes = steps.iter().filter(|step| step.decode_requests > 0 && step.prefill_tokens == 0);
        let mut times: Vec<u64> = decodes.map(took).collect();
        if times.len() < FEWEST_STEPS {
            times = steps.iter().map(took).collect();
        }
        times.sort_unstable();
        let quartile = |part: usize| times.get((times.len() * part).div_ceil(4).saturating_sub(1)).copied();
        let (low, median_ns, high) = (quartile(1)?, quartile(2)?, quartile(3)?);
        let deviation = (high - low) as f64 / QUARTILES_IN_DEVIATIONS / median_ns.max(1) as f64;
        Some(StepTimes { median_ns, deviation, enough: times.len() >= FEWEST_STEPS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decode steps of these lengths.
    fn steps(times_ns: &[u64]) -> Vec<StepEvent> {
        let step = |ns: &u64| StepEvent {
            started_ns: 1_000,
            ended_ns: 1_000 + ns,
            decode_requests: 1,
            ..bytemuck::Zeroable::zeroed()
        };
        times_ns.iter().map(step).collect()
    }

    /// Runs of 31 steps around these medians, 1 % apart from quartile to quartile.
    fn settle(medians_ns: &[u64]) -> WarmUp {
        let mut settling = Settling::begin();
        let mut medians = medians_ns.iter();
        while settling.next().is_some() {
            let median_ns = *medians.next().expect("another run than was meant");
            settling.add(&steps(
                &(0..31).map(|i| median_ns + median_ns / 100 * i / 15 - median_ns / 100).collect::<Vec<_>>(),
            ));
        }
        assert_eq!(medians.next(), None, "a run that was meant is missing");
        settling.finish()
    }

    #[test]
    fn an_engine_that_is_steady_takes_two_runs() {
        let warm_up = settle(&[5_000_000, 5_010_000]);
        assert_eq!((warm_up.runs, warm_up.settled, warm_up.warning()), (2, Some(true), None));
        assert_eq!(warm_up.median_step_ns, [Some(5_000_000), Some(5_010_000)]);
    }

    #[test]
    fn an_engine_that_gets_faster_takes_more() {
        let warm_up = settle(&[9_000_000, 6_000_000, 5_200_000, 5_210_000]);
        assert_eq!((warm_up.runs, warm_up.settled), (4, Some(true)));
    }

    #[test]
    fn an_engine_that_never_settles_ends_at_the_bound_with_a_warning() {
        let slower: Vec<u64> = (0..8).map(|run| 5_000_000 + run * 500_000).collect();
        let warm_up = settle(&slower);
        assert_eq!((warm_up.runs, warm_up.settled), (8, Some(false)));
        let warning = warm_up.warning().unwrap();
        assert!(
            warning.contains("8 warm-up runs") && warning.contains("8.000 ms") && warning.contains("8.500 ms"),
            "{warning}"
        );
    }

    #[test]
    fn what_wide_runs_differ_by_is_allowed_to_them() {
        let wide = |offset: u64| steps(&(0..31).map(|i| 5_000_000 + offset + i * 100_000).collect::<Vec<_>>());
        let mut settling = Settling::begin();
        settling.add(&wide(0));
        settling.add(&wide(400_000));
        assert_eq!(settling.settled(), Some(true));
        settling.add(&wide(3_000_000));
        assert_eq!(settling.settled(), Some(false));
    }

    #[test]
    fn too_few_steps_decide_nothing() {
        let mut settling = Settling::begin();
        settling.add(&steps(&[1_000]));
        settling.add(&steps(&[9_000]));
        let warm_up = settling.finish();
        assert_eq!((settling.next(), warm_up.settled, warm_up.warning()), (None, None, None));
        assert_eq!(warm_up.median_step_ns, [Some(1_000), Some(9_000)]);
    }
}
