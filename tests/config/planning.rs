//! Points, labels, epochs and rounds.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use bench::presentation::plan_text::{self, Detail};
use bench::question::config;
use bench::question::plan::{self, History, Role, SettingClass};
use bench::question::resolve::{self, Overrides};

use crate::{entry, plan_of, plan_with, points, write};

#[test]
fn axes_cross_and_labels_say_what_differs() {
    let text = entry(
        "args: --model m\ntensor_parallel_sizes: [1, 2]\nlength_configs:\n  - {input_len: 8, output_len: 4}\n\
         \u{20} - {input_len: 16, output_len: 4}\nmatrix:\n  concurrency: [1, 4]\n  quantization: [none, fp8]\nnum_prompts: 8",
    );
    let plan = plan_of(&text);
    assert_eq!(plan.num_points(), 16);
    assert_eq!(plan.epochs.len(), 4, "one load for each size and quantization");
    let labels: BTreeSet<&str> = points(&plan).into_iter().map(|point| point.point.as_str()).collect();
    assert_eq!(labels.len(), 16);
    assert!(labels.contains("i8-o4-p0-n8-c1-tp1"), "{labels:?}");
    assert!(labels.contains("i16-o4-p0-n8-c4-tp2-fp8"), "{labels:?}");
    let reasons: Vec<&str> = plan.epochs.iter().map(|epoch| epoch.reason.as_str()).collect();
    let size = "tensor_parallel_size 1 -> 2, quantization fp8 -> none";
    assert_eq!(reasons, ["first load", "quantization none -> fp8", size, "quantization none -> fp8"]);
}

#[test]
fn entries_that_say_the_same_keep_labels_that_are_unique_and_safe_in_a_file_name() {
    let one = "  - {name: 'NAME', mode: vllm_throughput, args: --model m ARGS, workload: chatbot, num_prompts: 2}\n";
    let mut text = String::from("standalone_runs:\n");
    for (name, args) in [("../a b", ""), ("../a b", ""), ("x", "--enforce-eager"), ("a-b-2", "")] {
        text += &one.replace("NAME", name).replace("ARGS", args);
    }
    let plan = plan_of(&text);
    assert_eq!(plan.epochs.len(), 2);
    let labels: HashSet<String> = points(&plan).into_iter().map(|point| point.point.clone()).collect();
    assert_eq!(labels.len(), 4, "{labels:?}");
    for label in labels {
        assert!(label.starts_with("i1024-o1024-p0-n2-"), "{label}");
        assert!(label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c)), "{label}");
    }
}

#[test]
fn points_of_one_engine_share_a_load_wherever_they_stand() {
    let text = "
defaults: {workload: chatbot, num_prompts: 1, repeats: 1}
standalone_runs:
  - {name: a, mode: vllm_throughput, args: --model m}
  - {name: b, mode: vllm_throughput, args: --model m --enforce-eager}
  - {name: c, mode: vllm_throughput, args: --seed 4   --model m}
";
    let plan = plan_of(text);
    let names: Vec<Vec<&str>> =
        plan.epochs.iter().map(|epoch| epoch.points.iter().map(|point| point.name.as_str()).collect()).collect();
    assert_eq!(names, [vec!["a", "c"], vec!["b"]]);
    assert_eq!(plan.epochs[1].reason, "args `` -> `--enforce-eager`");
}

#[test]
fn rounds_go_over_all_points_in_orders_that_the_seed_decides() {
    let text = "
defaults: {model: m, input_len: 4, output_len: 4}
standalone_runs:
  - {name: a, mode: vllm_throughput, repeats: 3, matrix: {num_prompts: [1, 2, 3, 4, 5, 6, 7, 8]}}
  - {name: b, mode: vllm_throughput, repeats: 1, num_prompts: 9}
";
    let plan = plan_of(text);
    let rounds = &plan.epochs[0].rounds;
    let sorted: Vec<Vec<usize>> = rounds
        .iter()
        .map(|round| {
            let mut round = round.clone();
            round.sort_unstable();
            round
        })
        .collect();
    assert_eq!(sorted, [(0..9).collect::<Vec<_>>(), (0..8).collect(), (0..8).collect()]);
    assert_ne!(rounds[1], rounds[2], "each round has an order of its own");
    assert_eq!(plan.num_runs(), 25);
    assert_eq!(*rounds, plan_with(text, Overrides::default()).unwrap().epochs[0].rounds, "the seed decides");
    let other = plan_with(text, Overrides { seed: Some(1), ..Overrides::default() }).unwrap();
    assert_ne!(*rounds, other.epochs[0].rounds);
    assert_ne!(points(&plan)[0].seed, points(&other)[0].seed);
}

#[test]
fn points_of_equal_lengths_get_the_same_prompts() {
    let plan =
        plan_of(&entry("args: --model m\nmatrix: {num_prompts: [1, 2], max_num_seqs: [1, 2]}\nworkload: chatbot"));
    let seeds: Vec<u64> = points(&plan).into_iter().map(|point| point.seed).collect();
    assert_eq!(seeds[0], seeds[1]);
    assert_eq!(seeds[2], seeds[3]);
    assert_ne!(seeds[0], seeds[2]);
}

#[test]
fn the_seed_of_the_defaults_is_that_of_the_plan() {
    let lines = "args: --model m\nworkload: chatbot";
    let plan = plan_of(&format!("defaults: {{seed: 7}}\n{}", entry(lines)));
    assert_eq!(plan.seed, 7);
    let same = plan_with(&entry(lines), Overrides { seed: Some(7), ..Overrides::default() }).unwrap();
    assert_eq!(points(&plan)[0].seed, points(&same)[0].seed, "prompts derive from it, whoever gives it");
}

#[test]
fn a_thousand_points_are_planned() {
    let axis = |n: u32| format!("[{}]", (1..=n).map(|value| value.to_string()).collect::<Vec<_>>().join(", "));
    let crossed = entry(&format!("args: --model m\nmatrix: {{input_len: {}, output_len: {}}}", axis(50), axis(20)));
    let listed: String = (1..=1000).map(|n| format!("  - {{input_len: {n}, output_len: 8}}\n")).collect();
    let listed = entry(&format!("args: --model m\nlength_configs:\n{listed}"));
    for (what, text) in [("crossed", crossed), ("listed", listed)] {
        let (_folder, path) = write(text);
        let began = Instant::now();
        let plan = resolve::resolve(&config::load(&path).unwrap(), Overrides::default()).unwrap();
        println!("1,000 points {what}: planned in {:?}", began.elapsed());
        assert_eq!((plan.num_points(), plan.num_runs_of(Role::Measured)), (1000, 5000));
        let measured = points(&plan).into_iter().filter(|point| point.role.is_measured());
        let labels: HashSet<&str> = measured.map(|point| point.point.as_str()).collect();
        assert_eq!(labels.len(), 1000);
    }
}

#[test]
fn the_largest_plan_is_still_planned() {
    let axis = |n: u32| format!("[{}]", (1..=n).map(|value| value.to_string()).collect::<Vec<_>>().join(", "));
    let text = entry(&format!(
        "args: --model m\nrepeats: 1\nmatrix: {{input_len: {}, output_len: {}}}",
        axis(1000),
        axis(100)
    ));
    assert_eq!(plan_of(&text).num_points() as u64, resolve::MAX_POINTS);

    // The longest list that a file may have.
    let listed: String = (1..=9_900).map(|n| format!("  - {{input_len: {n}, output_len: 8}}\n")).collect();
    assert_eq!(plan_of(&entry(&format!("args: --model m\nrepeats: 1\nlength_configs:\n{listed}"))).num_points(), 9_900);
}

#[test]
fn a_plan_says_which_settings_vary_and_what_a_change_of_them_costs() {
    let text = "
defaults: {model: m, output_len: 4}
standalone_runs:
  - {name: a, mode: vllm_throughput, input_len: 8, matrix: {max_num_seqs: [1, 2], num_prompts: 1..12, quantization: [none, fp8]}}
  - {name: b, mode: vllm_throughput, input_len: 16, num_prompts: 1, args: --enforce-eager}
";
    let plan = plan_of(text);
    let found: Vec<_> = plan.varying.iter().map(|setting| (setting.name.as_str(), setting.class)).collect();
    use SettingClass::{EngineKey, Live, Run};
    let expected = [
        ("quantization", EngineKey),
        ("args", EngineKey),
        ("max_num_seqs", Live),
        ("input_len", Run),
        ("num_prompts", Run),
    ];
    assert_eq!(found, expected, "seeds follow from the lengths, and are no setting of their own");
    assert_eq!(plan.varying[2].values, ["1", "2", "as built"]);
    let shown = plan_text::render(&plan, &plan::estimate(&plan, &History::default(), 2), Detail::Full);
    assert!(shown.contains("  reloads the engine: quantization none, fp8; args ``, `--enforce-eager`\n"), "{shown}");
    assert!(shown.contains("  is lowered on the running engine: max_num_seqs 1, 2, as built\n"), "{shown}");
    let run = "  changes from run to run: input_len 8, 16; num_prompts 1, 2, 3, 4, 5, 6, 7, 8 and 4 more\n";
    assert!(shown.contains(run), "{shown}");

    let seeds = plan_of(&entry("model: m\nworkload: chatbot\nmatrix: {seed: [1, 2]}"));
    assert_eq!(seeds.varying.iter().map(|setting| setting.name.as_str()).collect::<Vec<_>>(), ["seed"]);
    assert!(plan_of(&entry("model: m\nworkload: chatbot")).varying.is_empty());
}
