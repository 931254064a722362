//! What a file says arrives in the plan.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bench::machine::device::DeviceClass;
use bench::question::config::{self, BUILTIN_MODEL, BUILTIN_MODEL_CONFIG, BUILTIN_SMOKE};
use bench::question::plan::{Drive, Load, Point, PrefixMode, Quantization, StepApi};
use bench::question::resolve::{self, Overrides};

use crate::{EXISTING_FORMAT, entry, load, plan_of, plan_with, points, problems};

#[test]
fn the_existing_format_loads_unchanged() {
    let plan = plan_of(EXISTING_FORMAT);
    assert_eq!(plan.name, "sweep");
    assert_eq!(plan.epochs.len(), 1);
    let key = &plan.epochs[0].key;
    assert_eq!(key.model, "meta-llama/Llama-3.1-70B-Instruct");
    assert_eq!((key.tensor_parallel_size, key.device, key.quantization), (8, DeviceClass::Cpu, Quantization::None));
    assert!(key.engine_args.is_empty(), "{:?}", key.engine_args);
    let [point] = points(&plan)[..] else { panic!("{plan:?}") };
    assert_eq!(point.name, "Ironwood-CodeGen-HighCache");
    assert_eq!((point.input_len, point.output_len, point.prefix_len), (8192, 2048, 7900));
    assert_eq!((point.num_prompts, point.repeats, point.warmup, point.telemetry_hz), (1000, 5, 1, 10));
    assert_eq!(point.load, Load::Closed { concurrency: None });
    assert_eq!(point.point, "i8192-o2048-p7900-n1000");
    let at = &point.location.0;
    assert_eq!((at.line, at.column), (10, 21));
}

#[test]
fn the_command_line_counts_more_than_the_file() {
    let text = entry("device: tpu\nrepeats: 2\nseed: 9\nworkload: chatbot\nargs: --model m");
    let overrides =
        Overrides { device: Some(DeviceClass::Cuda), repeats: Some(7), seed: Some(3), ..Overrides::default() };
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
         load: {closed: {concurrency: 4}}\ntelemetry_hz: 3\ndrive: stepped\nstep_api: llm_engine\n\
         limits: {max_num_seqs: 64, max_num_batched_tokens: 256}\nslo: {p99_ttft_s: 0.5, output_tokens_per_s: 100}",
    );
    let plan = plan_of(&text);
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
    assert_eq!((point.drive, point.telemetry_hz), (Drive::Stepped, 3));
    assert_eq!((point.limits.max_num_seqs, point.limits.max_num_batched_tokens), (Some(64), Some(256)));
    let slo: Vec<_> = point.slo.iter().map(|(metric, bound)| (metric.as_str(), *bound)).collect();
    assert_eq!(slo, [("output_tokens_per_s", 100.0), ("p99_ttft_s", 0.5)]);
}

#[test]
fn the_more_specific_level_counts() {
    let with_defaults = |defaults: &str, lines: &str| format!("defaults: {{{defaults}}}\n{}", entry(lines));
    let lengths = |text: &str| {
        let plan = plan_of(text);
        let point = points(&plan)[0];
        (point.input_len, point.output_len, point.prefix_len)
    };
    let workload = "model: m, workload: code-generation";
    assert_eq!(lengths(&with_defaults(workload, "repeats: 1")), (8192, 2048, 7900));
    assert_eq!(lengths(&with_defaults(workload, "prefix_len: 0")), (8192, 2048, 0));
    assert_eq!(lengths(&with_defaults(workload, "workload: chatbot")), (1024, 1024, 0));
    assert_eq!(lengths(&with_defaults("model: m", "workload: code-generation\nprefix_len: 5")), (8192, 2048, 5));
    assert_eq!(
        lengths(&with_defaults("model: m", "prefix_len: 5\nmatrix: {workload: [summarization]}")),
        (2048, 256, 5)
    );
    assert_eq!(lengths(&with_defaults(workload, "length_configs: [{input_len: 9, output_len: 8}]")), (9, 8, 0));
    assert_eq!(lengths(&with_defaults("model: m, prefix_len: 5", "input_len: 9\noutput_len: 8")), (9, 8, 5));
    let own_prefix = "args: --prefix-len 3\nlength_configs: [{input_len: 9, output_len: 8, prefix_len: 6}]";
    assert_eq!(lengths(&with_defaults("model: m", own_prefix)), (9, 8, 6));
    let words = "args: --model m --input-len 9 --output-len=8 --prefix-len 9";
    assert_eq!(lengths(&with_defaults("", words)), (9, 8, 9), "a prompt may be shared as a whole");

    let plan = plan_of(&with_defaults("args: --model m --enforce-eager, workload: chatbot", "args: --max-num-seqs 2"));
    assert_eq!(plan.epochs[0].key.engine_args, ["--max-num-seqs", "2"], "args of the entry replace those of defaults");
    assert_eq!(plan.epochs[0].key.model, "m", "and words taken out stay a setting of their level");
}

#[test]
fn the_sweeps_for_accelerators_are_planned_without_a_refused_setting() {
    for device in [DeviceClass::Cuda, DeviceClass::Tpu] {
        let overrides = Overrides { device: Some(device), ..Overrides::default() };
        let smoke = resolve::resolve(&config::builtin_smoke(device), overrides).unwrap();
        assert_eq!((smoke.epochs.len(), smoke.device_classes()), (1, vec![device]));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let check =
        resolve::resolve(&config::load(&root.join("configs/gpu-check.yaml")).unwrap(), Overrides::default()).unwrap();
    assert_eq!((check.epochs.len(), check.device_classes()), (3, vec![DeviceClass::Cuda]));
}

#[test]
fn flags_that_a_class_is_refused_with_are_errors_where_they_stand_and_mean_nothing_to_a_script() {
    let text = entry("args: --model m --enforce_eager --kv-cache-memory-bytes=1\nworkload: chatbot");
    assert_eq!(plan_of(&text).epochs.len(), 1, "a CPU takes them");
    let on_tpu = text.clone() + "    device: tpu\n";
    let said = problems(&on_tpu);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("4:11 `--enforce-eager` is refused on tpu: it skips the compilation"), "{said:?}");
    assert!(said[1].contains("give --num-gpu-blocks-override"), "{said:?}");
    plan_with(&on_tpu, Overrides { scripted: true, ..Overrides::default() }).unwrap();
}

#[test]
fn the_smoke_sweep_is_the_file_and_loads_one_engine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("configs/smoke-cpu.yaml");
    assert_eq!(fs::read_to_string(&path).unwrap(), BUILTIN_SMOKE);
    let built_in = resolve::resolve(&config::builtin_smoke(DeviceClass::Cpu), Overrides::default()).unwrap();
    let from_file = resolve::resolve(&config::load(&path).unwrap(), Overrides::default()).unwrap();
    assert_eq!(built_in, from_file, "places aside, which do not count");

    let [epoch] = &built_in.epochs[..] else { panic!("{} engine loads", built_in.epochs.len()) };
    assert_eq!(epoch.key.model, BUILTIN_MODEL);
    let labels: Vec<&str> = epoch.points.iter().map(|point| point.point.as_str()).collect();
    let expected = [
        "i64-o32-p0-n1",
        "i64-o32-p0-n8",
        "i64-o32-p0-n64",
        "i64-o32-p0-n64-seqs16",
        "i512-o32-p0-n8",
        "i512-o32-p384-n8",
        "i512-o32-p0-n8-tok256",
    ];
    assert_eq!(labels, expected);
    assert_eq!(epoch.rounds.len(), 5);
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
        let plan = plan_of(block);
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
        format!("defaults: {{zzz: 1}}\n{}", entry("workload: chatbot\nmodel: m")),
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

#[test]
fn a_byte_order_mark_is_skipped() {
    let text = entry("model: m\nworkload: chatbot");
    assert_eq!(load(format!("\u{feff}{text}")).unwrap().entries, load(&text).unwrap().entries);
    assert_eq!(problems("\u{feff}a: 1\n")[0].split_once(' ').unwrap().0, "1:1");
}

#[test]
fn a_whole_number_may_have_a_point_and_zeros() {
    let text =
        entry("model: m\ninput_len: &a 64.0\noutput_len: 8.\nmatrix: {num_prompts: [4.00, 5], concurrency: [+2.0]}");
    let plan = plan_of(&text);
    let points: Vec<(u32, u32, u32)> =
        points(&plan).into_iter().map(|point| (point.input_len, point.output_len, point.num_prompts)).collect();
    assert_eq!(points, [(64, 8, 4), (64, 8, 5)]);
    for (lines, place) in [
        ("model: m\ninput_len: 64.5\noutput_len: 1", "5:16"),
        ("model: m\ninput_len: 1e-1\noutput_len: 1", "5:16"),
        ("model: m\ninput_len: 1e17\noutput_len: 1", "5:16"),
        ("model: m\ninput_len: -64.0\noutput_len: 1", "5:16"),
        ("model: m\ninput_len: .inf\noutput_len: 1", "5:16"),
        ("model: m\nmatrix: {num_prompts: [4, 4.0]}\ninput_len: 1\noutput_len: 1", "5:31"),
    ] {
        assert!(problems(&entry(lines))[0].starts_with(&format!("{place} ")), "{:?}", problems(&entry(lines)));
    }
}

#[test]
fn number_is_read_right_behind_an_unusual_line_end() {
    let text = entry("# \u{2028}\nmodel: m\ninput_len: 1\noutput_len: 320.5\nnum_prompts: 4.0");
    assert!(problems(&text)[0].contains("`output_len` has to be a whole number"), "{:?}", problems(&text));
    assert_eq!(points(&plan_of(&text.replace("320.5", "320.0")))[0].output_len, 320);
}

#[test]
fn what_yaml_allows_and_the_format_does_not_is_named() {
    for (text, place, words) in [
        ("standalone_runs:\n\t- name: a\n", "2:1", "a tab in the indentation"),
        ("standalone_runs:\n  - name: a\n  \tmode: vllm_throughput\n", "3:3", "a tab in the indentation"),
        ("standalone_runs:\n  - name: a\n\tmode: vllm_throughput\n", "3:1", "a tab in the indentation"),
        ("standalone_runs:\n  - name: !foo a\n", "2:11", "YAML tags"),
        ("standalone_runs:\n  - !foo\n    name: a\n", "2:5", "YAML tags"),
        ("!foo\nstandalone_runs: []\n", "1:1", "YAML tags"),
        ("standalone_runs: !foo [1]\n", "1:18", "YAML tags"),
        ("!foo standalone_runs: [1]\n", "1:1", "YAML tags"),
        ("defaults: {}\nstandalone_runs:\n  - {name: a, mode: !!str x}\n", "3:21", "YAML tags"),
        ("a: !foo\n", "1:4", "YAML tags"),
        ("a: !!python/object:os.system x\n", "1:4", "YAML tags"),
    ] {
        let found = problems(text);
        assert!(found[0].starts_with(&format!("{place} ")) && found[0].contains(words), "{text}\n{found:?}");
    }
}
