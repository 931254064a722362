//! Comparisons: pairs that run one after the other, in orders that coins decide.

use std::collections::BTreeMap;

use bench::presentation::plan_text::{self, Detail};
use bench::question::plan::{self, Arm, History, Plan, Point};
use bench::question::resolve;

use crate::{entry, load, plan_of, problems};

/// All runs of a plan in the order of execution, each with its epoch and its round.
fn runs(plan: &Plan) -> Vec<(usize, u32, &Point)> {
    let epochs = plan.epochs.iter().enumerate();
    epochs.flat_map(|(index, epoch)| epoch.runs().map(move |run| (index, run.round, run.point))).collect()
}

/// Asserts that the runs of each pair follow each other, and gives how often B came first by pair.
fn check_pairs(plan: &Plan, rounds: u32) -> BTreeMap<u32, u32> {
    let mut b_first: BTreeMap<u32, u32> = BTreeMap::new();
    let mut seen: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    let runs = runs(plan);
    let paired: Vec<_> = runs.iter().filter(|(_, _, point)| point.pair.is_some()).collect();
    for both in paired.chunks(2) {
        let [(_, round, one), (_, other_round, other)] = both else { panic!("an odd number of runs") };
        let (first, second) = (one.pair.as_ref().unwrap(), other.pair.as_ref().unwrap());
        assert_eq!((first.pair, round), (second.pair, other_round), "torn apart");
        assert_ne!(first.arm, second.arm);
        assert_eq!(one.seed, other.seed, "both arms have the same prompts");
        *b_first.entry(first.pair).or_default() += u32::from(first.arm == Arm::B);
        *seen.entry((first.pair, *round)).or_default() += 1;
    }
    let pairs = b_first.len() as u32;
    assert!(seen.values().all(|times| *times == 1));
    assert_eq!(seen.len() as u32, pairs * rounds);
    b_first
}

#[test]
fn a_live_setting_is_compared_in_pairs_on_one_engine() {
    let lines = "model: m\noutput_len: 4\ninput_len: 8\nrepeats: 40\nmatrix:\n  num_prompts: [1, 2, 3]\n  \
                 max_num_seqs: [1, 2]\n  compare: max_num_seqs";
    let plan = plan_of(&format!("defaults: {{sentinel: none}}\n{}", entry(lines)));
    assert_eq!((plan.epochs.len(), plan.num_points(), plan.num_runs()), (1, 6, 240));
    let b_first = check_pairs(&plan, 40);
    assert_eq!(b_first.len(), 3);
    // Expected 20 of 40, standard deviation 3.2: four of them.
    assert!(b_first.values().all(|count| count.abs_diff(20) < 13), "{b_first:?}");
    let order = |round: usize| -> Vec<u32> {
        let epoch = &plan.epochs[0];
        epoch.rounds[round].iter().map(|point| epoch.points[*point].pair.as_ref().unwrap().pair).collect()
    };
    assert!((1..40).any(|round| order(round) != order(0)), "the pairs too have a new order in each round");
    let members: Vec<_> = plan.epochs[0].points.iter().filter_map(|point| point.pair.clone()).collect();
    assert_eq!((members[0].axis.as_str(), members[0].value.as_str(), members[0].arm), ("max_num_seqs", "1", Arm::A));
    assert_eq!((members[1].value.as_str(), members[1].arm), ("2", Arm::B));
    let shown = plan_text::render(&plan, &plan::estimate(&plan, &History::default(), 2), Detail::Full);
    assert!(shown.contains("3 pairs compare max_num_seqs: A 1, B 2; both members run directly one after"), "{shown}");
}

#[test]
fn an_engine_key_is_compared_with_loads_between_the_members() {
    let text = "
defaults: {model: m, input_len: 8, output_len: 4, repeats: 10, sentinel: {every: 2}, check_reset: true}
standalone_runs:
  - {name: a, mode: vllm_throughput, matrix: {num_prompts: [1, 2, 3], quantization: [none, fp8], compare: quantization}}
  - {name: alone, mode: vllm_throughput, num_prompts: 9, quantization: fp8}
  - {name: other, mode: vllm_throughput, num_prompts: 9, args: --enforce-eager, repeats: 1}
";
    let plan = plan_of(text);
    check_pairs(&plan, 10);
    let of_pairs = plan.epochs.len() - 2;
    // At least a load for each pair and one more; two for each would be 60, and without sharing between pairs 45.
    assert!((31..40).contains(&of_pairs), "{of_pairs} loads");
    for both in plan.epochs[..of_pairs].windows(2) {
        assert_ne!(both[0].key, both[1].key, "a load that was not needed");
        assert!(both[1].reason.contains("quantization"), "{}", both[1].reason);
    }
    for epoch in &plan.epochs[..of_pairs] {
        assert!(epoch.rounds.iter().all(|round| !round.is_empty()));
        assert!(epoch.points.iter().all(|point| point.role.is_measured()), "loads are between the runs anyway");
    }
    let alone: Vec<u32> = runs(&plan).into_iter().filter(|run| run.2.name == "alone").map(|run| run.1).collect();
    assert_eq!(alone, (0..10).collect::<Vec<_>>(), "once in each round, in the order of the rounds");
    assert_eq!(plan.num_points(), 8);

    let shown = plan_text::render(&plan, &plan::estimate(&plan, &History::default(), 2), Detail::Full);
    assert!(shown.contains(&format!("Engines 1 to {of_pairs} of {}", plan.epochs.len())), "{shown}");
    assert!(shown.contains("3 pairs compare quantization: A none, B fp8"), "{shown}");
    assert!(shown.contains(&format!("Work: {} engine loads", plan.epochs.len())), "{shown}");
}

#[test]
fn a_linked_axis_and_the_sizes_are_compared_too() {
    let linked = "model: m\ninput_len: 8\nrepeats: 2\nmatrix:\n  linked:\n  - {output_len: [4, 8], num_prompts: [1, 2]}\n  \
                  compare: num_prompts";
    let plan = plan_of(&entry(linked));
    assert_eq!(check_pairs(&plan, 2).len(), 1);
    let lengths: Vec<_> = plan.epochs[0].points.iter().map(|point| (point.output_len, point.num_prompts)).collect();
    assert_eq!(lengths, [(4, 1), (8, 2)]);

    let sizes = "model: m\nworkload: chatbot\ntensor_parallel_sizes: [1, 2]\nmatrix: {compare: tensor_parallel_size}";
    check_pairs(&plan_of(&entry(sizes)), 5);
}

#[test]
fn comparisons_that_cannot_be_made_are_told() {
    let told = |matrix: &str| {
        let mut told = problems(&entry(&format!("model: m\nworkload: chatbot\nmatrix: {matrix}")));
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    };
    assert!(told("{num_prompts: [1, 2], compare: num_promts}").contains("`num_prompts`"));
    assert!(told("{num_prompts: [1, 2], compare: 3}").contains("`compare` has to be text"));
    for (matrix, message) in [
        ("{num_prompts: [1, 2], compare: drive}", "`compare` names `drive`, which is no axis of the entry `a`"),
        (
            "{num_prompts: [1, 2, 3], compare: num_prompts}",
            "`compare` takes an axis of two values, and `num_prompts` has 3",
        ),
        ("{repeats: [1, 2], compare: repeats}", "`repeats` is the same on both sides"),
        (
            "{linked: [{drive: [free, stepped], seed: [1, 2]}], compare: drive}",
            "`drive` is linked with `seed`, which is the same on both sides",
        ),
        (
            "{num_prompts: [1, 2], warmup: [0, 1], exclude: [{num_prompts: 2, warmup: 1}], compare: warmup}",
            "`exclude` takes one of a pair that `compare: warmup` asks for, and leaves the other",
        ),
        (
            "{num_prompts: 1..20, repeats: [900], quantization: [none, fp8], compare: quantization}",
            "comparing `quantization` takes an engine load between the members of each pair: up to 36000 loads",
        ),
    ] {
        let told = told(matrix);
        // The place of the value in the last line of the entry.
        let place = format!("6:{}", 13 + matrix.rfind("compare: ").unwrap() + "compare: ".len());
        assert!(told.starts_with(&place) && told.contains(message), "{place} {message}: {told}");
    }
}

#[test]
fn flags_of_vllm_are_an_axis_and_can_be_compared() {
    let text = "
standalone_runs:
  - {name: a, mode: vllm_throughput, args: --model m --max-model-len 64, input_len: 8, output_len: 4, repeats: 3,
     matrix: {args: ['', --enforce-eager --max-num-seqs 4], compare: args}}
";
    let plan = plan_of(text);
    check_pairs(&plan, 3);
    let mut args: Vec<Vec<String>> = plan.epochs.iter().map(|epoch| epoch.key.engine_args.clone()).collect();
    args.sort();
    args.dedup();
    assert_eq!(
        args,
        [vec!["--max-model-len", "64"], vec!["--max-model-len", "64", "--enforce-eager", "--max-num-seqs", "4"]]
    );
    let shown = plan_text::render(&plan, &plan::estimate(&plan, &History::default(), 2), Detail::Full);
    assert!(shown.contains("compare args: A `--max-model-len 64`, B `--max-model-len 64 --enforce-eager"), "{shown}");
    let found = problems(&text.replace("--enforce-eager", "--input-len 9"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("`--input-len` in a value of the axis `args` stands for the key `input_len`"),
        "{found:?}"
    );
    let too_long = problems(&text.replace("--enforce-eager", "--max-model-len 8"));
    assert!(
        too_long.iter().any(|problem| problem.contains("--max-model-len")),
        "the limits of each point's own args: {too_long:?}"
    );
}

#[test]
fn a_value_of_ab_with_a_comma_goes_in_quotes() {
    let entry = entry("model: m\ninput_len: 8\noutput_len: 4\nrepeats: 5");
    let compared = |ab: &str| -> Result<Vec<String>, String> {
        let config = load(&entry).unwrap().compared(ab).map_err(|error| error.to_string())?;
        let plan = resolve::resolve(&config, resolve::Overrides::default()).map_err(|error| error.to_string())?;
        Ok(plan.epochs.iter().take(2).map(|epoch| epoch.key.engine_args.join(" ")).collect())
    };
    for (ab, expected) in [
        (r#"args="--a 1,2","--b""#, ["--a 1,2", "--b"]),
        (r#"args = '--a 1,2' , --b"#, ["--a 1,2", "--b"]),
        (r#"args=--a '{"x": 1, "y": [2, 3]}',--b"#, [r#"--a {"x": 1, "y": [2, 3]}"#, "--b"]),
        (r#"args="--a '{\"x\": 1}'","--b""#, [r#"--a {"x": 1}"#, "--b"]),
        ("args=--a=1,--a=2", ["--a=1", "--a=2"]),
    ] {
        let mut found = compared(ab).unwrap_or_else(|error| panic!("{ab}: {error}"));
        found.sort();
        assert_eq!(found, expected, "{ab}");
    }
    for ab in ["args=--a 1,2,--b", "args=\"--a\"", "args", "args=\"--a,--b"] {
        assert!(compared(ab).unwrap_err().contains("a value with a comma goes in double quotes"), "{ab}");
    }
    let hostile = compared("args\u{1b}[2J=1,2").unwrap_err();
    assert!(!hostile.contains('\u{1b}'), "{hostile}");
    let config = load(&entry).unwrap().compared("num_prompts=4.0,8").unwrap();
    let plan = resolve::resolve(&config, resolve::Overrides::default()).unwrap();
    assert!(plan.epochs.iter().flat_map(|epoch| &epoch.points).any(|point| point.num_prompts == 4));
}
