//! Seeds and orders, each from its own part of the plan's seed.
//!
//! A sub-seed is the SHA-256 of a text that says what it is for, so that drawing more of one thing never changes
//! another, and anyone can recompute it:
//!
//! - prompts of a point: `bench prompts SEED INPUT_LEN OUTPUT_LEN PREFIX_LEN NUM_PROMPTS`, the first 8 bytes as a
//!   little-endian number, shifted right by 11 so that it survives readers of JSON that know only doubles. Points
//!   that differ in anything but their lengths get the same prompts, so that prompts are no reason for a difference. Both
//!   members of a pair have the seed of the first; a new round has new prompts, see `session::prompts`.
//! - order of a round: `bench order SEED GROUP ROUND`, all 32 bytes as the seed of ChaCha8, which drives a
//!   Fisher-Yates shuffle. A group is an engine, in the order of their epochs, or the engines that pairs link.
//! - which member of a pair comes first in a round: `bench coin SEED PAIR ROUND`, the lowest bit of the first byte; B comes
//!   first if it is set.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// The seed of the prompts of points with these lengths, where the configuration gives none.
pub(crate) fn of_prompts(plan_seed: u64, input_len: u32, output_len: u32, prefix_len: u32, num_prompts: u32) -> u64 {
    let digest = digest(&format!("bench prompts {plan_seed} {input_len} {output_len} {prefix_len} {num_prompts}"));
    let first: [u8; 8] = std::array::from_fn(|index| digest[index]);
    u64::from_le_bytes(first) >> 11
}

/// Whether B comes first in round `round` of pair `pair`.
pub(crate) fn coin(plan_seed: u64, pair: u32, round: u32) -> bool {
    digest(&format!("bench coin {plan_seed} {pair} {round}"))[0] & 1 == 1
}

/// `indices` in the order of round `round` of group `group`.
pub(crate) fn shuffled(mut indices: Vec<usize>, plan_seed: u64, group: usize, round: u32) -> Vec<usize> {
    let mut random = ChaCha8Rng::from_seed(digest(&format!("bench order {plan_seed} {group} {round}")));
    for last in (1..indices.len()).rev() {
        indices.swap(last, below(&mut random, last as u64 + 1) as usize);
    }
    indices
}

/// A number below `bound`, each as likely as any other: draws that would favour the small ones are thrown away.
fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    let unfair_from = u64::MAX - u64::MAX % bound;
    loop {
        let drawn = random.next_u64();
        if drawn < unfair_from {
            return drawn % bound;
        }
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_that_depends_on_every_part_of_its_seed() {
        let order = |seed, group, round| shuffled((0..50).collect(), seed, group, round);
        let mut sorted = order(1, 0, 0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_eq!(order(1, 0, 0), order(1, 0, 0));
        for other in [order(2, 0, 0), order(1, 1, 0), order(1, 0, 1)] {
            assert_ne!(order(1, 0, 0), other);
        }
    }

    #[test]
    fn every_order_of_three_is_about_as_frequent() {
        let mut counts = std::collections::BTreeMap::new();
        for round in 0..6_000 {
            *counts.entry(shuffled(vec![0, 1, 2], 7, 0, round)).or_insert(0u32) += 1;
        }
        // Expected 1,000 each, standard deviation 29: five of them.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| count.abs_diff(1_000) < 145), "{counts:?}");
    }

    #[test]
    fn the_recipe_is_the_documented_one() {
        // Recomputed from the text above with another implementation of SHA-256 and ChaCha8: a recorded seed has to
        // mean the same prompts and orders in every version.
        assert_eq!(shuffled((0..10).collect(), 0, 0, 0), [5, 8, 6, 9, 1, 7, 3, 2, 0, 4]);
        assert_eq!(shuffled((0..10).collect(), 42, 1, 3), [2, 9, 7, 8, 3, 4, 0, 6, 5, 1]);
        assert_eq!(of_prompts(0, 512, 32, 0, 8), 3832129208759142);
        assert_eq!(
            (0..12).map(|round| u8::from(coin(0, 0, round))).collect::<Vec<_>>(),
            [1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1]
        );
    }

    #[test]
    fn coins_are_fair_and_independent_of_each_other() {
        let tossed = |pair| (0..1_000).map(move |round| coin(3, pair, round));
        // Expected 500, standard deviation 16: five of them.
        let agree = tossed(0).zip(tossed(1)).filter(|(one, other)| one == other).count();
        for count in [tossed(0).filter(|coin| *coin).count(), tossed(1).filter(|coin| *coin).count(), agree] {
            assert!(count.abs_diff(500) < 80, "{count}");
        }
    }
}
