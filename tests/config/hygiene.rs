//! Sentinels and reset checks: where they stand in a plan.

use bench::presentation::plan_text::{self, Detail};
use bench::question::plan::{self, Drive, History, Plan, Role};

use crate::{plan_of, problems};

/// Twelve points of one engine.
fn plan_with_defaults(defaults: &str, entry: &str) -> Plan {
    plan_of(&format!(
        "defaults: {{model: m, input_len: 8, output_len: 4, {defaults}}}\nstandalone_runs:\n  - {{name: a, mode: \
         vllm_throughput, matrix: {{num_prompts: 3..14}}, {entry}}}\n"
    ))
}

/// What each run is for, a letter each: `m`easured, `s`entinel, after a `r`eset, on a `f`resh engine.
fn letters(plan: &Plan) -> Vec<String> {
    let letter = |role| match role {
        Role::Measured => 'm',
        Role::Sentinel => 's',
        Role::AfterReset => 'r',
        Role::FreshEngine => 'f',
    };
    plan.epochs.iter().map(|epoch| epoch.runs().map(|run| letter(run.point.role)).collect()).collect()
}

#[test]
fn a_sentinel_runs_first_and_last_and_at_even_distances() {
    let plan = plan_with_defaults("sentinel: {every: 5}, repeats: 1", "");
    assert_eq!(letters(&plan), ["smmmmmsmmmmmsmms"]);
    let sentinels: Vec<_> = plan.epochs[0].runs().filter(|run| run.point.role == Role::Sentinel).collect();
    assert_eq!(sentinels.iter().map(|run| run.repeat).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let point = sentinels[0].point;
    assert_eq!(
        (point.point.as_str(), point.num_prompts, point.repeats),
        ("sentinel-i8-o4-p0-n3", 3, 4),
        "the lightest"
    );
    assert!((0..4).all(|repeat| point.prompt_stream(repeat) == 0), "the same work each time");
    let measured = &plan.epochs[0].points[0];
    assert_eq!((measured.prompt_stream(0), measured.prompt_stream(3)), (0, 3));
    assert_eq!((plan.num_points(), plan.num_runs(), plan.num_runs_of(Role::Measured)), (12, 16, 12));
    let shown = plan_text::render(&plan, &plan::estimate(&plan, &History::default(), 2), Detail::Full);
    assert!(shown.contains("12 points, 12 runs and 4 of sentinels, 1 engine load"), "{shown}");
    assert!(shown.contains("sentinel-i8-o4-p0-n3: the lightest point, 4 times through the epoch"), "{shown}");
}

#[test]
fn long_epochs_have_sentinels_without_being_asked() {
    let count = |defaults: &str| plan_with_defaults(defaults, "").num_runs_of(Role::Sentinel);
    assert_eq!(count("repeats: 3"), 0, "36 runs");
    assert_eq!(count("repeats: 4"), 11, "48 runs");
    assert_eq!(count("repeats: 50"), 11);
    assert_eq!(count("repeats: 50, sentinel: auto"), 11);
    assert_eq!(count("repeats: 50, sentinel: none"), 0);
    let single =
        "defaults: {model: m, workload: chatbot, repeats: 99}\nstandalone_runs: [{name: a, mode: vllm_throughput}]";
    assert_eq!(plan_of(single).num_runs_of(Role::Sentinel), 0, "a single point is its own sentinel");
    // The orders of the measured points are those without sentinels.
    let order = |defaults: &str| -> Vec<String> {
        let plan = plan_with_defaults(defaults, "");
        let measured = plan.epochs[0].runs().filter(|run| run.point.role.is_measured());
        measured.map(|run| format!("{} {} {}", run.point.point, run.round, run.repeat)).collect()
    };
    assert_eq!(order("repeats: 4"), order("repeats: 4, sentinel: none"));
}

#[test]
fn no_sentinel_comes_between_the_members_of_a_pair() {
    let text = "defaults: {model: m, input_len: 8, output_len: 4, sentinel: {every: 2}}\nstandalone_runs:\n  - {name: a, \
                mode: vllm_throughput, repeats: 3, matrix: {num_prompts: [1, 2], warmup: [0, 1], compare: warmup}}\n";
    assert_eq!(letters(&plan_of(text)), ["smmsmmsmmsmmsmmsmms"]);
}

#[test]
fn a_reset_check_ends_an_epoch_and_loads_a_fresh_engine() {
    let plan = plan_with_defaults("check_reset: true, repeats: 1", "quantization: [none, fp8]");
    assert_eq!(letters(&plan), ["mmmmmmmmmmmmr", "f", "mmmmmmmmmmmmr", "f"]);
    let [used, fresh] = [&plan.epochs[0], &plan.epochs[1]];
    assert_eq!(used.key, fresh.key);
    let (after, on_fresh) = (used.points.last().unwrap(), &fresh.points[0]);
    assert_eq!(after.point, "after-reset-i8-o4-p0-n3-tp1".replace("-tp1", ""));
    assert_eq!(
        (after.seed, after.input_len, after.num_prompts),
        (on_fresh.seed, on_fresh.input_len, on_fresh.num_prompts)
    );
    assert_eq!((after.drive, on_fresh.drive), (Drive::Stepped, Drive::Stepped));
    assert!(plan.epochs[2].reason.contains("quantization none -> fp8"), "{}", plan.epochs[2].reason);
    let shown = plan_text::render(&plan, &plan::estimate(&plan, &History::default(), 2), Detail::Full);
    assert!(shown.contains("24 points, 24 runs and 4 to check the reset, 4 engine loads"), "{shown}");
    assert!(shown.contains("Engine 2 of 4 (a fresh engine of the same settings"), "{shown}");
}

#[test]
fn what_is_no_sentinel_is_told() {
    let told = |line: &str| {
        let text = format!(
            "defaults:\n  {line}\nstandalone_runs:\n  - {{name: a, mode: vllm_throughput, model: m, workload: chatbot}}\n"
        );
        problems(&text).remove(0)
    };
    assert!(
        told("sentinel: always").starts_with("2:13 unknown value of `sentinel`: `always`"),
        "{}",
        told("sentinel: always")
    );
    assert!(told("sentinel: 5").starts_with("2:13 `sentinel` has to be one of none, auto"));
    assert!(told("sentinel: {every: 0}").starts_with("2:21 `every` has to be a whole number from 1"));
    assert!(told("sentinel: {evry: 3}").contains("`every`"));
    assert!(
        told("check_reset: 1").starts_with("2:16 `check_reset` has to be true or false, and here it is the number 1")
    );
    assert!(told("check_rest: true").contains("`check_reset`"));
    let in_entry =
        "standalone_runs:\n  - {name: a, mode: vllm_throughput, model: m, workload: chatbot, sentinel: none}\n";
    assert!(problems(in_entry)[0].contains("`sentinel` is of the whole sweep: it belongs into `defaults`"));
}
