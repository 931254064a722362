//! The order of runs within a group of engines: rounds, pairs, and sentinels between them.

use std::collections::{BTreeMap, VecDeque};

use super::{Arm, Point, seed};

/// Points that run directly one after the other: a single one, or the two of a pair. Indices into the group's points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// A, then B, in a pair.
    members: Vec<usize>,
    /// The pair's number in the plan.
    pair: Option<u32>,
    repeats: u32,
}

/// What runs next, of which nothing is split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) round: u32,
    /// Indices into the group's points.
    pub(crate) members: Vec<usize>,
}

/// The items of a group, in the order of its points.
pub(crate) fn items(points: &[(usize, Point)]) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut item_of_pair = BTreeMap::new();
    for (index, (_, point)) in points.iter().enumerate() {
        let Some(member) = &point.pair else {
            items.push(Item { members: vec![index], pair: None, repeats: point.repeats });
            continue;
        };
        let item = *item_of_pair.entry(member.pair).or_insert_with(|| {
            items.push(Item { members: Vec::new(), pair: Some(member.pair), repeats: point.repeats });
            items.len() - 1
        });
        match member.arm {
            Arm::A => items[item].members.insert(0, index),
            Arm::B => items[item].members.push(index),
        }
    }
    items
}

/// All rounds of a group whose points come with the index of their engine. Each round has an order of its own, and each pair
/// in it a coin of its own for which member comes first. Where there are several engines that do not `stay_loaded`, what can
/// run on the loaded one goes first: nothing else keeps the members of a pair together with fewer loads.
pub(crate) fn rounds(points: &[(usize, Point)], plan_seed: u64, group: usize, stay_loaded: bool) -> Vec<Slot> {
    let items = items(points);
    let rounds = items.iter().map(|item| item.repeats).max().unwrap_or(0);
    let mut slots = Vec::new();
    let mut loaded = None;
    for round in 0..rounds {
        let due = (0..items.len()).filter(|item| items[*item].repeats > round).collect();
        let order = seed::shuffled(due, plan_seed, group, round);
        let mut waiting = Waiting::default();
        for (place, item) in order.into_iter().enumerate() {
            waiting.add(place, in_order(&items[item], plan_seed, round), points);
        }
        while let Some(members) = waiting.next(loaded) {
            loaded = members.last().map(|member| points[*member].0).filter(|_| !stay_loaded);
            slots.push(Slot { round, members });
        }
    }
    slots
}

fn in_order(item: &Item, plan_seed: u64, round: u32) -> Vec<usize> {
    let mut members = item.members.clone();
    if item.pair.is_some_and(|pair| seed::coin(plan_seed, pair, round)) {
        members.reverse();
    }
    members
}

/// What a round has left to run, by the engine that it begins on, each list in the round's order.
#[derive(Default)]
struct Waiting {
    /// Begins and ends on the engine.
    staying: BTreeMap<usize, VecDeque<(usize, Vec<usize>)>>,
    /// Ends on another one.
    leaving: BTreeMap<usize, VecDeque<(usize, Vec<usize>)>>,
}

impl Waiting {
    fn add(&mut self, place: usize, members: Vec<usize>, points: &[(usize, Point)]) {
        let engine = |member: Option<&usize>| member.map(|member| points[*member].0);
        let (Some(first), last) = (engine(members.first()), engine(members.last())) else { return };
        let list = if last == Some(first) { &mut self.staying } else { &mut self.leaving };
        list.entry(first).or_default().push_back((place, members));
    }

    fn next(&mut self, loaded: Option<usize>) -> Option<Vec<usize>> {
        let of_loaded = loaded.and_then(|engine| {
            let first = |lists: &mut BTreeMap<_, VecDeque<(usize, Vec<usize>)>>| lists.get_mut(&engine)?.pop_front();
            first(&mut self.staying).or_else(|| first(&mut self.leaving))
        });
        if let Some((_, members)) = of_loaded {
            return Some(members);
        }
        let lists = self.staying.values_mut().chain(self.leaving.values_mut());
        let earliest = lists.filter(|list| !list.is_empty()).min_by_key(|list| list.front().map(|(place, _)| *place));
        earliest.and_then(VecDeque::pop_front).map(|(_, members)| members)
    }
}

/// Puts runs of `sentinel` before the first run, after every `every` runs, and after the last one; never between the members
/// of a pair. Gives their number.
pub(crate) fn add_sentinels(slots: &mut Vec<Slot>, sentinel: usize, every: u32) -> u32 {
    let mut with_sentinels = Vec::with_capacity(slots.len());
    let (mut count, mut since) = (0, every);
    let mut last_round = 0;
    for slot in std::mem::take(slots) {
        if since >= every {
            with_sentinels.push(Slot { round: slot.round, members: vec![sentinel] });
            (count, since) = (count + 1, 0);
        }
        since = since.saturating_add(slot.members.len() as u32);
        last_round = slot.round;
        with_sentinels.push(slot);
    }
    if count > 0 {
        with_sentinels.push(Slot { round: last_round, members: vec![sentinel] });
        count += 1;
    }
    *slots = with_sentinels;
    count
}
