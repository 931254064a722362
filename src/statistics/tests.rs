//! Against vectors that were computed with another implementation.

use serde_json::Value;

use super::*;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/data/statistics_vectors.json")).unwrap()
}

/// Those of one function; a function without any would make its test pass for nothing.
fn vectors_of(function: &str) -> Vec<Value> {
    let all = vectors()["vectors"].as_array().unwrap().clone();
    let found: Vec<Value> = all.into_iter().filter(|vector| vector["fn"] == function).collect();
    assert!(!found.is_empty(), "no vector for {function}");
    found
}

fn assert_close(got: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() <= 1e-9 * expected.abs(), "{what}: {got}, expected {expected}");
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn t_quantiles() {
    let mut compared = 0;
    for (probability, by_degrees) in vectors()["t_quantiles"].as_object().unwrap() {
        for (degrees, expected) in by_degrees.as_object().unwrap() {
            let got = student_t_quantile(probability.parse().unwrap(), degrees.parse().unwrap());
            let expected = expected.as_f64().unwrap();
            assert!((got / expected - 1.0).abs() < 1e-10, "t({probability}, {degrees}) = {got}, expected {expected}");
            compared += 1;
        }
    }
    assert!(compared >= 45);
}

#[test]
fn log_t() {
    for vector in vectors_of("log_t") {
        let (id, expected) = (vector["id"].as_str().unwrap(), &vector["expect"]);
        let values = numbers(&vector["input"]["vals"]);
        let got = log_interval(&values, 0.5).unwrap();
        assert_close(got.estimate, &expected["est"], id);
        match got.interval {
            None => assert!(expected["lo"].is_null() && values.len() == 1),
            Some(interval) => {
                assert_close(interval.low.unwrap(), &expected["lo"], id);
                assert_close(interval.high.unwrap(), &expected["hi"], id);
                assert_close(got.sd_log.unwrap(), &expected["sd_log"], id);
            }
        }
        assert_eq!(expected["status"] == "few-runs", (2..FEW_RUNS).contains(&values.len()), "{id}");
    }
}

#[test]
fn equal_runs_are_known_to_half_a_tick() {
    let got = log_interval(&[7.0; 5], 0.25).unwrap();
    assert_eq!(got.interval, Some(Interval { low: Some(6.75), high: Some(7.25) }));
    assert_eq!(log_interval(&[7.0, 0.0], 0.25), None);
    assert_eq!(log_interval(&[], 0.25), None);
}

#[test]
fn woodruff_over_runs() {
    for vector in vectors_of("woodruff") {
        let (id, expected) = (vector["id"].as_str().unwrap(), &vector["expect"]);
        let mut runs: Vec<Vec<i64>> = Vec::new();
        for run in vector["input"]["runs"].as_array().unwrap() {
            let mut samples: Vec<i64> = numbers(run).into_iter().map(|sample| sample as i64).collect();
            samples.sort_unstable();
            runs.push(samples);
        }
        let mut pooled: Vec<i64> = runs.concat();
        pooled.sort_unstable();
        let slices: Vec<&[i64]> = runs.iter().map(Vec::as_slice).collect();
        match woodruff(&slices, &pooled, vector["input"]["q"].as_f64().unwrap()) {
            Err(problem) => {
                let needed = expected["need"].as_u64().unwrap();
                assert_eq!(problem, WoodruffProblem::TooFewSamples { samples: pooled.len() as u64, needed });
                assert_eq!(expected["status"], "too-few-samples");
            }
            Ok(got) => {
                assert_close(got.estimate, &expected["est"], id);
                assert_close(got.standard_error, &expected["se"], id);
                assert_close(got.half_width, &expected["h"], id);
                assert_close(got.interval.low.unwrap(), &expected["lo"], id);
                assert_close(got.interval.high.unwrap(), &expected["hi"], id);
                assert_eq!(serde_json::to_value(&got.counts).unwrap(), expected["counts"], "{id}");
            }
        }
    }
}

#[test]
fn an_end_without_samples_beyond_it_is_open() {
    let runs: Vec<Vec<i64>> = (0..5).map(|run| (0..60).map(|sample| sample * 5 + run).collect()).collect();
    let mut pooled = runs.concat();
    pooled.sort_unstable();
    let slices: Vec<&[i64]> = runs.iter().map(Vec::as_slice).collect();
    // 300 samples and a half-width of at least 1.1 %: nothing lies above the 99 % point by that much.
    let p99 = woodruff(&slices, &pooled, 0.99).unwrap();
    assert_eq!(p99.interval.high, None);
    assert!(p99.interval.low.unwrap() < 297.0);
    assert_eq!(woodruff(&slices[..1], &pooled, 0.99), Err(WoodruffProblem::OneRun));
}

#[test]
fn fewest_samples_of_the_usual_percentiles() {
    assert_eq!([0.5, 0.9, 0.99].map(fewest_samples), [5, 29, 299]);
}

#[test]
fn drift_over_the_run_order() {
    for vector in vectors_of("von_neumann") {
        let got = drift(&numbers(&vector["input"]["vals"])).unwrap();
        assert_close(got.ratio, &vector["expect"]["vn"], "ratio");
        assert_close(got.z, &vector["expect"]["z"], "z");
        assert_eq!(Value::from(got.flagged), vector["expect"]["drift"]);
    }
    let rising: Vec<f64> = (100..110).map(f64::from).collect();
    assert!(drift(&rising).unwrap().flagged);
    assert_eq!(drift(&rising[..FEW_RUNS - 1]), None);
    assert_eq!(drift(&[3.0; 8]), None);
}

#[test]
fn the_begin_of_a_series_that_differs_from_the_rest() {
    for vector in vectors_of("warm_cut") {
        let series: Vec<Vec<f64>> = vector["input"]["X"].as_array().unwrap().iter().map(numbers).collect();
        let (got, expected) = (warm_cut(&series).unwrap(), &vector["expect"]);
        assert_eq!(Value::from(got.candidate), expected["candidate"]);
        assert_close(got.effect, &expected["effect"], "effect");
        assert_close(got.half, &expected["half"], "half");
        assert_eq!(got.is_accepted().then_some(got.candidate).map_or(Value::Null, Value::from), expected["cut"]);
    }
}

#[test]
fn a_difference_that_is_small_or_not_in_every_run_is_not_accepted() {
    /// 60 values around 100 whose first ten are larger by these shares, a run each.
    fn series(excess: [f64; 4]) -> Vec<Vec<f64>> {
        let value = |index, excess| (100.0 + f64::from(index % 5)) * if index < 10 { 1.0 + excess } else { 1.0 };
        excess.iter().map(|excess| (0..60).map(|index| value(index, *excess)).collect()).collect()
    }
    let accepted = |excess| warm_cut(&series(excess)).map(|found| (found.candidate, found.is_accepted()));
    assert_eq!(accepted([0.3, 0.31, 0.29, 0.3]), Some((10, true)));
    assert_eq!(accepted([0.009, 0.009, 0.008, 0.009]), Some((10, false)), "below a per cent");
    assert_eq!(accepted([0.3, 0.0, 0.0, 0.05]), Some((10, false)), "one run alone");
    assert_eq!(accepted([0.0; 4]), None, "nothing to cut");
    assert_eq!(warm_cut(&series([0.3; 4])[..2]), None, "two runs");
    let short: Vec<Vec<f64>> = series([0.3; 4]).iter().map(|run| run[..45].to_vec()).collect();
    assert_eq!(warm_cut(&short), None, "too few values");
}

#[test]
fn runs_are_added_until_the_interval_is_narrow_enough() {
    for vector in vectors_of("stop_rule") {
        let (id, expected) = (vector["id"].as_str().unwrap(), &vector["expect"]);
        let (values, target) = (numbers(&vector["input"]["vals"]), vector["input"]["target"].as_f64().unwrap());
        let looks = (1..=values.len()).filter_map(|runs| Convergence::of(&values[..runs], 0.0));
        let stop = looks.into_iter().find(|look| look.is_reached(target)).unwrap();
        assert_eq!(stop.runs as u64, expected["R"], "{id}");
        assert_close(stop.estimate, &expected["est"], id);
        assert_close(stop.interval.low.unwrap(), &expected["lo"], id);
        assert_close(stop.interval.high.unwrap(), &expected["hi"], id);
        assert_close(stop.half_width, &expected["half_rel"], id);
        assert!(stop.runs_needed(target) <= stop.runs as u64 && stop.runs_needed(target / 2.0) > stop.runs as u64);
    }
    assert_eq!(Convergence::of(&[1.0; 4], 0.0), None, "four runs are few");
    let drifting: Vec<f64> = (0..12).map(|run| 100.0 + f64::from(run) * 0.01).collect();
    let found = Convergence::of(&drifting, 0.0).unwrap();
    assert!(found.half_width < 0.001 && found.drifts && !found.is_reached(0.01), "never with a drift");
}

#[test]
fn runs_needed_are_the_fewest_whose_own_quantile_makes_the_interval_narrow() {
    let values = [1.0, 1.05, 0.97, 1.02, 0.99];
    let found = Convergence::of(&values, 0.0).unwrap();
    for target in [0.2, 0.05, 0.02, 0.01, 0.001] {
        let needed = found.runs_needed(target);
        let half_width = |runs: u64| {
            let t = student_t_quantile(SEQUENTIAL_95, runs as u32 - 1);
            (t * found.sd_log / (runs as f64).sqrt()).exp_m1()
        };
        assert!(half_width(needed) <= target * 1.002, "{needed} runs for {target}");
        assert!(needed == FEW_RUNS as u64 || half_width(needed - 1) > target * 0.998, "{needed} runs for {target}");
    }
    // With the quantile of five runs it would be 5 (0.0499 / 0.02)^2 = 31.
    assert!(found.half_width > 0.04 && found.runs_needed(0.02) < 18, "{found:?}, {}", found.runs_needed(0.02));
}

#[test]
fn value_over_runs_is_the_same_for_a_rate_and_its_time() {
    let times = [1.0, 1.2, 0.9, 1.1, 1.05, 3.0, 0.95];
    let rates = times.map(|time| 1.0 / time);
    let (of_times, of_rates) = (over_runs(&times, 0.0).unwrap(), over_runs(&rates, 0.0).unwrap());
    assert!((of_times.value * of_rates.value - 1.0).abs() < 1e-12);
    assert_eq!(over_runs(&[7.0], 0.25), Some(OverRuns { value: 7.0, interval: None }));
    let equal = over_runs(&[7.0; 9], 0.25).unwrap();
    assert_eq!(equal, OverRuns { value: 7.0, interval: Some(Interval { low: Some(6.75), high: Some(7.25) }) });
    assert_eq!((over_runs(&[1.0, 0.0], 0.0), over_runs(&[], 0.0)), (None, None));
}

#[test]
fn value_over_20_000_runs_takes_no_memory_of_pairs_and_lies_in_its_interval() {
    // In the order of a golden-section sequence, of 1.0 to 1.1, and every 20th ten times as long.
    let golden = |run: u32| (f64::from(run) * 0.618_033_988_749_894_9).fract();
    let value = |run: u32| (1.0 + 0.1 * golden(run)) * if run % 20 == 13 { 10.0 } else { 1.0 };
    let values: Vec<f64> = (0..20_000).map(value).collect();
    let found = over_runs(&values, 0.0).unwrap();
    let (low, high) = (found.interval.unwrap().low.unwrap(), found.interval.unwrap().high.unwrap());
    assert!(low < found.value && found.value < high && high / low < 1.002, "{found:?}");
    assert!((1.05..1.06).contains(&found.value), "{found:?}");
    let of_pairs = paired_effect(&values.iter().map(|value| value.ln()).collect::<Vec<f64>>()).unwrap();
    assert_eq!((of_pairs.ratio, of_pairs.low, of_pairs.high), (found.value, low, high));
    assert!(of_pairs.p < 1e-6, "{of_pairs:?}");
}

fn log_ratios(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| (b / a).ln()).collect()
}

#[test]
fn a_against_b_in_pairs() {
    for vector in vectors_of("ab_paired") {
        let (id, expected) = (vector["id"].as_str().unwrap(), &vector["expect"]);
        let (a, b) = (numbers(&vector["input"]["a"]), numbers(&vector["input"]["b"]));
        let got = paired_effect(&log_ratios(&a, &b)).unwrap();
        assert_eq!(serde_json::to_value(got.method).unwrap(), expected["method"], "{id}");
        assert_eq!(got.pairs as u64, expected["R"], "{id}");
        assert_close(got.ratio, &expected["ratio"], id);
        assert_close(got.low, &expected["lo"], id);
        assert_close(got.high, &expected["hi"], id);
        assert_close(got.p, &expected["p"], id);
        assert_close(got.detectable, &expected["mde80"], id);
    }
    assert_eq!(paired_effect(&[0.1; 4]), None, "four pairs decide nothing");
}

/// The interval leaves out at most as many Walsh averages as the table of exact critical values has.
#[test]
fn signed_rank_critical_values() {
    let table = &vectors()["signed_rank_crit_two_sided"]["0.05"];
    for (pairs, critical) in table.as_object().unwrap() {
        let pairs: usize = pairs.parse().unwrap();
        if pairs < 7 {
            continue;
        }
        // Powers of two: all Walsh averages differ, and their order is known.
        let differences: Vec<f64> = (0..pairs).map(|index| f64::from(1u32 << index)).collect();
        let mut averages: Vec<f64> =
            (0..pairs).flat_map(|i| differences[i..].iter().map(move |d| 0.5 * (f64::from(1u32 << i) + d))).collect();
        averages.sort_unstable_by(f64::total_cmp);
        let scale = 1e-6;
        let got = paired_effect(&differences.iter().map(|d| d * scale).collect::<Vec<_>>()).unwrap();
        let expected = averages[critical.as_u64().unwrap() as usize] * scale;
        assert!((got.low.ln() / expected - 1.0).abs() < 1e-6, "{pairs} pairs");
    }
}

#[test]
fn an_interval_leaves_1_out_exactly_where_p_is_at_most_5_percent() {
    use rand_chacha::rand_core::{Rng, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    // Coarse values: zeros and ties, as of a clock or of counts.
    let mut value = || f64::from(random.next_u32() % 11) - 4.0;
    let mut found = 0;
    for round in 0..3_000 {
        let differences: Vec<f64> = (0..5 + round % 12).map(|_| value() * 0.01).collect();
        let got = paired_effect(&differences).unwrap();
        let leaves_1_out = got.low > 1.0 || got.high < 1.0;
        assert_eq!(leaves_1_out, got.p <= 0.05, "{got:?} of {differences:?}");
        found += u32::from(leaves_1_out);
    }
    assert!(found > 100 && found < 2_900, "{found}");
}

#[test]
fn many_tests_at_once() {
    let vector = &vectors_of("holm")[0];
    let p = numbers(&vector["input"]["p"]);
    for (got, expected) in holm(&p).into_iter().zip(vector["expect"].as_array().unwrap()) {
        assert_close(got, expected, "holm");
    }
    // Worked out by hand: 4/4 of the largest, then 4/3, 4/2, 4/1, none above the one behind it.
    let got = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.2]);
    let expected = [0.04, 0.04 * 4.0 / 3.0, 0.04 * 4.0 / 3.0, 0.2];
    assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-12), "{got:?}");
    assert!(holm(&[]).is_empty() && benjamini_hochberg(&[]).is_empty());
}

#[test]
fn two_sets_of_runs_that_were_not_interleaved() {
    let got = unpaired_effect(&[1.0, 1.0, 1.0], &[2.0, 2.0]).unwrap();
    assert!((got.ratio - 2.0).abs() < 1e-12);
    assert_eq!(unpaired_effect(&[1.0], &[2.0, 2.1]).unwrap().interval, None, "one run has no spread");
    assert_eq!(unpaired_effect(&[1.0, 0.0], &[2.0]), None);
    // Equal spreads and sizes: 2 (n - 1) degrees, and the standard error of a difference.
    let (a, b) = ([1.0f64, 2.0, 4.0], [2.0f64, 4.0, 8.0]);
    let half = student_t_quantile(TWO_SIDED_95, 4) * (2.0f64.ln().powi(2) * 2.0 / 3.0).sqrt();
    let interval = unpaired_effect(&a, &b).unwrap().interval.unwrap();
    assert!((interval.high.unwrap().ln() - (2.0f64.ln() + half)).abs() < 1e-12);
}

#[test]
fn slow_run_of_one_side_moves_no_ratio_of_sides_that_are_equal_otherwise() {
    for runs in [3, 6, 7, 20, 400] {
        let equal = vec![5.0; runs];
        let mut one_slow = equal.clone();
        one_slow[1] = 50.0;
        let found = unpaired_effect(&equal, &one_slow).unwrap();
        let Interval { low: Some(low), high: Some(high) } = found.interval.unwrap() else { panic!("{found:?}") };
        assert_eq!(found.ratio, 1.0, "{runs} runs");
        assert!(low <= 1.0 && 1.0 <= high, "{runs} runs: {found:?}");
        assert!(runs < 7 || (low, high) == (1.0, 1.0), "{runs} runs: {found:?}");
    }
}

/// The ranks of a table of Mann and Whitney's statistic at 5 %: the interval leaves out at most as many shifts on each side.
#[test]
fn mann_whitney_critical_values() {
    for (of_a, of_b, critical) in [(7, 7, 8), (7, 8, 10), (7, 10, 14), (9, 9, 17), (10, 10, 23), (20, 20, 127)] {
        // All shifts differ, and their order is known.
        let a: Vec<f64> = (0..of_a).map(|run| f64::from(run) * 1e-3).collect();
        let b: Vec<f64> = (0..of_b).map(|run| f64::from(run) * 1e-1).collect();
        let mut shifts: Vec<f64> = a.iter().flat_map(|a| b.iter().map(move |b| b - a)).collect();
        shifts.sort_unstable_by(f64::total_cmp);
        let exp = |logs: &[f64]| logs.iter().map(|log| log.exp()).collect::<Vec<f64>>();
        let interval = unpaired_effect(&exp(&a), &exp(&b)).unwrap().interval.unwrap();
        let ends = (shifts[critical], shifts[shifts.len() - 1 - critical]);
        let found = (interval.low.unwrap().ln(), interval.high.unwrap().ln());
        assert!(
            (found.0 - ends.0).abs() < 1e-9 && (found.1 - ends.1).abs() < 1e-9,
            "{of_a}, {of_b}: {found:?}, {ends:?}"
        );
    }
}
