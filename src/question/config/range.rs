//! Ranges of whole numbers: `1..8`, `128..1024+128`, `1..64*2`.

/// What a range looks like, in messages.
pub(super) const RANGE_FORMS: &str = "a range such as 1..8, 128..1024+128 or 1..64*2";

/// `first..last`, with `+step` or `*factor`. Both ends belong to it; the last one only if the steps meet it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    Add(u64),
    Times(u64),
}

impl Range {
    /// Reads a range; `None` for anything else, and for one that goes down or stands still.
    pub(super) fn parse(text: &str) -> Option<Range> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            if is_plain { text.parse::<u64>().ok() } else { None }
        };
        let (first, rest) = text.trim().split_once("..")?;
        let (last, step) = match (rest.split_once('*'), rest.split_once('+')) {
            (Some((last, factor)), None) => (last, Step::Times(number(factor.trim())?)),
            (None, Some((last, step))) => (last, Step::Add(number(step.trim())?)),
            (None, None) => (rest, Step::Add(1)),
            _ => return None,
        };
        let range = Range { first: number(first.trim())?, last: number(last.trim())?, step };
        // Steps that stand still would never end.
        let moves = match step {
            Step::Add(step) => step >= 1,
            Step::Times(factor) => factor >= 2 && range.first >= 1,
        };
        (moves && range.first <= range.last).then_some(range)
    }

    /// Its values, ascending.
    pub(super) fn values(self) -> impl Iterator<Item = u64> {
        let next = move |value: &u64| match self.step {
            Step::Add(step) => value.checked_add(step),
            Step::Times(factor) => value.checked_mul(factor),
        };
        std::iter::successors(Some(self.first), next).take_while(move |value| *value <= self.last)
    }
}
