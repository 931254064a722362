//! Several device classes in one plan: whose turn it is.

use bench::machine::device::DeviceClass;
use bench::presentation::plan_text::{self, Detail};
use bench::question::plan::{self, History, Plan};
use bench::question::resolve::Overrides;

use crate::{plan_of, plan_with};

/// Four points on each of two classes.
fn plan(defaults: &str, entry: &str) -> Plan {
    plan_of(&format!(
        "defaults: {{model: m, input_len: 8, output_len: 4, repeats: 5, {defaults}}}\nstandalone_runs:\n  - {{name: a, mode: \
         vllm_throughput, matrix: {{device: [cpu, cuda], num_prompts: 3..6 {entry}}}}}\n"
    ))
}

fn turns(plan: &Plan) -> Vec<DeviceClass> {
    plan.epochs.iter().map(|epoch| epoch.key.device).collect()
}

fn loads(plan: &Plan) -> Vec<usize> {
    (0..plan.epochs.len()).filter(|epoch| plan.loads_engine(*epoch)).collect()
}

fn shown(plan: &Plan) -> String {
    plan_text::render(plan, &plan::estimate(plan, &History::default(), 2), Detail::Full)
}

#[test]
fn one_class_is_measured_after_the_other() {
    let plan = plan("sentinel: none", "");
    assert_eq!(turns(&plan), [DeviceClass::Cpu, DeviceClass::Cuda]);
    assert_eq!(loads(&plan), [0, 1]);
    assert!(!plan.keeps_engine(0) && !plan.keeps_engine(1));
    let shown = shown(&plan);
    assert!(shown.contains("Engine 2 of 2 (device cpu -> cuda)"), "{shown}");
}

#[test]
fn classes_take_turns_by_point_where_that_is_asked_and_their_engines_stay_loaded() {
    let plan = plan("interleave_devices: true", "");
    let turns = turns(&plan);
    assert!(turns.windows(2).all(|both| both[0] != both[1]), "an epoch for each turn");
    assert!(turns.len() > 10, "{} turns in 40 runs", turns.len());
    let loads = loads(&plan);
    assert_eq!(loads.len(), 2);
    assert!(
        plan.epochs
            .iter()
            .enumerate()
            .all(|(index, epoch)| { loads.contains(&index) != (epoch.reason == "still loaded") })
    );
    let kept = (0..turns.len()).filter(|epoch| plan.keeps_engine(*epoch)).count();
    assert_eq!(kept, turns.len() - 2, "until the last turn of each");
    // Every point is measured once in each round, whosever turn it is.
    for round in 0..5 {
        let of_round = plan.epochs.iter().flat_map(|epoch| epoch.runs()).filter(|run| run.round == round);
        let mut points: Vec<&str> = of_round.map(|run| run.point.point.as_str()).collect();
        points.sort_unstable();
        points.dedup();
        assert_eq!(points.len(), 8);
    }
    let shown = shown(&plan);
    for words in [
        "8 points, 40 runs, 2 engine loads",
        &format!(
            "Engines 1 to 2 of 2 (all of them stay loaded; which one is measured changes {} times",
            turns.len() - 1
        ),
        "A process per point would take 8 engine loads",
    ] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
}

#[test]
fn a_class_with_more_engines_than_the_other_goes_on_alone() {
    let plan =
        plan("interleave_devices: true", ", quantization: [none, fp8], exclude: [{device: cpu, quantization: fp8}]");
    assert_eq!(loads(&plan).len(), 3);
    let last = plan.epochs.last().unwrap();
    assert_eq!((last.key.device, last.key.quantization.as_str()), (DeviceClass::Cuda, "fp8"));
    assert_eq!(last.runs().count(), 20, "all of its runs, in one epoch");
}

#[test]
fn a_comparison_of_classes_takes_no_load_between_its_members() {
    let plan = plan("", ", compare: device");
    assert_eq!(loads(&plan).len(), 2);
    let shown = shown(&plan);
    assert!(
        shown.contains("4 pairs compare device: A cpu, B cuda") && !shown.contains("with a load between"),
        "{shown}"
    );
    assert!(shown.contains("(of pairs: per run) would take 40 engine loads"), "{shown}");
}

#[test]
fn a_device_on_the_command_line_and_an_axis_of_devices_are_one_too_many() {
    let text = "standalone_runs:\n  - {name: a, mode: vllm_throughput, model: m, input_len: 8, output_len: 4, matrix: {device: [cpu, cuda]}}\n";
    let overrides = Overrides { device: Some(DeviceClass::Cuda), ..Overrides::default() };
    let error = plan_with(text, overrides).unwrap_err().to_string();
    assert!(error.contains("2:12: --device cuda was given, and the entry `a` has an axis `device`"), "{error}");
}
