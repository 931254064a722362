//! Arranges points into epochs and rounds, and says what each reload is for.

use std::collections::BTreeMap;

use super::class::difference;
use super::order::{self, Slot};
use super::{Arm, Drive, EngineKey, Epoch, Load, Point, Role, Sentinel, WholeSweep};

/// Runs of an epoch from which on it has sentinels without being asked.
pub(crate) const LONG_EPOCH: usize = 40;

/// Runs between two sentinels of such an epoch, as a part of its runs: that makes eleven of them, enough for a test that
/// sees more than the crudest drift.
const AUTO_PARTS: usize = 10;

/// One load for each of `keys`, and of the orders with so few, the one in which what costs most changes least: no order needs
/// fewer, unless a pair has members on two engines of one device class. Engines that pairs link form a group, in which epochs
/// alternate; with `interleave_devices` so do the first engines of all device classes, the second ones, and so on. Each point
/// comes with the index of its key.
pub(crate) fn arrange(
    keys: Vec<EngineKey>,
    points: Vec<(usize, Point)>,
    plan_seed: u64,
    whole_sweep: WholeSweep,
) -> Vec<Epoch> {
    let side_by_side = if whole_sweep.interleave_devices { nth_of_each_device(&keys) } else { Vec::new() };
    let groups = groups(keys.len(), &points, &side_by_side);
    let mut of_group: BTreeMap<usize, Vec<(usize, Point)>> = BTreeMap::new();
    for (key, point) in points {
        of_group.entry(groups[key]).or_default().push((key, point));
    }
    let mut epochs: Vec<Epoch> = Vec::new();
    let mut num_groups = 0;
    for key in cheapest_order(&keys) {
        // The rest of a group comes with its first engine.
        let Some(points) = of_group.remove(&groups[key]) else { continue };
        let slots = order::rounds(&points, plan_seed, num_groups, stay_loaded(&keys, &points));
        num_groups += 1;
        if points.iter().all(|(other, _)| *other == key) {
            single(&keys[key], points, slots, whole_sweep, &mut epochs);
        } else {
            alternating(&keys, &points, &slots, &mut epochs);
        }
    }
    epochs
}

/// The keys that come first among those of their device class, those that come second, and so on.
fn nth_of_each_device(keys: &[EngineKey]) -> Vec<Vec<usize>> {
    let mut num_of_device = BTreeMap::new();
    let mut nth: Vec<Vec<usize>> = Vec::new();
    for key in cheapest_order(keys) {
        let before = num_of_device.entry(keys[key].device).or_insert(0);
        nth.resize(nth.len().max(*before + 1), Vec::new());
        nth[*before].push(key);
        *before += 1;
    }
    nth
}

/// Whether the engines of these points are of device classes of their own, so that all of them can stay loaded.
fn stay_loaded(keys: &[EngineKey], points: &[(usize, Point)]) -> bool {
    let mut key_of_device = BTreeMap::new();
    points.iter().all(|(key, _)| *key_of_device.entry(keys[*key].device).or_insert(*key) == *key)
}

/// For each key, the smallest one of its group: of those that pairs or `side_by_side` link with it, directly or through
/// others.
fn groups(num_keys: usize, points: &[(usize, Point)], side_by_side: &[Vec<usize>]) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..num_keys).collect();
    fn root(parent: &mut [usize], mut key: usize) -> usize {
        while parent[key] != key {
            parent[key] = parent[parent[key]];
            key = parent[key];
        }
        key
    }
    let mut link = |one: usize, other: usize| {
        let (one, other) = (root(&mut parent, one), root(&mut parent, other));
        parent[one.max(other)] = one.min(other);
    };
    let mut key_of_a = BTreeMap::new();
    for (key, point) in points {
        let Some(member) = &point.pair else { continue };
        match member.arm {
            Arm::A => drop(key_of_a.insert(member.pair, *key)),
            Arm::B => {
                if let Some(other) = key_of_a.get(&member.pair) {
                    link(*key, *other);
                }
            }
        }
    }
    side_by_side.iter().flat_map(|keys| keys.windows(2)).for_each(|keys| link(keys[0], keys[1]));
    (0..num_keys).map(|key| root(&mut parent, key)).collect()
}

/// Appends the epoch of one engine, with what is asked between and after its runs.
fn single(
    key: &EngineKey,
    mut points: Vec<(usize, Point)>,
    mut slots: Vec<Slot>,
    whole_sweep: WholeSweep,
    epochs: &mut Vec<Epoch>,
) {
    let Some(lightest) = points.iter().map(|(_, point)| point).min_by_key(|point| point.tokens()).cloned() else {
        return;
    };
    let of_key = points[0].0;
    let runs = slots.iter().map(|slot| slot.members.len()).sum();
    if let Some(every) = distance(whole_sweep.sentinel, points.len(), runs) {
        let sentinel = points.len();
        let repeats = order::add_sentinels(&mut slots, sentinel, every);
        points.push((of_key, Point { repeats, ..in_role(&lightest, Role::Sentinel) }));
    }
    if whole_sweep.check_reset {
        let round = slots.last().map_or(0, |slot| slot.round);
        slots.push(Slot { round, members: vec![points.len()] });
        points.push((of_key, in_role(&lightest, Role::AfterReset)));
    }
    let reason = epochs.last().map_or_else(|| "first load".to_owned(), |before| difference(&before.key, key));
    let runs: Vec<(u32, usize)> = flat(&slots).collect();
    epochs.push(epoch(key, reason, &points, &runs));
    if whole_sweep.check_reset {
        let reason = "a fresh engine of the same settings, to compare the state after a reset with".to_owned();
        let fresh = in_role(&lightest, Role::FreshEngine);
        epochs.push(Epoch { key: key.clone(), reason, points: vec![fresh], first_round: 0, rounds: vec![vec![0]] });
    }
}

/// Appends an epoch for every change of the engine between `slots` and in them.
fn alternating(keys: &[EngineKey], points: &[(usize, Point)], slots: &[Slot], epochs: &mut Vec<Epoch>) {
    let runs: Vec<(u32, usize)> = flat(slots).collect();
    for runs in runs.chunk_by(|one, next| points[one.1].0 == points[next.1].0) {
        let key = &keys[points[runs[0].1].0];
        let before = epochs.iter().rev().find(|before| before.key.device == key.device);
        let reason = match (before, epochs.last()) {
            (Some(before), _) if before.key == *key => "still loaded".to_owned(),
            (_, Some(last)) => difference(&last.key, key),
            (_, None) => "first load".to_owned(),
        };
        epochs.push(epoch(key, reason, points, runs));
    }
}

fn flat(slots: &[Slot]) -> impl Iterator<Item = (u32, usize)> + '_ {
    slots.iter().flat_map(|slot| slot.members.iter().map(|member| (slot.round, *member)))
}

/// The epoch of these runs, each a round and the index of its point.
fn epoch(key: &EngineKey, reason: String, points: &[(usize, Point)], runs: &[(u32, usize)]) -> Epoch {
    let mut used: Vec<usize> = runs.iter().map(|(_, point)| *point).collect();
    used.sort_unstable();
    used.dedup();
    let mut place = vec![0; used.last().map_or(0, |last| last + 1)];
    for (index, point) in used.iter().enumerate() {
        place[*point] = index;
    }
    let by_round = runs.chunk_by(|one, next| one.0 == next.0);
    Epoch {
        key: key.clone(),
        reason,
        points: used.iter().map(|point| points[*point].1.clone()).collect(),
        first_round: runs.first().map_or(0, |(round, _)| *round),
        rounds: by_round.map(|runs| runs.iter().map(|(_, point)| place[*point]).collect()).collect(),
    }
}

/// Runs between two sentinels of an epoch with so many points and runs; `None` for no sentinels. A single point is its own
/// sentinel.
fn distance(sentinel: Sentinel, points: usize, runs: usize) -> Option<u32> {
    match sentinel {
        Sentinel::None => None,
        Sentinel::Every(every) => Some(every),
        Sentinel::Auto => (points > 1 && runs >= LONG_EPOCH).then(|| runs.div_ceil(AUTO_PARTS) as u32),
    }
}

/// The same work for another purpose, with a label of its own. A comparison of engines is stepped by the harness and has all
/// requests at once, so that how requests and steps meet in time decides nothing.
fn in_role(point: &Point, role: Role) -> Point {
    let (prefix, drive, load) = match role {
        Role::Measured => ("", point.drive, point.load),
        Role::Sentinel => ("sentinel-", point.drive, point.load),
        Role::AfterReset => ("after-reset-", Drive::Stepped, Load::Closed { concurrency: None }),
        Role::FreshEngine => ("fresh-engine-", Drive::Stepped, Load::Closed { concurrency: None }),
    };
    Point {
        point: format!("{prefix}{}", point.point),
        role,
        drive,
        load,
        repeats: 1,
        until_ci: None,
        slo: BTreeMap::new(),
        pair: None,
        ..point.clone()
    }
}

/// The indexes of `keys`, grouped by what costs most to change: another device is another sidecar, another model is read
/// from the disk, other ranks are other processes; the rest is a load. Within a group, values keep the order in which they
/// first stand.
fn cheapest_order(keys: &[EngineKey]) -> Vec<usize> {
    let ranks = [
        first_seen(keys, |key| key.device),
        first_seen(keys, |key| &key.model),
        first_seen(keys, |key| key.tensor_parallel_size),
        first_seen(keys, |key| key.quantization),
        first_seen(keys, |key| &key.engine_args),
    ];
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|index| (ranks.each_ref().map(|ranks| ranks[*index]), *index));
    order
}

/// For each key, as the how manieth its value of one setting first stands.
fn first_seen<'k, T: Ord>(keys: &'k [EngineKey], value: impl Fn(&'k EngineKey) -> T) -> Vec<usize> {
    let mut seen = BTreeMap::new();
    keys.iter()
        .map(|key| {
            let next = seen.len();
            *seen.entry(value(key)).or_insert(next)
        })
        .collect()
}
