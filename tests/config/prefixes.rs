//! Shared prefixes, hit rates, and the named workloads.

use std::path::Path;

use bench::machine::device::DeviceClass;
use bench::question::config::{self, WORKLOADS};
use bench::question::plan::{self, HitRate, NamedWorkload, Point};
use bench::question::resolve::{self, Overrides};

use crate::{entry, plan_of, plan_with, points, problems};

fn prefixes(text: &str) -> Vec<u32> {
    points(&plan_of(text)).into_iter().map(|point| point.prefix_len).collect()
}

#[test]
fn a_hit_rate_becomes_a_prefix_of_whole_blocks() {
    let lines = "args: --model m\ninput_len: 1024\noutput_len: 8\nnum_prompts: 4\n";
    for axis in ["prefix_hit_rate: [0, 0.5, 0.9]", "matrix: {prefix_hit_rate: [0, 0.5, 0.9]}"] {
        let plan = plan_of(&entry(&format!("{lines}{axis}")));
        let rates: Vec<Option<HitRate>> = points(&plan).into_iter().map(|point| point.prefix_hit_rate).collect();
        let rate = |asked, reachable| Some(HitRate { asked, reachable, block_size: 128 });
        assert_eq!(rates, [rate(0.0, 0.0), rate(0.5, 0.5), rate(0.9, 0.875)]);
        let labels: Vec<&str> = points(&plan).into_iter().map(|point| point.point.as_str()).collect();
        assert_eq!(labels, ["i1024-o8-p0-n4", "i1024-o8-p512-n4", "i1024-o8-p896-n4"]);
    }
    let rate = |args: &str, rate: &str| {
        prefixes(&entry(&format!("{lines}prefix_hit_rate: {rate}").replace("--model m", &format!("--model m {args}"))))
    };
    assert_eq!(rate("--block-size 32", "0.9"), [928]);
    let on = |device| Overrides { device: Some(device), ..Overrides::default() };
    let text = entry(&format!("{lines}prefix_hit_rate: 0.9"));
    assert_eq!(points(&plan_with(&text, on(DeviceClass::Cuda)).unwrap())[0].prefix_len, 928);
    let text = text.replace("--model m", "--model m --max-model-len 4096").replace("0.9", "0.7");
    assert_eq!(points(&plan_with(&text, on(DeviceClass::Tpu)).unwrap())[0].prefix_len, 1024 - 256, "blocks of 256");
}

#[test]
fn the_more_specific_of_a_prefix_and_a_hit_rate_counts() {
    let with = |defaults: &str, lines: &str| prefixes(&format!("defaults: {{{defaults}}}\n{}", entry(lines)));
    let lengths = "model: m, input_len: 512, output_len: 8";
    assert_eq!(with(&format!("{lengths}, prefix_len: 9"), "prefix_hit_rate: 0.5"), [256]);
    assert_eq!(with(&format!("{lengths}, prefix_hit_rate: 0.5"), "prefix_len: 9"), [9]);
    assert_eq!(with("model: m, prefix_hit_rate: 0.5", "workload: summarization"), [1800]);
    assert_eq!(with("model: m, workload: summarization", "prefix_hit_rate: 0.5"), [1024]);
    assert_eq!(with("model: m", "workload: summarization\nprefix_hit_rate: [0, 0.5]"), [0, 1024]);
}

#[test]
fn prefixes_and_hit_rates_that_cannot_be() {
    let lines = "model: m\ninput_len: 512\noutput_len: 8\nnum_prompts: 4\n";
    for (more, wanted) in [
        ("prefix_hit_rate: 0.9", "a `prefix_hit_rate` of 0.9 cannot be reached"),
        ("prefix_hit_rate: 0.9", "at most 0.75 of it can be"),
        ("prefix_hit_rate: 0.1", "the nearest that can be reached are 0 and 0.25"),
        ("prefix_hit_rate: 0.9\nprefix_mode: added", "it excludes `prefix_mode: added`"),
        ("prefix_hit_rate: 0.5\nargs: --no-enable-prefix-caching", "turns it off"),
        ("prefix_hit_rate: 0.5\ndevice: tpu", "give `--block-size` or `--max-model-len`"),
        (
            "prefix_hit_rate: 0.5\nprefix_len: 5",
            "`prefix_hit_rate` in the entry and `prefix_len` in the entry (line 9) give the same thing",
        ),
        ("prefix_hit_rate: 1.5", "a number from 0 to 1"),
        ("prefix_hit_rate: []", "a list with at least one item"),
        ("prefix_hit_rate: [0.5, 0.5]", "stands twice on the axis"),
        ("num_prefixes: 2", "`num_prefixes` needs a prefix"),
        ("num_prefixes: 8\nprefix_len: 128", "8 prefixes and 4 prompts"),
        ("num_prefixes: 0", "a whole number from 1"),
        ("scale: 1/8", "`scale` is of the lengths of a named `workload`"),
    ] {
        let found = problems(&entry(&format!("{lines}{more}")));
        assert!(found.len() == 1 && found[0].contains(wanted), "{more}: {found:?}");
    }
    let both = "defaults: {prefix_len: 5, prefix_hit_rate: 0.5, model: m}\n".to_owned() + &entry("workload: chatbot");
    assert!(problems(&both)[0].contains("`prefix_hit_rate` gives the length of the prefix"), "{:?}", problems(&both));
    let scaled = |scale: &str| problems(&entry(&format!("model: m\nworkload: summarization\nscale: {scale}")));
    assert!(scaled("1/1000")[0].contains("leaves nothing of a length"), "{:?}", scaled("1/1000"));
    assert!(scaled("0.125")[0].contains("such as 1/8"), "{:?}", scaled("0.125"));
}

#[test]
fn prefixes_are_counted_where_there_are_any() {
    let text = entry(
        "model: m\ninput_len: 512\noutput_len: 8\nnum_prompts: 4\nprefix_hit_rate: [0, 0.5]\nmatrix: {num_prefixes: [1, 4]}",
    );
    let plan = plan_of(&text);
    let primed: Vec<(u32, u32)> =
        points(&plan).into_iter().map(|point| (point.prefix_len, point.primed_prefixes())).collect();
    assert_eq!(primed, [(0, 0), (0, 0), (256, 1), (256, 4)]);
    assert_eq!(points(&plan)[3].point, "i512-o8-p256-n4-prefixes4");
}

#[test]
fn workloads_have_their_lengths_and_are_scaled_by_a_stated_factor() {
    let names = WORKLOADS.map(|workload| workload.name).join(", ");
    let plan = plan_of(&entry(&format!("model: m\nworkload: [{names}]")));
    let lengths = |point: &Point| (point.input_len, point.output_len, point.prefix_len);
    let full: Vec<_> = points(&plan).into_iter().map(lengths).collect();
    let table =
        [(2048, 8192, 0), (1024, 4096, 0), (1024, 1024, 0), (8192, 2048, 7900), (2048, 256, 1800), (4096, 256, 3800)];
    assert_eq!(full, table);

    let plan = plan_of(&format!("defaults: {{scale: 1/8, model: m}}\n{}", entry(&format!("workload: [{names}]"))));
    let scaled: Vec<_> = points(&plan).into_iter().map(lengths).collect();
    assert_eq!(scaled, table.map(|(input, output, prefix)| (input / 8, output / 8, prefix / 8)));
    let workload = NamedWorkload { name: "code-generation".into(), scale: "1/8".into() };
    assert_eq!(points(&plan)[3].workload, Some(workload));
}

/// What a file in `configs/` plans.
fn plan_of_file(name: &str, device: Option<DeviceClass>) -> plan::Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
    let config = config::load(&path).unwrap();
    resolve::resolve(&config, Overrides { device, ..Overrides::default() }).unwrap()
}

#[test]
fn the_files_have_all_six_workloads_on_one_engine() {
    for (name, device, scale) in [("ironwood.yaml", Some(DeviceClass::Tpu), "1/1"), ("workloads-cpu.yaml", None, "1/8")]
    {
        let plan = plan_of_file(name, device);
        assert_eq!(plan.epochs.len(), 1, "{name}");
        let workloads: Vec<&NamedWorkload> =
            points(&plan).into_iter().map(|point| point.workload.as_ref().unwrap()).collect();
        assert!(workloads.iter().all(|workload| workload.scale == scale), "{workloads:?}");
        let names: Vec<&str> = workloads.iter().map(|workload| workload.name.as_str()).collect();
        assert_eq!(names, WORKLOADS.map(|workload| workload.name), "{name}");
    }
    let key = &plan_of_file("ironwood.yaml", None).epochs[0].key;
    assert_eq!((key.device, key.tensor_parallel_size), (DeviceClass::Tpu, 8));
    assert_eq!(key.model, "meta-llama/Llama-3.1-70B-Instruct");
}

#[test]
fn lengths_are_checked_against_a_model_of_the_hub_that_is_known() {
    let model = "args: --model meta-llama/Llama-3.1-70B-Instruct\n";
    plan_of(&entry(&format!("{model}input_len: 131000\noutput_len: 72")));
    let found = problems(&entry(&format!("{model}input_len: 131000\noutput_len: 73")));
    assert!(found[0].contains("131073 together, and `max_position_embeddings` in the model's"), "{found:?}");
    let longer = model.replace("\n", " --max-model-len 131073\n") + "input_len: 8\noutput_len: 8";
    let found = problems(&entry(&longer));
    assert!(found[0].contains("131073 in `args` is above the 131072 positions"), "{found:?}");
    plan_of(&entry(&longer.replace("--max-model-len", "--hf-overrides '{\"a\":1}' --max-model-len")));
}
