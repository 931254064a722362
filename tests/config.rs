//! Configuration files as users write them, from the file to the plan.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bench::config::{self, BUILTIN_MODEL, BUILTIN_MODEL_CONFIG, BUILTIN_SMOKE, Config, ConfigError};
use bench::device::DeviceClass;
use bench::plan::{
    self, Detail, Drive, Estimate, History, Load, Overrides, Plan, Point, PrefixMode, Quantization, RunTimes, StepApi,
};

/// The example of the format that users already have, as it stands.
const EXISTING_FORMAT: &str = r#"
standalone_runs:
  - name: "Ironwood-CodeGen-HighCache"
    mode: vllm_throughput
    args: >-
      --model meta-llama/Llama-3.1-70B-Instruct
      --prefix-len 7900
    tensor_parallel_sizes: [8]
    length_configs:
      - {input_len: 8192, output_len: 2048}
"#;

fn write(text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.yaml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn load(text: impl AsRef<[u8]>) -> Result<Config, ConfigError> {
    let (_folder, path) = write(text);
    config::load(&path)
}

fn plan_with(text: &str, overrides: Overrides) -> Result<Plan, ConfigError> {
    plan::resolve(&load(text)?, overrides)
}

fn plan(text: &str) -> Plan {
    plan_with(text, Overrides::default()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn points(plan: &Plan) -> Vec<&Point> {
    plan.epochs.iter().flat_map(|epoch| &epoch.points).collect()
}

/// An entry with these lines behind `mode`, on a model that needs no file.
fn entry(lines: &str) -> String {
    let lines = lines.replace('\n', "\n    ");
    format!("standalone_runs:\n  - name: a\n    mode: vllm_throughput\n    {lines}\n")
}

/// The problems of a file as `line:column message`.
fn problems(text: &str) -> Vec<String> {
    let error = plan_with(text, Overrides::default()).expect_err(text);
    let shown = |problem: &config::Problem| {
        let at = &problem.location;
        assert!(at.file.as_ref().is_some_and(|file| file.ends_with("sweep.yaml")), "{problem}");
        format!("{}:{} {}", at.line, at.column, problem.message)
    };
    error.problems().iter().map(shown).collect()
}

#[test]
fn the_existing_format_loads_unchanged() {
    let plan = plan(EXISTING_FORMAT);
    assert_eq!(plan.name, "sweep");
    assert_eq!(plan.epochs.len(), 1);
    let key = &plan.epochs[0].key;
    assert_eq!(key.model, "meta-llama/Llama-3.1-70B-Instruct");
    assert_eq!((key.tensor_parallel_size, key.device, key.quantization), (8, DeviceClass::Cpu, Quantization::None));
    assert!(key.engine_args.is_empty(), "{:?}", key.engine_args);
    let [point] = points(&plan)[..] else { panic!("{plan:?}") };
    assert_eq!(point.name, "Ironwood-CodeGen-HighCache");
    assert_eq!((point.input_len, point.output_len, point.prefix_len), (8192, 2048, 7900));
    assert_eq!((point.num_prompts, point.repeats, point.warmup), (1000, 5, 1));
    assert_eq!(point.load, Load::Closed { concurrency: None });
    assert_eq!(point.point, "i8192-o2048-p7900-n1000");
    let at = &point.location.0;
    assert_eq!((at.line, at.column), (10, 21));
}

#[test]
fn the_command_line_counts_more_than_the_file() {
    let text = entry("device: tpu\nrepeats: 2\nseed: 9\nworkload: chatbot\nargs: --model m");
    let overrides = Overrides { device: Some(DeviceClass::Cuda), repeats: Some(7), seed: Some(3) };
    let plan = plan_with(&text, overrides).unwrap();
    assert_eq!(plan.epochs[0].key.device, DeviceClass::Cuda);
    assert_eq!(plan.epochs[0].rounds.len(), 7);
    assert_eq!(plan.seed, 3);
    assert_eq!(points(&plan)[0].seed, 9, "a seed that an entry gives is exact");

    let too_many = plan_with(&text, Overrides { repeats: Some(0), ..Overrides::default() }).unwrap_err();
    assert!(too_many.to_string().contains("0 repeats"), "{too_many}");
}

#[test]
fn every_key_of_an_entry_arrives_in_the_plan() {
    let text = entry(
        "args: --model m --max-num-seqs 64 --enforce-eager --num-prompts=12\ndevice: cuda\nquantization: fp8\n\
         input_len: 100\noutput_len: 7\nprefix_len: 40\nprefix_mode: added\nrepeats: 3\nwarmup: 0\nseed: 18446744073709551615\n\
         load: {closed: {concurrency: 4}}\ndrive: stepped\nstep_api: llm_engine\n\
         limits: {max_num_seqs: 64, max_num_batched_tokens: 256}\nslo: {p99_ttft_s: 0.5, output_tokens_per_s: 100}",
    );
    let plan = plan(&text);
    let key = &plan.epochs[0].key;
    assert_eq!(
        (key.device, key.quantization, key.step_api),
        (DeviceClass::Cuda, Quantization::Fp8, StepApi::LlmEngine)
    );
    assert_eq!(key.engine_args, ["--max-num-seqs", "64", "--enforce-eager"]);
    let point = points(&plan)[0];
    assert_eq!(
        (point.input_len, point.output_len, point.prefix_len),
        (140, 7, 40),
        "an added prefix makes the prompt longer"
    );
    assert_eq!(point.prefix_mode, PrefixMode::Added);
    assert_eq!((point.num_prompts, point.repeats, point.warmup, point.seed), (12, 3, 0, u64::MAX));
    assert_eq!(point.load, Load::Closed { concurrency: Some(4) });
    assert_eq!(point.drive, Drive::Stepped);
    assert_eq!((point.limits.max_num_seqs, point.limits.max_num_batched_tokens), (Some(64), Some(256)));
    let slo: Vec<_> = point.slo.iter().map(|(metric, bound)| (metric.as_str(), *bound)).collect();
    assert_eq!(slo, [("output_tokens_per_s", 100.0), ("p99_ttft_s", 0.5)]);
}

#[test]
fn the_more_specific_level_counts() {
    let with_defaults = |defaults: &str, lines: &str| format!("defaults: {{{defaults}}}\n{}", entry(lines));
    let lengths = |text: &str| {
        let plan = plan(text);
        let point = points(&plan)[0];
        (point.input_len, point.output_len, point.prefix_len)
    };
    let workload = "model: m, workload: code-generation";
    assert_eq!(lengths(&with_defaults(workload, "repeats: 1")), (8192, 2048, 7900));
    assert_eq!(lengths(&with_defaults(workload, "prefix_len: 0")), (8192, 2048, 0));
    assert_eq!(lengths(&with_defaults(workload, "workload: chatbot")), (1024, 1024, 0));
    assert_eq!(lengths(&with_defaults(workload, "length_configs: [{input_len: 9, output_len: 8}]")), (9, 8, 0));
    assert_eq!(lengths(&with_defaults("model: m, prefix_len: 5", "input_len: 9\noutput_len: 8")), (9, 8, 5));
    let own_prefix = "args: --prefix-len 3\nlength_configs: [{input_len: 9, output_len: 8, prefix_len: 6}]";
    assert_eq!(lengths(&with_defaults("model: m", own_prefix)), (9, 8, 6));
    let words = "args: --model m --input-len 9 --output-len=8 --prefix-len 9";
    assert_eq!(lengths(&with_defaults("", words)), (9, 8, 9), "a prompt may be shared as a whole");

    let plan = plan(&with_defaults("args: --model m --enforce-eager, workload: chatbot", "args: --max-num-seqs 2"));
    assert_eq!(plan.epochs[0].key.engine_args, ["--max-num-seqs", "2"], "args of the entry replace those of defaults");
    assert_eq!(plan.epochs[0].key.model, "m", "and words taken out stay a setting of their level");
}

#[test]
fn axes_cross_and_labels_say_what_differs() {
    let text = entry(
        "args: --model m\ntensor_parallel_sizes: [1, 2]\nlength_configs:\n  - {input_len: 8, output_len: 4}\n\
         \u{20} - {input_len: 16, output_len: 4}\nmatrix:\n  concurrency: [1, 4]\n  quantization: [none, fp8]\nnum_prompts: 8",
    );
    let plan = plan(&text);
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
    let plan = plan(&text);
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
    let plan = plan(text);
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
    let plan = plan(text);
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
    let plan = plan(&entry("args: --model m\nmatrix: {num_prompts: [1, 2], max_num_seqs: [1, 2]}\nworkload: chatbot"));
    let seeds: Vec<u64> = points(&plan).into_iter().map(|point| point.seed).collect();
    assert_eq!(seeds[0], seeds[1]);
    assert_eq!(seeds[2], seeds[3]);
    assert_ne!(seeds[0], seeds[2]);
}

/// Each wrong entry, where its problem stands, and what the message has to say.
const WRONG_ENTRIES: [(&str, &str, &[&str]); 52] = [
    // Unknown words, with the nearest known one.
    ("lenght_configs: []", "4:5", &["`lenght_configs`", "nearest known one is `length_configs`"]),
    ("workload: chatbt", "4:15", &["`chatbt`", "nearest known one is `chatbot`"]),
    ("workload: CHATBOT", "4:15", &["nearest known one is `chatbot`"]),
    ("device: gpu", "4:13", &["`device`", "`gpu`", "cpu, cuda, tpu"]),
    ("quantization: int8", "4:19", &["`int8`", "fp8"]),
    ("drive: step", "4:12", &["nearest known one is `stepped`"]),
    ("load: open", "4:11", &["nearest known one is `closed`"]),
    ("load: {opened: {}}", "4:12", &["`opened`", "`closed`"]),
    ("load: {closed: {concurency: 2}}", "4:21", &["`concurency`", "`concurrency`"]),
    ("slo: {p99_tftt_s: 1}", "4:11", &["`p99_tftt_s`", "nearest known one is `p99_ttft_s`"]),
    ("limits: {max_seqs: 1}", "4:14", &["`max_seqs`", "`max_num_seqs`"]),
    ("matrix: {num_prompt: [1]}", "4:14", &["`num_prompt`", "`num_prompts`"]),
    ("length_configs: [{input_length: 1, output_len: 1}]", "4:23", &["`input_length`", "`input_len`"]),
    ("model: builtin:tiny-lama", "4:12", &["`builtin:tiny-lama`", "nearest known one is `builtin:tiny-llama`"]),
    ("<<: {repeats: 2}", "4:5", &["merge keys", "defaults"]),
    // Duplicates.
    ("repeats: 1\nrepeats: 2", "5:5", &["`repeats`", "twice"]),
    ("repeats: 1\nargs: --model m --seed 3 --seed 4", "5:11", &["`seed`", "twice"]),
    ("tensor_parallel_sizes: [8, 8]", "4:32", &["8", "twice"]),
    ("matrix: {num_prompts: [1, 2, 1]}", "4:34", &["twice", "`num_prompts`"]),
    // Wrong types and impossible values.
    ("repeats: five", "4:14", &["`repeats`", "whole number from 1 to 1000", "the text `five`"]),
    ("repeats: 0", "4:14", &["from 1 to", "the number 0"]),
    ("repeats: 2.5", "4:14", &["whole number", "2.5"]),
    ("num_prompts: -1", "4:18", &["`num_prompts`", "the number -1"]),
    ("num_prompts: 4294967297", "4:18", &["`num_prompts`", "4294967297"]),
    ("num_prompts: 99999999999999999999999999999999999999999999", "4:18", &["`num_prompts`", "whole number"]),
    ("seed: 18446744073709551616", "4:11", &["`seed`"]),
    ("input_len: 1e6", "4:16", &["`input_len`", "whole number"]),
    ("input_len:", "4:15", &["`input_len`", "empty"]),
    ("model: 7", "4:12", &["`model`", "quotes"]),
    ("limits: 3", "4:13", &["`limits`", "table"]),
    ("slo: {p99_ttft_s: -1}", "4:23", &["`p99_ttft_s`", "above 0"]),
    ("slo: {p99_ttft_s: .nan}", "4:23", &["`p99_ttft_s`", "above 0"]),
    ("tensor_parallel_sizes: []", "4:5", &["`tensor_parallel_sizes`", "at least one", "empty list"]),
    ("length_configs: [{input_len: 5}]", "4:23", &["no `output_len`"]),
    ("matrix: {num_prompts: 4}", "4:27", &["`num_prompts`", "a list"]),
    ("args: [--model, m]", "4:12", &["`args`", "text"]),
    ("args: --model 'm", "4:11", &["quote", "not closed"]),
    ("args: '--model m # --seed 3'", "4:11", &["comment"]),
    ("args: --model m --input-len many", "4:11", &["`input_len`", "`many`"]),
    ("args: --model m --output-len", "4:11", &["`--output-len`", "no value"]),
    // The same thing said twice.
    ("args: --num-prompts 4\nnum_prompts: 5", "4:11", &["`--num-prompts`", "line 5", "keep one"]),
    ("args: --model m -tp 2\ntensor_parallel_sizes: [2]", "5:29", &["`--tensor-parallel-size`", "keep one"]),
    ("quantization: fp8\nargs: --model m -q mxfp8", "5:11", &["`-q`", "`quantization`", "line 4"]),
    ("workload: chatbot\nlength_configs: [{input_len: 1, output_len: 1}]", "5:5", &["`workload`", "keep one"]),
    ("args: --input-len 5\nlength_configs: [{input_len: 1, output_len: 1}]", "5:5", &["`input_len`", "keep one"]),
    ("num_prompts: 5\nmatrix: {num_prompts: [1]}", "5:14", &["`num_prompts`", "`matrix`", "line 4"]),
    // Lengths that fit neither each other nor the model.
    (
        "model: m\ninput_len: 8\noutput_len: 1\nprefix_len: 9",
        "5:16",
        &["prefix of 9", "prompt of 8", "prefix_mode: added"],
    ),
    (
        "args: --model m --max-model-len 1k\nlength_configs: [{input_len: 8, output_len: 993}]",
        "5:34",
        &["8", "993", "1001", "1000", "--max-model-len"],
    ),
    (
        "args: --model builtin:tiny-llama\ninput_len: 2000\noutput_len: 49",
        "5:16",
        &["2049", "2048", "max_position_embeddings"],
    ),
    (
        "args: --model m --max-num-seqs 64\nworkload: chatbot\nlimits: {max_num_seqs: 65}",
        "6:28",
        &["65", "64", "--max-num-seqs"],
    ),
    (
        "args: --model m --max_num_batched_tokens=2K\nworkload: chatbot\nmatrix: {max_num_batched_tokens: [8, 2049]}",
        "6:42",
        &["2049", "2048"],
    ),
    (
        "model: m\nnum_prompts: 1000000\ninput_len: 10000000\noutput_len: 1",
        "5:18",
        &["10000001000000 tokens", "at most"],
    ),
];

#[test]
fn what_is_wrong_in_an_entry_is_told_with_its_place() {
    for (lines, place, words) in WRONG_ENTRIES {
        let text = entry(lines);
        let problems = problems(&text);
        let told = problems.iter().find(|problem| problem.starts_with(&format!("{place} ")));
        let told = told.unwrap_or_else(|| panic!("nothing at {place} for\n{text}\n{problems:#?}"));
        for word in words {
            assert!(told.contains(word), "{told:?} does not say {word:?}");
        }
    }
}

#[test]
fn what_is_missing_is_told() {
    for (text, place, words) in [
        ("defaults: {}", "1:1", "no `standalone_runs`"),
        ("standalone_runs: []", "1:1", "at least one item"),
        ("standalone_run: []", "1:1", "nearest known one is `standalone_runs`"),
        ("[1]", "1:2", "a table"),
        ("just text", "1:1", "a table"),
        ("", "1:1", "empty"),
        ("# nothing\n", "", "empty"),
        ("standalone_runs: [{mode: vllm_throughput, model: m, workload: chatbot}]", "1:20", "no `name`"),
        ("standalone_runs: [{name: a, model: m, workload: chatbot}]", "1:20", "mode: vllm_throughput"),
        ("standalone_runs: [{name: a, mode: vllm_latency, model: m}]", "1:35", "`vllm_throughput`"),
        ("standalone_runs: [{name: a, mode: vllm_throughput, workload: chatbot}]", "1:26", "names no model"),
        ("standalone_runs: [{name: a, mode: vllm_throughput, model: m}]", "1:26", "gives no lengths"),
        ("defaults: {name: a}\nstandalone_runs: [{name: a, mode: vllm_throughput}]", "1:12", "belongs into an entry"),
        ("defaults: {repeat: 1}\nstandalone_runs: [{name: a, mode: vllm_throughput}]", "1:12", "`repeats`"),
        ("defaults: {workload: chatbot, input_len: 1}\nstandalone_runs: [x]", "1:22", "keep one"),
    ] {
        let problems = problems(text);
        let told = problems.iter().any(|problem| problem.starts_with(place) && problem.contains(words));
        assert!(told, "{text}: {problems:#?}");
    }
}

#[test]
fn one_look_finds_every_problem() {
    let problems = problems(&entry("repeats: 0\nwarmup: x\nworkload: y"));
    let places: Vec<&str> = problems.iter().filter_map(|problem| problem.split(' ').next()).collect();
    assert_eq!(places, ["4:14", "5:13", "6:15"], "{problems:#?}");
}

#[test]
fn a_message_names_the_file() {
    let (_folder, path) = write(entry("repeats: 0"));
    let message = config::load(&path).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}:4:14: `repeats` has to be", path.display())), "{message}");
}

#[test]
fn fp4_on_a_cpu_is_refused_and_elsewhere_is_not() {
    let text = entry("args: --model m\nworkload: chatbot\nquantization: fp4");
    let problems = problems(&text);
    assert!(problems[0].starts_with("6:19 ") && problems[0].contains("no FP4 kernel"), "{problems:?}");
    let plan = plan_with(&text, Overrides { device: Some(DeviceClass::Cuda), ..Overrides::default() }).unwrap();
    assert_eq!(plan.epochs[0].key.quantization, Quantization::Fp4);
}

#[test]
fn a_model_folder_has_to_be_there_and_hold_a_config() {
    let folder = tempfile::tempdir().unwrap();
    let text = |model: &Path| entry(&format!("model: {}\ninput_len: 90\noutput_len: 11", model.display()));
    let missing = folder.path().join("missing");
    let told = problems(&text(&missing));
    assert!(told[0].starts_with("4:12 ") && told[0].contains("does not exist"), "{told:?}");

    let told = problems(&text(folder.path()));
    assert!(told[0].starts_with("4:12 ") && told[0].contains("`config.json`"), "{told:?}");

    fs::write(folder.path().join("config.json"), "{").unwrap();
    let told = problems(&text(folder.path()));
    assert!(told[0].contains("not JSON"), "{told:?}");

    fs::write(folder.path().join("config.json"), r#"{"max_position_embeddings": 100}"#).unwrap();
    let told = problems(&text(folder.path()));
    assert!(told[0].starts_with("5:16 ") && told[0].contains("101") && told[0].contains("100"), "{told:?}");

    fs::write(folder.path().join("config.json"), r#"{"max_position_embeddings": 101}"#).unwrap();
    let plan = plan(&text(&folder.path().join(".")));
    assert_eq!(Path::new(&plan.epochs[0].key.model), folder.path().canonicalize().unwrap());
    // With the positions overridden, config.json has no say.
    fs::write(folder.path().join("config.json"), r#"{"max_position_embeddings": 5}"#).unwrap();
    let overridden = entry(&format!(
        "args: >-\n  --model {} --hf-overrides '{{\"max_position_embeddings\": 999}}'\ninput_len: 90\noutput_len: 11",
        folder.path().display()
    ));
    plan_with(&overridden, Overrides::default()).unwrap();
}

/// Loads and resolves hostile text; returns the message.
fn refusal(text: impl AsRef<[u8]>) -> String {
    let (_folder, path) = write(text);
    refusal_of(&path)
}

/// The first refusal may pay for a cold machine, so the fastest of three counts. 100 ms is the promise for an
/// optimised build; an unoptimised one gets ten times as long.
fn refusal_of(path: &Path) -> String {
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 100 });
    let attempts = (0..3).map(|_| {
        let began = Instant::now();
        let error = config::load(path).and_then(|config| plan::resolve(&config, Overrides::default())).unwrap_err();
        (began.elapsed(), error.to_string())
    });
    let (fastest, message) = attempts.min().unwrap();
    assert!(fastest < limit, "refused only after {fastest:?}: {message}");
    assert!(message.len() < 20_000, "a message of {} bytes", message.len());
    message
}

#[test]
fn hostile_text_is_refused_at_once() {
    let mib = 1 << 20;
    let bomb: String =
        (1..30).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect();
    let matrix_axis = format!("[{}]", (1..=400).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let explosion = entry(&format!(
        "model: m\nmatrix: {{input_len: {matrix_axis}, output_len: {matrix_axis}, num_prompts: {matrix_axis}}}"
    ));
    let overflow =
        ["input_len", "output_len", "num_prompts", "seed", "warmup", "concurrency", "max_num_seqs", "prefix_len"]
            .map(|axis| format!("{axis}: {matrix_axis}"))
            .join(", ");
    for (what, text, word) in [
        ("too large", "#".repeat(mib + 1), "larger than"),
        ("flow nesting", "[".repeat(mib - 1), "deeper"),
        ("table nesting", "{a: ".repeat(10_000), "deeper"),
        ("nesting hidden in quotes", "[']',".repeat(mib / 5 - 1), "in brackets"),
        ("less of it, and many words", "[']',".repeat(20_000) + &"1,".repeat(60_000), "in brackets"),
        ("as much as is let through", "[']',".repeat(14_000) + &"1,".repeat(90_000), "deeper"),
        ("block nesting", (0..1_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(), "deeper"),
        ("dashes", "- ".repeat(100_000), "deeper"),
        ("alias bomb", format!("a0: &a0 [x,x,x,x,x,x,x,x,x]\n{bomb}"), "values"),
        ("alias of itself", "a: &a [*a]".into(), ""),
        ("many words", format!("[{}]", "1,".repeat(mib / 2 - 2)), "more than 150000 keys"),
        ("many values", format!("[{}]", "1,".repeat(140_000)), "more than 50000 values"),
        ("many keys", (0..60_000).map(|n| format!("k{n}: 1\n")).collect(), "values"),
        ("many problems", entry(&(0..20_000).map(|n| format!("k{n}: 1\n")).collect::<String>()), "first 20"),
        ("long key", format!("{}: [1, 2]", "k".repeat(1_000)), "key of more than"),
        ("long unknown word", entry(&format!("workload: {}", "w".repeat(mib / 2))), "unknown"),
        ("matrix", explosion, "64000000 points"),
        ("matrix beyond u64", entry(&format!("model: m\nmatrix: {{{overflow}}}")), "points"),
        ("huge number", entry(&format!("num_prompts: {}", "9".repeat(100_000))), "whole number"),
        ("huge exponent", entry("num_prompts: 1e999999999"), "whole number"),
        ("long args", entry(&format!("args: {}", "x ".repeat(100_000))), "longer than"),
        ("two documents", format!("{EXISTING_FORMAT}---\n{EXISTING_FORMAT}"), ":11:1: a second YAML document"),
        ("NUL", "a: \0".into(), ":1:4: a NUL"),
    ] {
        let message = refusal(&text);
        assert!(message.contains(word), "{what}: {message}");
    }
    let message = refusal(b"a: 1\nb: \xff\n");
    assert!(message.contains(":2:4: not UTF-8"), "{message}");
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [folder.path(), &fifo, Path::new("/dev/zero")] {
        let message = refusal_of(path);
        assert!(
            message.starts_with(&format!("{}: a configuration has to be a regular file", path.display())),
            "{message}"
        );
    }
    let message = refusal_of(&folder.path().join("absent.yaml"));
    assert!(message.contains("absent.yaml: cannot read"), "{message}");
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
        let plan = plan::resolve(&config::load(&path).unwrap(), Overrides::default()).unwrap();
        println!("1,000 points {what}: planned in {:?}", began.elapsed());
        assert_eq!((plan.num_points(), plan.num_runs()), (1000, 5000));
        let labels: HashSet<&str> = points(&plan).into_iter().map(|point| point.point.as_str()).collect();
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
    assert_eq!(plan(&text).num_points() as u64, plan::MAX_POINTS);
}

#[test]
fn the_smoke_sweep_is_the_file_and_loads_one_engine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("configs/smoke-cpu.yaml");
    assert_eq!(fs::read_to_string(&path).unwrap(), BUILTIN_SMOKE);
    let built_in = plan::resolve(&config::builtin_smoke(), Overrides::default()).unwrap();
    let from_file = plan::resolve(&config::load(&path).unwrap(), Overrides::default()).unwrap();
    assert_eq!(built_in, from_file, "places aside, which do not count");

    let [epoch] = &built_in.epochs[..] else { panic!("{} engine loads", built_in.epochs.len()) };
    assert_eq!(epoch.key.model, BUILTIN_MODEL);
    assert!(epoch.points.len() >= 6 && epoch.rounds.len() == 5);
    assert!(epoch.rounds.iter().all(|round| round.len() == epoch.points.len()));
    let batches: BTreeSet<u32> = epoch.points.iter().map(|point| point.num_prompts).collect();
    assert!([1, 8, 64].iter().all(|batch| batches.contains(batch)), "{batches:?}");
    assert!(epoch.points.iter().any(|point| point.prefix_len >= 128), "a shared prefix of at least a block");
    let without_limits = |point: &Point| {
        let Point { input_len, output_len, prefix_len, num_prompts, seed, .. } = *point;
        (input_len, output_len, prefix_len, num_prompts, seed)
    };
    let differ_in_limits = |one: &&Point| {
        epoch.points.iter().any(|other| without_limits(one) == without_limits(other) && one.limits != other.limits)
    };
    assert!(epoch.points.iter().filter(differ_in_limits).count() >= 2, "points that differ in live limits alone");
    let model: serde_json::Value = serde_json::from_str(BUILTIN_MODEL_CONFIG).unwrap();
    assert_eq!(model["max_position_embeddings"], 2048);
    let file = fs::read_to_string(root.join("configs/models/tiny-llama/config.json")).unwrap();
    assert_eq!(file, BUILTIN_MODEL_CONFIG);
}

#[test]
fn the_documentation_shows_configurations_that_work() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md")).unwrap();
    let blocks: Vec<&str> =
        text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(blocks.len() >= 5, "{} examples", blocks.len());
    for block in blocks {
        let plan = plan(block);
        assert!(plan.num_runs() > 0, "{block}");
    }
    for key in config_keys() {
        assert!(text.contains(&format!("`{key}`")), "docs/config.md does not mention `{key}`");
    }
}

/// Every key and word that the messages about unknown ones list.
fn config_keys() -> BTreeSet<String> {
    let wrong = [
        entry("zzz: 1"),
        entry("matrix: {zzz: 1}"),
        entry("limits: {zzz: 1}"),
        entry("workload: zzz"),
        "zzz: 1".into(),
    ];
    let messages: String = wrong.iter().flat_map(|text| problems(text)).collect();
    let lists = messages.split("(known: ").skip(1).filter_map(|rest| rest.split(')').next());
    let keys: BTreeSet<String> = lists.flat_map(|list| list.split(", ")).map(String::from).collect();
    assert!(keys.len() > 30, "{keys:?}");
    keys
}

fn two_engines() -> Plan {
    plan(
        "
defaults: {model: m, input_len: 100, output_len: 11, repeats: 2}
standalone_runs:
  - {name: a, mode: vllm_throughput, matrix: {num_prompts: [1, 8]}}
  - {name: b, mode: vllm_throughput, num_prompts: 1, args: --enforce-eager}
",
    )
}

#[test]
fn without_a_measurement_there_is_no_estimate() {
    let plan = two_engines();
    let estimate = plan::estimate(&plan, &History::default(), 2);
    assert_eq!(estimate, Estimate { epochs: vec![None, None] });
    let text = plan::render(&plan, &estimate, Detail::Full);
    assert!(
        text.contains("Estimated time: not known yet: 2 of these 2 engines have never been measured on this machine"),
        "{text}"
    );
    // (1 + 8 + 1) requests, twice each.
    assert!(text.contains("2 engine loads, 6 runs, 2,000 prompt tokens, 220 output tokens"), "{text}");

    let smoke = plan::resolve(&config::builtin_smoke(), Overrides::default()).unwrap();
    let text = plan::render(&smoke, &plan::estimate(&smoke, &History::default(), 2), Detail::Full);
    assert!(text.contains("not known yet: this engine has never been measured on this machine"), "{text}");
    for point in points(&smoke) {
        assert!(text.contains(&point.point), "{text}");
    }
}

#[test]
fn an_estimate_is_what_was_measured() {
    let plan = two_engines();
    let (first, second) = (&plan.epochs[0], &plan.epochs[1]);
    let run =
        |point, run_s| RunTimes { point, run_s, prefill_s: 1.0, prefill_tokens: 100, decode_s: 2.0, decode_steps: 10 };
    let mut history = History::default();
    // 2 s a run on average: nothing, 1 s of prompt tokens, 2 s in ten steps.
    history.record(&first.key, 2, Some(20.0), &[run(&first.points[0], 3.0), run(&first.points[0], 4.0)]);
    let known = plan::estimate(&plan, &history, 2);
    let epoch = known.epochs[0].unwrap();
    assert_eq!((epoch.load_s, epoch.measured_runs, epoch.derived_runs), (20.0, 2, 2));
    // The point with 8 prompts: 0.5 s overhead, 800 tokens at 0.01 s, 10 steps at 0.2 s.
    let derived = 0.5 + 8.0 + 2.0;
    assert!((epoch.runs_s - (2.0 * 3.5 + 2.0 * derived)).abs() < 1e-9, "{epoch:?}");
    assert_eq!(known.total_s(), None, "the second engine is not known");
    assert_eq!(plan::estimate(&plan, &history, 3).epochs[0], None, "another machine");

    history.record(&second.key, 2, Some(1.0), &[run(&second.points[0], 4.0)]);
    // A later epoch on an engine that was kept warm has no load to remember.
    history.record(&first.key, 2, None, &[run(&first.points[1], 5.0)]);
    let known = plan::estimate(&plan, &history, 2);
    assert_eq!(known.total_s(), Some(20.0 + 2.0 * 3.5 + 2.0 * 5.0 + 1.0 + 2.0 * 4.0));
    let text = plan::render(&plan, &known, Detail::Short);
    assert!(text.contains("Estimated time: 46 s (every point has been measured on this machine before)"), "{text}");
}

#[test]
fn a_history_survives_its_file_and_a_broken_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deeper/history.json");
    assert_eq!(History::load(&path).unwrap(), History::default());
    let plan = two_engines();
    let point = &plan.epochs[0].points[0];
    let times = RunTimes { point, run_s: 3.0, prefill_s: 1.0, prefill_tokens: 100, decode_s: 2.0, decode_steps: 10 };
    let mut history = History::default();
    history.record(&plan.epochs[0].key, 2, Some(20.0), &[times]);
    history.save(&path).unwrap();
    history.save(&path).unwrap();
    assert_eq!(History::load(&path).unwrap(), history);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing but the file is left");

    for broken in ["{", "{}", r#"{"schema_version": 99, "records": 0, "engines": {}}"#] {
        fs::write(&path, broken).unwrap();
        let message = History::load(&path).unwrap_err().to_string();
        assert!(message.contains("history.json") && message.contains("delete it"), "{message}");
    }
}

#[test]
fn a_long_plan_is_cut_on_the_first_screen_only() {
    let numbers: Vec<String> = (1..=30).map(|number| number.to_string()).collect();
    let plan = plan(&entry(&format!("model: m\nworkload: chatbot\nmatrix: {{num_prompts: [{}]}}", numbers.join(", "))));
    let estimate = plan::estimate(&plan, &History::default(), 2);
    let short = plan::render(&plan, &estimate, Detail::Short);
    assert!(short.contains("and 10 points more"), "{short}");
    let full = plan::render(&plan, &estimate, Detail::Full);
    assert!(points(&plan).iter().all(|point| full.contains(&point.point)) && !full.contains(" more"), "{full}");
}
