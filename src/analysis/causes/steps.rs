//! The steps of a timeline by number, what those of a composition typically take, and what lies in a latency.

use std::collections::HashMap;

use crate::analysis::conditions::throttled_times;
use crate::analysis::metrics::{TAP_PUSH_HICCUP_NS, Window, elapsed_ns};
use crate::measurement::timeline::{Compilation, StepEvent, Timeline};

/// Prompt tokens and tokens in decode, each by its power of two.
type Composition = (u32, u32);

/// What can be looked up of a timeline's steps and circumstances.
pub(super) struct Steps<'a> {
    steps: &'a [StepEvent],
    /// By step number: one more than the place in `steps`; 0 for a number that no step has.
    places: Vec<u32>,
    typical_ns: HashMap<Composition, i64>,
    compilations: &'a [Compilation],
    /// Times in which the machine said that it was throttled.
    throttled: Vec<(u64, u64)>,
}

/// What lies in a latency: sums over the steps that ran in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub steps: u32,
    pub prefill_requests: u32,
    pub prefill_tokens: u64,
    /// Most of a step.
    pub decode_requests: u32,
    pub preemptions: u32,
    pub involuntary_switches: u32,
    /// Between the steps, and before the first of them.
    pub between_ns: i64,
    /// In taps and pushes long enough to count as a hiccup.
    pub tap_ns: i64,
    /// What steps of their composition typically take.
    pub typical_ns: i64,
}

impl<'a> Steps<'a> {
    /// Of a timeline; `None` where steps were not recorded.
    pub(super) fn of(timeline: &'a Timeline, window: Window) -> Option<Steps<'a>> {
        if timeline.steps.is_empty() {
            return None;
        }
        let steps = &timeline.steps;
        let mut places = vec![0; steps.len() + 1];
        for (place, step) in steps.iter().enumerate() {
            // A number beyond the count of records belongs to a broken timeline, of which the verdict speaks.
            if let Some(slot) = places.get_mut(step.step as usize) {
                *slot = place as u32 + 1;
            }
        }
        Some(Steps {
            steps,
            places,
            typical_ns: typical_ns(steps.iter().filter(|step| window.has(step))),
            compilations: timeline.run.compilations.as_deref().unwrap_or_default(),
            throttled: throttled_times(&timeline.telemetry),
        })
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.places.get(number as usize)?.checked_sub(1).map(|place| place as usize)
    }

    /// What lies in the steps after `from` up to `to`; `None` if one of the two is not known.
    pub(super) fn between(&self, from: u32, to: u32) -> Option<Account> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        Some(self.account(from + 1, to, self.steps[from].ended_ns))
    }

    /// What lies in the steps that ended after `from_ns`, up to the step `to`; `None` if that is not known.
    pub(super) fn since(&self, from_ns: u64, to: u32) -> Option<Account> {
        let to = self.place(to)?;
        let first = self.steps[..to].partition_point(|step| step.ended_ns <= from_ns);
        Some(self.account(first, to, from_ns))
    }

    fn account(&self, first: usize, last: usize, mut ended_ns: u64) -> Account {
        let mut all = Account::default();
        for step in self.steps.get(first..=last).unwrap_or_default() {
            all.steps += 1;
            all.prefill_requests = all.prefill_requests.saturating_add(step.prefill_requests);
            all.prefill_tokens += u64::from(step.prefill_tokens);
            all.decode_requests = all.decode_requests.max(step.decode_requests);
            all.preemptions = all.preemptions.saturating_add(step.preemptions);
            all.involuntary_switches = all.involuntary_switches.saturating_add(step.involuntary_switches);
            all.between_ns += elapsed_ns(ended_ns, step.started_ns).max(0);
            // A step whose tap was not reached has the largest number there.
            if step.tap_push_ns > TAP_PUSH_HICCUP_NS && step.tap_push_ns != u32::MAX {
                all.tap_ns += i64::from(step.tap_push_ns);
            }
            let took_ns = elapsed_ns(step.started_ns, step.ended_ns);
            all.typical_ns += self.typical_ns.get(&composition(step)).copied().unwrap_or(took_ns);
            ended_ns = step.ended_ns;
        }
        all
    }

    /// Whether a program became ready in a time.
    pub(super) fn compiled(&self, from_ns: u64, to_ns: u64) -> bool {
        self.compilations.iter().any(|compilation| (from_ns..=to_ns).contains(&compilation.ready_ns))
    }

    /// Whether the machine said that it was throttled at some instant of a time.
    pub(super) fn throttled(&self, from_ns: u64, to_ns: u64) -> bool {
        self.throttled.iter().any(|(began_ns, ended_ns)| *began_ns < to_ns && *ended_ns > from_ns)
    }
}

/// The median duration of the steps of each composition, of an even count the upper one: of two steps that differ, neither
/// says that the other is unusual. (Under async scheduling a step that follows a prefill hands out what ran beside it.)
fn typical_ns<'a>(steps: impl Iterator<Item = &'a StepEvent>) -> HashMap<Composition, i64> {
    let mut durations: HashMap<Composition, Vec<i64>> = HashMap::new();
    for step in steps {
        durations.entry(composition(step)).or_default().push(elapsed_ns(step.started_ns, step.ended_ns));
    }
    let median = |mut all: Vec<i64>| {
        let middle = all.len() / 2;
        *all.select_nth_unstable(middle).1
    };
    durations.into_iter().map(|(composition, all)| (composition, median(all))).collect()
}

fn composition(step: &StepEvent) -> Composition {
    let power = |tokens: u32| u32::BITS - tokens.leading_zeros();
    (power(step.prefill_tokens), power(step.decode_tokens))
}
