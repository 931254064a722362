//! Axes of a matrix: ranges, axes that go together, points that are left out.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::{entry, load, plan_of, points, problems};

fn prompts(axis: &str) -> Vec<u32> {
    let plan =
        plan_of(&entry(&format!("args: --model m\ninput_len: 8\noutput_len: 4\nmatrix: {{num_prompts: {axis}}}")));
    points(&plan).into_iter().map(|point| point.num_prompts).collect()
}

fn problems_of_axis(axis: &str) -> Vec<String> {
    problems(&entry(&format!("args: --model m\ninput_len: 8\noutput_len: 4\nmatrix: {{num_prompts: {axis}}}")))
}

#[test]
fn ranges_stand_for_their_values() {
    assert_eq!(prompts("1..4"), [1, 2, 3, 4]);
    assert_eq!(prompts("1..64*2"), [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(prompts("100..1000*3"), [100, 300, 900], "the end is met or not");
    assert_eq!(prompts("128..640+256"), [128, 384, 640]);
    assert_eq!(prompts("5..5"), [5]);
    assert_eq!(prompts("[1..3, 8, 16..64*2]"), [1, 2, 3, 8, 16, 32, 64]);
    let in_entry = plan_of(&entry("args: --model m\ninput_len: 8..32*2\noutput_len: 4\nnum_prompts: 1"));
    assert_eq!(points(&in_entry).into_iter().map(|point| point.input_len).collect::<Vec<_>>(), [8, 16, 32]);
}

#[test]
fn ranges_that_are_none_are_told() {
    for axis in ["4..1", "0..8*2", "1..8*1", "1..8+0", "1..", "..4", "1..4..8", "1..8*2+1", "-1..4", "1..1e3"] {
        let told = problems_of_axis(axis);
        assert!(told[0].starts_with("7:27 ") && told[0].contains("is not a range such as"), "{axis}: {told:?}");
    }
    let twice = problems_of_axis("[1..4, 3]");
    assert!(twice[0].contains("stands twice on the axis `num_prompts`"), "{twice:?}");
    let beyond = problems_of_axis("999999..1000001");
    assert!(beyond[0].contains("whole number from 1 to 1000000"), "{beyond:?}");
    let word = problems(&entry("args: --model m\ninput_len: 8\noutput_len: 4\nmatrix: {quantization: none..fp8}"));
    assert!(word[0].contains("`quantization` has to be a list"), "{word:?}");
}

#[test]
fn a_short_text_cannot_stand_for_more_than_can_be_planned() {
    let began = Instant::now();
    let many = "input_len: 1..9999999\noutput_len: 1..9999999\nnum_prompts: 1..999999";
    let text = entry(&format!("args: --model m\n{many}"));
    assert!(load(&text).unwrap_err().to_string().contains("more than 100000 values"));
    assert!(began.elapsed().as_secs() < 5, "took {:?}", began.elapsed());
}

#[test]
fn linked_axes_go_together_and_cross_with_the_others() {
    let lines = "args: --model m\nmatrix:\n  linked:\n  - {input_len: [8, 16, 32], output_len: 2..6+2}\n  \
                 num_prompts: [1, 2]";
    let plan = plan_of(&entry(lines));
    let found: Vec<_> = points(&plan).into_iter().map(|p| (p.input_len, p.output_len, p.num_prompts)).collect();
    assert_eq!(found, [(8, 2, 1), (8, 2, 2), (16, 4, 1), (16, 4, 2), (32, 6, 1), (32, 6, 2)]);
}

#[test]
fn linked_axes_that_do_not_fit_are_told() {
    let told =
        |linked: &str| problems(&entry(&format!("args: --model m\noutput_len: 4\nmatrix: {{linked: {linked}}}")));
    assert!(told("[{input_len: [1, 2], num_prompts: [1]}]")[0].contains("`num_prompts` has 1 values and `input_len`"));
    assert!(told("[{input_len: [1, 2]}]")[0].contains("nothing to be linked with"));
    assert!(told("[{input_len: [1, 2], output_len: [1, 2]}]")[0].contains("give the same thing"));
    assert!(told("[{input_lem: [1, 2], num_prompts: [1, 2]}]")[0].contains("input_len"), "the nearest axis is named");
}

#[test]
fn excluded_points_are_left_out() {
    let matrix = "  input_len: [8, 512]\n  num_prompts: 1..64*2\n  max_num_seqs: [4, 64]\n  exclude:\n  \
                  - {input_len: 512, num_prompts: 33..64}\n  - {num_prompts: [1, 2, 4], max_num_seqs: 64}";
    let plan = plan_of(&entry(&format!("args: --model m\noutput_len: 4\nmatrix:\n{matrix}")));
    let found: BTreeSet<_> =
        points(&plan).into_iter().map(|p| (p.input_len, p.num_prompts, p.limits.max_num_seqs.unwrap())).collect();
    assert_eq!(found.len(), 28 - 2 - 6);
    assert!(!found.contains(&(512, 64, 4)) && found.contains(&(512, 32, 4)) && found.contains(&(8, 64, 4)));
    assert!(!found.contains(&(8, 4, 64)) && found.contains(&(8, 8, 64)));
}

#[test]
fn an_exclusion_sees_what_counts_wherever_it_was_given() {
    let text = "
defaults: {model: m, output_len: 4, num_prompts: 64, matrix: {input_len: [8, 16], exclude: [{num_prompts: 64, input_len: 16}]}}
standalone_runs:
  - {name: a, mode: vllm_throughput}
  - {name: b, mode: vllm_throughput, num_prompts: 1}
";
    let plan = plan_of(text);
    let found: Vec<_> = points(&plan).into_iter().map(|point| (point.name.as_str(), point.input_len)).collect();
    assert_eq!(found, [("a", 8), ("b", 8), ("b", 16)]);
}

#[test]
fn exclusions_without_effect_or_sense_are_told() {
    let told = |exclude: &str| {
        let lines = format!("args: --model m\noutput_len: 4\nmatrix:\n  input_len: [8, 16]\n  exclude: {exclude}");
        problems(&entry(&lines))
    };
    assert!(told("[{input_len: 9}]")[0].contains("excludes no point"));
    assert!(told("[{output_len: 4}]")[0].contains("leaves no point of the entry"));
    assert!(told("[{}]")[0].contains("names no key"));
    assert!(told("[{input_len: 1..64*2}]")[0].contains("ranges without steps"));
    assert!(told("[{input_lem: 8}]")[0].contains("input_len"));
    assert!(told("{input_len: 8}")[0].contains("has to be a list"));
}

#[test]
fn what_costs_most_to_change_changes_least() {
    let text = entry(
        "input_len: 8\noutput_len: 4\nnum_prompts: 1\n\
         matrix: {quantization: [none, fp8], tensor_parallel_size: [1, 2], model: [a, b]}",
    );
    let reasons: Vec<String> = plan_of(&text).epochs.into_iter().map(|epoch| epoch.reason).collect();
    let models = reasons.iter().filter(|reason| reason.contains("model a")).count();
    let sizes = reasons.iter().filter(|reason| reason.contains("tensor_parallel_size")).count();
    assert_eq!((reasons.len(), models, sizes), (8, 1, 3), "{reasons:?}");
}

#[test]
fn a_file_that_shares_much_among_many_entries_is_read_at_once() {
    let began = Instant::now();
    let many = "  - {name: a, mode: vllm_throughput, output_len: [1, 2]}\n".repeat(2_000);
    let text =
        format!("defaults: {{model: m, input_len: 8, matrix: {{num_prompts: 1..90000}}}}\nstandalone_runs:\n{many}");
    assert!(problems(&text)[0].contains("at most 100000 are planned"));
    let values = vec!["1"; 1_001].join(", ");
    let text = entry(&format!(
        "model: m\ninput_len: 8\noutput_len: 4\nmatrix: {{num_prompts: 1..9, exclude: [{{num_prompts: [{values}]}}]}}"
    ));
    assert!(problems(&text)[0].contains("more than 1000 values"));
    assert!(began.elapsed().as_secs() < 5, "took {:?}", began.elapsed());
}
