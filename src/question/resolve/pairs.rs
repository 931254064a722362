//! Points that are compared with each other: those of an entry that differ in one axis alone.

use std::collections::BTreeMap;

use super::{CrossedAxis, Resolver};
use crate::question::config::{Entry, Given, quoted};
use crate::question::plan::class::value_of;
use crate::question::plan::{Arm, PairMember, Point};

/// Most engine loads that the pairs of an entry may ask for.
pub const MAX_PAIR_LOADS: u64 = 10_000;

/// The pairs of an entry while its axes are crossed.
pub(super) struct Pairs {
    axis: usize,
    compared: Given<&'static str>,
    /// The points so far by what they have in common, and the members in the order of the axis.
    members: BTreeMap<Vec<usize>, [Option<usize>; 2]>,
}

impl Resolver<'_> {
    /// The pairs that the entry's matrix asks for. `None` if it asks for none, or after a problem.
    pub(super) fn pairs(&mut self, entry: &Entry, axes: &[CrossedAxis<'_>]) -> Option<Pairs> {
        let compared = entry.matrix.compare.clone()?;
        let name = compared.value;
        let Some(axis) = axes.iter().position(|axis| axis.keys.contains(&name)) else {
            let message = format!(
                "`compare` names `{name}`, which is no axis of the entry {}; give it two values in `matrix`",
                quoted(&entry.name.value)
            );
            self.problem(compared.place, message);
            return None;
        };
        let (given, keys) = (axes[axis].values.len(), &axes[axis].keys);
        if given != 2 {
            let message = format!("`compare` takes an axis of two values, and `{name}` has {given}");
            self.problem(compared.place, message);
            return None;
        }
        if let Some(unequal) = keys.iter().find(|key| ["repeats", "seed"].contains(key)) {
            let message = format!(
                "`{name}` is linked with `{unequal}`, which is the same on both sides of a comparison; take it out of `linked`"
            );
            self.problem(compared.place, message);
            return None;
        }
        Some(Pairs { axis, compared, members: BTreeMap::new() })
    }

    /// Makes pairs of the points that were noted: a number, a side, and one seed for both.
    pub(super) fn pair_up(&mut self, entry: &Entry, pairs: Pairs, points: &mut [(usize, Point)]) {
        let (name, place) = (pairs.compared.value, pairs.compared.place);
        let mut loads = 0;
        // In the order of the points.
        let ordered: BTreeMap<_, _> =
            pairs.members.into_values().map(|members| (members.into_iter().flatten().min(), members)).collect();
        for members in ordered.into_values() {
            let [Some(a), Some(b)] = members else {
                let left = members.into_iter().flatten().next().map_or("", |index| &points[index].1.name);
                if self.problems.is_empty() {
                    let message = format!(
                        "`exclude` takes one of a pair that `compare: {name}` asks for, and leaves the other, in the entry \
                         {}; exclude both or neither",
                        quoted(left)
                    );
                    self.problem(place, message);
                }
                return;
            };
            let pair = self.num_pairs;
            self.num_pairs += 1;
            points[b].1.seed = points[a].1.seed;
            let [one, other] = [a, b].map(|index| &self.keys[points[index].0]);
            if one.device == other.device && one != other {
                loads += 2 * u64::from(points[a].1.repeats);
            }
            for (index, arm) in [(a, Arm::A), (b, Arm::B)] {
                let (key, point) = &mut points[index];
                let value = value_of(name, &self.keys[*key], point).unwrap_or_default();
                point.pair = Some(PairMember { pair, arm, axis: name.to_owned(), value });
            }
        }
        if loads > MAX_PAIR_LOADS {
            let message = format!(
                "comparing `{name}` takes an engine load between the members of each pair: up to {loads} loads in the entry \
                 {}; at most {MAX_PAIR_LOADS} are planned, so lower `repeats` or compare fewer points",
                quoted(&entry.name.value)
            );
            self.problem(place, message);
        }
    }
}

impl Pairs {
    /// Notes the point `index`, made of these values of the axes.
    pub(super) fn add(&mut self, digits: &[usize], index: usize) {
        let mut common = digits.to_vec();
        let side = std::mem::take(&mut common[self.axis]);
        self.members.entry(common).or_default()[side] = Some(index);
    }
}
