//! A plan as text: what `--dry-run` prints and what every command shows first.

mod points;
mod power;
mod time;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use crate::question::plan::class::shell;
use crate::question::plan::{
    Arm, EngineKey, Epoch, Estimate, Plan, Point, QuantizationSwitches, Role, SettingClass, StepApi, VaryingSetting,
};

/// Points of an epoch that a short rendering shows.
const SHORT_POINTS: usize = 20;

/// Values of a setting that are shown.
const SHOWN_VALUES: usize = 8;

/// How much of a plan is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Every point, for `--dry-run`.
    Full,
    /// The first points of each epoch, as a first screen.
    Short,
}

/// The plan as plain text of whole lines.
pub fn render(plan: &Plan, estimate: &Estimate, detail: Detail) -> String {
    let mut lines = vec![headline(plan)];
    lines.extend(varying(&plan.varying));
    let groups = groups(plan);
    for group in &groups {
        lines.push(String::new());
        let (of_group, known) = (&plan.epochs[group.clone()], estimate.epochs.get(group.clone()));
        match alternates(of_group) {
            true => lines.extend(alternating_lines(plan, group, detail)),
            false => lines.extend(epoch_lines(plan, group.start, detail)),
        }
        lines.extend(known.and_then(time::of_epochs));
    }
    lines.push(String::new());
    let (prompt_tokens, output_tokens) = tokens(plan);
    lines.push(format!(
        "Work: {}, {}, {} prompt tokens, {} output tokens (measured requests alone)",
        counted(plan.num_loads(0..plan.epochs.len()), "engine load"),
        counted(plan.num_runs(), "run"),
        grouped(prompt_tokens),
        grouped(output_tokens)
    ));
    lines.extend(power::of_pairs(plan, estimate));
    lines.push(format!("Estimated time: {}", time::of_plan(plan, estimate)));
    let alternating: Vec<Range<usize>> =
        groups.into_iter().filter(|group| alternates(&plan.epochs[group.clone()])).collect();
    lines.extend(time::process_per_point(plan, estimate, &alternating));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn headline(plan: &Plan) -> String {
    let points = counted(plan.num_points(), "point");
    let mut runs = counted(plan.num_runs_of(Role::Measured), "run");
    let sentinels = plan.num_runs_of(Role::Sentinel);
    if sentinels > 0 {
        runs += &format!(" and {} of sentinels", grouped(sentinels as u64));
    }
    let checks = plan.num_runs_of(Role::AfterReset) + plan.num_runs_of(Role::FreshEngine);
    if checks > 0 {
        runs += &format!(" and {} to check the reset", grouped(checks as u64));
    }
    let loads = counted(plan.num_loads(0..plan.epochs.len()), "engine load");
    format!("Plan {}: {points}, {runs}, {loads}, seed {}", plan.name, plan.seed)
}

/// Which settings differ between points, by what a change of them costs.
fn varying(settings: &[VaryingSetting]) -> Vec<String> {
    let mut lines = Vec::new();
    for (class, cost) in [
        (SettingClass::EngineKey, "reloads the engine"),
        (SettingClass::Live, "is lowered on the running engine"),
        (SettingClass::Run, "changes from run to run"),
    ] {
        let of_class: Vec<String> = settings.iter().filter(|setting| setting.class == class).map(values_of).collect();
        if !of_class.is_empty() {
            lines.push(format!("  {cost}: {}", of_class.join("; ")));
        }
    }
    if !lines.is_empty() {
        lines.insert(0, "What varies:".to_owned());
    }
    lines
}

fn values_of(setting: &VaryingSetting) -> String {
    let shown = setting.values.len().min(SHOWN_VALUES);
    let mut values = setting.values[..shown].join(", ");
    if shown < setting.values.len() {
        values += &format!(" and {} more", setting.values.len() - shown);
    }
    format!("{} {values}", setting.name)
}

/// Epochs between which pairs or device classes go to and fro, together; every other epoch alone.
fn groups(plan: &Plan) -> Vec<Range<usize>> {
    let in_pairs = |epoch: &Epoch| epoch.points.iter().all(|point| point.role.is_measured());
    let mut last: BTreeMap<&EngineKey, usize> = BTreeMap::new();
    for (index, epoch) in plan.epochs.iter().enumerate().filter(|(_, epoch)| in_pairs(epoch)) {
        last.insert(&epoch.key, index);
    }
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut end = 0;
    for (index, epoch) in plan.epochs.iter().enumerate() {
        if index >= end {
            groups.push(index..index + 1);
        }
        end = end.max(last.get(&epoch.key).map_or(index, |last| *last) + 1);
        if let Some(group) = groups.last_mut() {
            group.end = index + 1;
        }
    }
    groups
}

/// Whether a group of epochs goes from one engine to another and back.
fn alternates(epochs: &[Epoch]) -> bool {
    epochs.len() > 1
}

fn epoch_lines(plan: &Plan, index: usize, detail: Detail) -> Vec<String> {
    let epoch = &plan.epochs[index];
    let (number, all) = (plan.num_loads(0..index + 1), plan.num_loads(0..plan.epochs.len()));
    let mut lines = vec![format!("Engine {number} of {all} ({})", epoch.reason)];
    lines.extend(engine_lines(&epoch.key));
    let measured: Vec<&Point> = epoch.points.iter().filter(|point| point.role.is_measured()).collect();
    if !measured.is_empty() {
        lines.push(rounds(&measured, epoch.rounds.len()));
        lines.extend(pairs(&measured, false));
        lines.extend(point_lines(&measured, detail));
    }
    for point in epoch.points.iter().filter(|point| !point.role.is_measured()) {
        lines.push(match point.role {
            Role::Sentinel => format!(
                "  {}: the lightest point, {} through the epoch, with the same prompts each time",
                point.point,
                times(point.repeats as usize)
            ),
            _ => format!("  {}: once, stepped by the harness", point.point),
        });
    }
    lines
}

/// A group of epochs between which pairs or device classes go to and fro. It has neither sentinels nor a check of the reset,
/// which are of one engine that measures without a break.
fn alternating_lines(plan: &Plan, group: &Range<usize>, detail: Detail) -> Vec<String> {
    let of_group = &plan.epochs[group.clone()];
    let keys: BTreeSet<&EngineKey> = of_group.iter().map(|epoch| &epoch.key).collect();
    let loads = plan.num_loads(group.clone());
    let (first, last) = (plan.num_loads(0..group.start) + 1, plan.num_loads(0..group.end));
    let what_for = match loads > keys.len() {
        true => "each load for the next member of a pair".to_owned(),
        false => format!("all of them stay loaded; which one is measured changes {} times", of_group.len() - 1),
    };
    let all = plan.num_loads(0..plan.epochs.len());
    let mut lines =
        vec![format!("Engines {first} to {last} of {all} ({what_for}; neither sentinels nor a check of the reset)")];
    for key in &keys {
        lines.extend(engine_lines(key));
    }
    let mut seen = HashSet::new();
    let points = of_group.iter().flat_map(|epoch| &epoch.points).filter(|point| seen.insert(&point.point));
    let mut points: Vec<&Point> = points.collect();
    points.sort_by_key(|point| point.pair.as_ref().map(|member| (member.pair, member.arm)));
    let rounds_of = |epoch: &Epoch| epoch.first_round as usize + epoch.rounds.len();
    lines.push(rounds(&points, of_group.iter().map(rounds_of).max().unwrap_or(0)));
    lines.extend(pairs(&points, loads > keys.len()));
    lines.extend(point_lines(&points, detail));
    lines
}

fn engine_lines(key: &EngineKey) -> Vec<String> {
    let step_api = match key.step_api {
        StepApi::EngineCore => "",
        StepApi::LlmEngine => ", stepped by LLMEngine",
    };
    let mut lines = vec![format!(
        "  {}, {}, {}, quantization {}{step_api}",
        key.device,
        key.model,
        key.ranks_in_words(),
        key.quantization.as_str()
    )];
    let QuantizationSwitches { args, env } = &key.quantization_switches;
    if !key.quantization_switches.is_empty() {
        let env = env.iter().map(|(name, value)| format!("{name}={value}"));
        let args = shell(args);
        lines.push(format!("  for the quantization: {}", env.chain([args]).collect::<Vec<_>>().join(" ").trim_end()));
    }
    if !key.engine_args.is_empty() {
        lines.push(format!("  args: {}", shell(&key.engine_args)));
    }
    lines
}

fn point_lines(measured: &[&Point], detail: Detail) -> Vec<String> {
    let shown = match detail {
        Detail::Full => measured.len(),
        Detail::Short => measured.len().min(SHORT_POINTS),
    };
    let mut lines = points::table(&measured[..shown]);
    lines.extend(measured[..shown].iter().filter_map(|point| points::hit_rate(point)));
    if shown < measured.len() {
        lines.push(format!("  and {} more; `--dry-run` lists them all", counted(measured.len() - shown, "point")));
    }
    lines
}

fn rounds(measured: &[&Point], rounds: usize) -> String {
    let points = counted(measured.len(), "point");
    if measured.iter().all(|point| point.repeats as usize == rounds) {
        format!("  {points}, each measured {}: {} in random order", times(rounds), counted(rounds, "round"))
    } else {
        format!("  {points}, in up to {} in random order", counted(rounds, "round"))
    }
}

/// A line for each axis that is compared.
fn pairs(measured: &[&Point], reloads: bool) -> Vec<String> {
    let members = || measured.iter().filter_map(|point| point.pair.as_ref());
    let axes: BTreeSet<&str> = members().map(|member| member.axis.as_str()).collect();
    let line = |axis: &str| {
        let of = |arm| members().filter(move |member| member.axis == axis && member.arm == arm);
        let values = |arm| of(arm).map(|member| member.value.as_str()).collect::<BTreeSet<_>>();
        let values = |arm| values(arm).into_iter().collect::<Vec<_>>().join(" or ");
        let between = if reloads { ", with a load between them where they need another engine" } else { "" };
        format!(
            "  {} compare {axis}: A {}, B {}; both members run directly one after the other{between}, a coin decides which \
             comes first",
            counted(of(Arm::A).count(), "pair"),
            values(Arm::A),
            values(Arm::B)
        )
    };
    axes.into_iter().map(line).collect()
}

/// Prompt and output tokens of the measured requests of all runs.
fn tokens(plan: &Plan) -> (u64, u64) {
    let runs = plan.epochs.iter().flat_map(Epoch::runs);
    runs.fold((0u64, 0u64), |(prompt, output), run| {
        let prompt_tokens = u64::from(run.point.num_prompts) * u64::from(run.point.input_len);
        (prompt.saturating_add(prompt_tokens), output.saturating_add(run.point.output_tokens()))
    })
}

fn counted(count: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count as u64), if count == 1 { "" } else { "s" })
}

fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{} times", grouped(count as u64)) }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_write_them() {
        let shown = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        let shown = [0.44, 9.4, 61.0, 125.0, 7_260.0].map(time::duration);
        assert_eq!(shown, ["0.4 s", "9.4 s", "61 s", "2 min 5 s", "2 h 1 min"]);
    }
}
