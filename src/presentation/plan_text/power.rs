//! What the comparisons of a plan will be able to find.

use super::counted;
use crate::question::plan::{COMPARED_METRICS, Estimate, Plan, Point};
use crate::statistics::{FEWEST_PAIRS, PLANNED_POWER, Spread, can_hold, found_from, pairs_against};

/// The change that a comparison is mostly asked for.
const ASKED: f64 = 0.01;

/// Nothing for a plan that compares nothing.
pub(super) fn of_pairs(plan: &Plan, estimate: &Estimate) -> Vec<String> {
    let points = plan.epochs.iter().flat_map(|epoch| &epoch.points);
    let repeats = points.filter(|point: &&Point| point.pair.is_some()).map(|point| point.repeats as usize).min();
    let Some(pairs) = repeats else { return Vec::new() };
    let Some(spreads) = found_from(pairs) else {
        let few = counted(pairs, "pair");
        let needed = format!("a comparison takes {FEWEST_PAIRS}, and 7 for a test that one wild pair cannot move");
        return vec![format!("With {few} nothing is decided: {needed}")];
    };
    let compared = plan.epochs.iter().flat_map(|epoch| &epoch.points).filter(|point| point.pair.is_some()).count() / 2;
    let tests = compared * COMPARED_METRICS;
    let mut lines = Vec::new();
    if !can_hold(pairs, tests) {
        lines.push(format!(
            "{pairs} pairs of each of {} cannot show that anything got worse, however much: Holm's correction over up to {tests} tests takes \
             --repeats {}",
            counted(compared, "point"),
            pairs_against(tests)
        ));
    }
    let share = PLANNED_POWER * 100.0;
    let Some(known) = &estimate.pair_spreads else {
        lines.push(format!(
            "{pairs} pairs find a change of {spreads:.2} times the spread of a pair's ratio in {share} % of the cases or more: 1 % where \
             that spread is at most {:.2} %; not known for these points on this machine",
            ASKED.ln_1p() / spreads * 100.0
        ));
        return lines;
    };
    let found = |of_pairs: &[Spread]| {
        let found = of_pairs.iter().filter_map(|spread| spread.found_from(pairs));
        found.fold(0.0, f64::max)
    };
    let metrics: Vec<String> =
        known.iter().map(|(metric, of_pairs)| format!("{metric} {:.2} %", found(of_pairs) * 100.0)).collect();
    let for_asked: Option<Vec<usize>> = known.values().flatten().map(|spread| spread.pairs_for(ASKED)).collect();
    let for_asked = match for_asked.and_then(|pairs| pairs.into_iter().max()) {
        Some(needed) if needed <= pairs => "1 % is found in all of them".to_owned(),
        Some(needed) => format!("1 % in all of them takes --repeats {needed}"),
        None => "1 % in all of them takes more than 1,000 pairs".to_owned(),
    };
    lines.push(format!(
        "{pairs} pairs find these changes in {share} % of the cases or more, each for itself and where the instrument can see it, \
         going by how the points spread when they were measured here: {}; {for_asked}",
        metrics.join(", ")
    ));
    lines
}
