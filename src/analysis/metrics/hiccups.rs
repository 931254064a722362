//! Hiccups: times in which the recorder's core or the engine's loop was held up, and the ITLs that they lie in.

use super::request::{Gap, elapsed_ns};
use crate::measurement::timeline::{Hiccup, StepEvent, Timeline};

/// A tap and push that takes longer is a hiccup: several times what it takes at a batch of 128.
pub const TAP_PUSH_HICCUP_NS: u32 = 50_000;

/// So is a longer time between two engine steps while requests are running. What the sidecar does between two steps,
/// the submits included, takes a few microseconds.
pub const STEP_GAP_HICCUP_NS: u64 = 200_000;

/// Number and length of hiccups of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interruptions {
    /// How many there were.
    pub count: u64,
    /// Their lengths together.
    pub total_ns: u64,
    /// The longest; `None` without any.
    pub max_ns: Option<u64>,
}

/// Hiccups of the engine's loop, by what shows them. A step may have several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineHiccups {
    /// Tap and push of a step took over [`TAP_PUSH_HICCUP_NS`].
    pub tap_pushes: Interruptions,
    /// Between two steps passed over [`STEP_GAP_HICCUP_NS`] while requests were running.
    pub step_gaps: Interruptions,
    /// Steps in which the kernel took the engine's thread off its core; for how long is not known.
    pub switched_steps: u64,
}

/// Which hiccups lie in an ITL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiccupMark {
    /// Of the recorder's core.
    Recorder,
    /// Of the engine's loop.
    Engine,
    /// Of both.
    Both,
}

/// Finds the hiccups of a timeline that lie in its ITLs.
pub struct HiccupMarks<'a> {
    recorder: &'a [Hiccup],
    /// How many of them began before the end of the ITL that was looked up last; the next one ends near it.
    begun: usize,
    /// By step number: how many steps before it have a hiccup of the engine.
    engine_before: Vec<u32>,
}

/// Which of ascending ITLs have a hiccup in them, a bit each: there may be ten million of them, and most may have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkBits(Vec<u64>);

impl Interruptions {
    /// Of these lengths.
    pub fn of(lengths_ns: impl IntoIterator<Item = u64>) -> Interruptions {
        let mut all = Interruptions::default();
        lengths_ns.into_iter().for_each(|length_ns| all.add(length_ns));
        all
    }

    /// Of both together.
    pub fn plus(self, other: Interruptions) -> Interruptions {
        Interruptions {
            count: self.count + other.count,
            total_ns: self.total_ns.saturating_add(other.total_ns),
            max_ns: self.max_ns.max(other.max_ns),
        }
    }

    fn add(&mut self, length_ns: u64) {
        *self = self.plus(Interruptions { count: 1, total_ns: length_ns, max_ns: Some(length_ns) });
    }
}

impl EngineHiccups {
    /// Of both together.
    pub fn plus(self, other: EngineHiccups) -> EngineHiccups {
        EngineHiccups {
            tap_pushes: self.tap_pushes.plus(other.tap_pushes),
            step_gaps: self.step_gaps.plus(other.step_gaps),
            switched_steps: self.switched_steps + other.switched_steps,
        }
    }

    /// How many there were, of all kinds.
    pub fn count(&self) -> u64 {
        self.tap_pushes.count + self.step_gaps.count + self.switched_steps
    }

    /// Those whose length is known.
    pub fn timed(&self) -> Interruptions {
        self.tap_pushes.plus(self.step_gaps)
    }

    /// Takes in one step, and the time between the step before it and this one.
    pub(super) fn add(&mut self, before: Option<&StepEvent>, step: &StepEvent) {
        // A step whose tap was not reached has the largest number there.
        if step.tap_push_ns > TAP_PUSH_HICCUP_NS && step.tap_push_ns != u32::MAX {
            self.tap_pushes.add(step.tap_push_ns.into());
        }
        if let Some(before) = before.filter(|before| before.running > 0) {
            let gap_ns = step.started_ns.saturating_sub(before.ended_ns);
            if gap_ns > STEP_GAP_HICCUP_NS {
                self.step_gaps.add(gap_ns);
            }
        }
        self.switched_steps += u64::from(step.involuntary_switches > 0);
    }
}

impl HiccupMark {
    /// The name in `events.csv`.
    pub fn as_str(self) -> &'static str {
        match self {
            HiccupMark::Recorder => "recorder",
            HiccupMark::Engine => "engine",
            HiccupMark::Both => "both",
        }
    }
}

impl MarkBits {
    /// The mark of the `index`-th ITL; those before it come first.
    pub(super) fn push(&mut self, index: usize, is_marked: bool) {
        if index.is_multiple_of(64) {
            self.0.push(0);
        }
        if let Some(word) = self.0.last_mut() {
            *word |= u64::from(is_marked) << (index % 64);
        }
    }

    fn is_marked(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| (word >> (index % 64)) & 1 == 1)
    }

    /// Sorts ITLs, and gives their marks in the new order.
    pub(super) fn sorted_with(&self, itls: &mut [i64]) -> MarkBits {
        let mut bits = MarkBits::default();
        if itls.iter().any(|itl| (*itl << 1) >> 1 != *itl) {
            // A bit short, which no real run is: 146 years.
            let mut marked: Vec<(i64, bool)> =
                itls.iter().enumerate().map(|(index, itl)| (*itl, self.is_marked(index))).collect();
            marked.sort_unstable();
            for (index, (itl, is_marked)) in marked.into_iter().enumerate() {
                itls[index] = itl;
                bits.push(index, is_marked);
            }
            return bits;
        }
        // With the mark in the lowest bit, so that both are sorted together and without memory of their own.
        for (index, itl) in itls.iter_mut().enumerate() {
            *itl = (*itl << 1) | i64::from(self.is_marked(index));
        }
        itls.sort_unstable();
        for (index, itl) in itls.iter_mut().enumerate() {
            bits.push(index, *itl & 1 == 1);
            *itl >>= 1;
        }
        bits
    }

    /// How many ITLs are marked from one of them on.
    pub fn count_from(&self, first: usize) -> u64 {
        let words = self.0.get(first / 64..).unwrap_or_default();
        let before = words.first().map_or(0, |word| word & ((1 << (first % 64)) - 1));
        words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>() - u64::from(before.count_ones())
    }
}

impl<'a> HiccupMarks<'a> {
    /// Of a timeline.
    pub fn of(timeline: &'a Timeline) -> HiccupMarks<'a> {
        HiccupMarks { recorder: &timeline.hiccups, begun: 0, engine_before: engine_before(&timeline.steps) }
    }

    /// The hiccups in an ITL; `None` without any. Quick if the ITLs come about in the order in which they end.
    pub fn mark(&mut self, gap: &Gap) -> Option<HiccupMark> {
        match (self.recorder_had_one(gap), self.engine_had_one(gap)) {
            (false, false) => None,
            (true, false) => Some(HiccupMark::Recorder),
            (false, true) => Some(HiccupMark::Engine),
            (true, true) => Some(HiccupMark::Both),
        }
    }

    fn recorder_had_one(&mut self, gap: &Gap) -> bool {
        while self.recorder.get(self.begun).is_some_and(|hiccup| hiccup.began_ns < gap.to_ns) {
            self.begun += 1;
        }
        while self.begun > 0 && self.recorder[self.begun - 1].began_ns >= gap.to_ns {
            self.begun -= 1;
        }
        // They do not overlap each other, so that of those that began in time the last one ends last.
        self.begun > 0 && self.recorder[self.begun - 1].ended_ns > gap.from_ns
    }

    fn engine_had_one(&self, gap: &Gap) -> bool {
        let through = |step: u32| self.engine_before.get(step as usize + 1);
        matches!((through(gap.from_step), through(gap.to_step)), (Some(from), Some(to)) if to > from)
    }
}

fn engine_before(steps: &[StepEvent]) -> Vec<u32> {
    let mut counts = vec![0; steps.len() + 1];
    let mut before = None;
    for step in steps {
        let mut found = EngineHiccups::default();
        found.add(before, step);
        // A number beyond the count of records belongs to a broken timeline, of which the verdict speaks.
        if let Some(count) = counts.get_mut(step.step as usize + 1) {
            *count = u32::from(found.count() > 0);
        }
        before = Some(step);
    }
    let mut so_far = 0;
    for count in &mut counts {
        so_far += *count;
        *count = so_far;
    }
    counts
}

/// Hiccups of the recorder's core that lie in a window, or partly; `None` if it sleeps, or if there were more of them than
/// room and those in the window are not all there.
pub(super) fn recorder_hiccups(timeline: &Timeline, first_submit_ns: u64, last_token_ns: u64) -> Option<Interruptions> {
    let (count, kept) = (timeline.run.recorder_hiccups?, &timeline.hiccups);
    let all_kept = count <= kept.len() as u64;
    if !all_kept && kept.last().is_none_or(|last| last.ended_ns < last_token_ns) {
        return None;
    }
    let inside = kept.iter().filter(|hiccup| hiccup.began_ns < last_token_ns && hiccup.ended_ns > first_submit_ns);
    Some(Interruptions::of(inside.map(|hiccup| elapsed_ns(hiccup.began_ns, hiccup.ended_ns).max(0) as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_follow_their_itls_as_these_are_sorted() {
        // Descending, negative ones too; every third is marked, so that the bits fill three words.
        let mut itls: Vec<i64> = (0..150).map(|n| 100 - n).collect();
        let mut marks = MarkBits::default();
        (0..150).for_each(|index| marks.push(index, index % 3 == 0));
        let marks = marks.sorted_with(&mut itls);
        assert_eq!(itls, (-49..=100).collect::<Vec<i64>>());
        for first in 0..=150 {
            let expected = itls[first..].iter().filter(|itl| (100 - **itl) % 3 == 0).count() as u64;
            assert_eq!(marks.count_from(first), expected, "from {first}");
        }
        assert_eq!(MarkBits::default().count_from(7), 0);
    }

    #[test]
    fn itls_of_all_64_bits_stay_as_they_are() {
        let mut itls = [i64::MAX, 5, i64::MIN, 1 << 62];
        let mut marks = MarkBits::default();
        itls.iter().enumerate().for_each(|(index, itl)| marks.push(index, *itl < 0 || *itl == 1 << 62));
        let marks = marks.sorted_with(&mut itls);
        assert_eq!(itls, [i64::MIN, 5, 1 << 62, i64::MAX]);
        assert_eq!([0, 1, 2, 3].map(|index| marks.is_marked(index)), [true, false, true, false]);
    }
}
