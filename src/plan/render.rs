//! A plan as text: what `--dry-run` prints and what every command shows first.

use std::fmt::Write;

use super::{Epoch, Estimate, Load, Plan, Point, QuantizationSwitches};

/// Points of an epoch that a short rendering shows.
const SHORT_POINTS: usize = 20;

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
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    let loads = counted(plan.epochs.len(), "engine load");
    let points = counted(plan.num_points(), "point");
    line(format!("Plan {}: {points}, {}, {loads}, seed {}", plan.name, counted(plan.num_runs(), "run"), plan.seed));
    for (index, epoch) in plan.epochs.iter().enumerate() {
        line(String::new());
        epoch_lines(index, plan.epochs.len(), epoch, detail).into_iter().for_each(&mut line);
        if let Some(Some(known)) = estimate.epochs.get(index) {
            line(format!("  estimated: load {}, runs {}", duration(known.load_s), duration(known.runs_s)));
        }
    }
    line(String::new());
    let (prompt_tokens, output_tokens) = tokens(plan);
    line(format!(
        "Work: {loads}, {}, {} prompt tokens, {} output tokens (measured requests alone)",
        counted(plan.num_runs(), "run"),
        grouped(prompt_tokens),
        grouped(output_tokens)
    ));
    line(format!("Estimated time: {}", estimated_time(estimate)));
    if let Some(saved) = process_per_point(plan, estimate) {
        line(saved);
    }
    text
}

fn epoch_lines(index: usize, epochs: usize, epoch: &Epoch, detail: Detail) -> Vec<String> {
    let key = &epoch.key;
    let mut lines = vec![format!("Engine {} of {epochs} ({})", index + 1, epoch.reason)];
    lines.push(format!(
        "  {}, {}, tensor parallel {}, quantization {}",
        key.device,
        key.model,
        key.tensor_parallel_size,
        key.quantization.as_str()
    ));
    let QuantizationSwitches { args, env } = &key.quantization_switches;
    if !key.quantization_switches.is_empty() {
        let env = env.iter().map(|(name, value)| format!("{name}={value}"));
        let args = shlex::try_join(args.iter().map(String::as_str)).unwrap_or_default();
        lines.push(format!("  for the quantization: {}", env.chain([args]).collect::<Vec<_>>().join(" ").trim_end()));
    }
    if !key.engine_args.is_empty() {
        let args = shlex::try_join(key.engine_args.iter().map(String::as_str)).unwrap_or_default();
        lines.push(format!("  args: {args}"));
    }
    lines.push(rounds(epoch));
    let shown = match detail {
        Detail::Full => epoch.points.len(),
        Detail::Short => epoch.points.len().min(SHORT_POINTS),
    };
    lines.extend(table(&epoch.points[..shown]));
    lines.extend(epoch.points[..shown].iter().filter_map(hit_rate));
    if shown < epoch.points.len() {
        lines.push(format!("  and {} more; `--dry-run` lists them all", counted(epoch.points.len() - shown, "point")));
    }
    lines
}

fn rounds(epoch: &Epoch) -> String {
    let rounds = epoch.rounds.len();
    let points = counted(epoch.points.len(), "point");
    if epoch.points.iter().all(|point| point.repeats as usize == rounds) {
        format!("  {points}, each measured {}: {} in random order", times(rounds), counted(rounds, "round"))
    } else {
        format!("  {points}, in up to {} in random order", counted(rounds, "round"))
    }
}

/// The points as lines of aligned columns.
fn table(points: &[Point]) -> Vec<String> {
    let header = ["point", "input", "output", "prefix", "prompts", "warm-up", "repeats", "load", "limits", "name"];
    let mut rows = vec![header.map(String::from)];
    rows.extend(points.iter().map(row));
    let widths: [usize; 10] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; 10]| {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Numbers to the right, words to the left; writing to a String cannot fail.
            let _ = if (1..=6).contains(&column) {
                write!(line, "  {cell:>width$}")
            } else {
                write!(line, "  {cell:<width$}")
            };
        }
        line
    };
    rows.iter().map(line).collect()
}

/// What whole blocks make of a hit rate that was asked.
fn hit_rate(point: &Point) -> Option<String> {
    let rate = point.prefix_hit_rate?;
    let percent = |share: f64| (share * 1e4).round() / 1e2;
    let (asked, reachable) = (percent(rate.asked), percent(rate.reachable));
    let exactly = if asked == reachable { "" } else { ", the nearest that whole blocks give" };
    Some(format!(
        "  {}: hit rate {asked} % asked, {reachable} % by blocks of {}{exactly}",
        point.point, rate.block_size
    ))
}

fn row(point: &Point) -> [String; 10] {
    let Load::Closed { concurrency } = point.load;
    let prefix = match point.primed_prefixes() {
        0 | 1 => point.prefix_len.to_string(),
        prefixes => format!("{prefixes} x {}", point.prefix_len),
    };
    let limits = [("seqs", point.limits.max_num_seqs), ("tokens", point.limits.max_num_batched_tokens)];
    let limits: Vec<String> =
        limits.into_iter().filter_map(|(name, limit)| limit.map(|limit| format!("{name} {limit}"))).collect();
    [
        point.point.clone(),
        point.input_len.to_string(),
        point.output_len.to_string(),
        prefix,
        point.num_prompts.to_string(),
        point.warmup.to_string(),
        point.repeats.to_string(),
        concurrency.map_or_else(|| "all at once".to_owned(), |concurrency| format!("{concurrency} in flight")),
        if limits.is_empty() { "as built".to_owned() } else { limits.join(", ") },
        point.name.clone(),
    ]
}

/// Prompt and output tokens of the measured requests of all runs.
fn tokens(plan: &Plan) -> (u64, u64) {
    let points = plan.epochs.iter().flat_map(|epoch| &epoch.points);
    points.fold((0u64, 0u64), |(prompt, output), point| {
        let of_runs = |sum: u64, tokens: u64| sum.saturating_add(tokens.saturating_mul(point.repeats.into()));
        let prompt_tokens = u64::from(point.num_prompts) * u64::from(point.input_len);
        (of_runs(prompt, prompt_tokens), of_runs(output, point.output_tokens()))
    })
}

fn estimated_time(estimate: &Estimate) -> String {
    let Some(total_s) = estimate.total_s() else {
        let unknown = estimate.epochs.iter().filter(|epoch| epoch.is_none()).count();
        return match (unknown, estimate.epochs.len()) {
            (1, 1) => "not known yet: this engine has never been measured on this machine".to_owned(),
            (unknown, all) if unknown == all => {
                format!("not known yet: none of these {all} engines has ever been measured on this machine")
            }
            (unknown, all) => {
                format!("not known yet: {unknown} of these {all} engines never measured on this machine")
            }
        };
    };
    let known = || estimate.epochs.iter().flatten();
    let measured: usize = known().map(|epoch| epoch.measured_runs).sum();
    let derived: usize = known().map(|epoch| epoch.derived_runs).sum();
    let basis = match (measured, derived) {
        (_, 0) => "every point has been measured on this machine before".to_owned(),
        (0, _) => "worked out from other points measured on this machine".to_owned(),
        _ => format!("{} measured before on this machine, {derived} worked out from those", counted(measured, "run")),
    };
    format!("{} ({basis})", duration(total_s))
}

/// What the plan would take if every point had a process of its own, as tools without a persistent engine do it. How long
/// an import of vLLM takes is not kept, so it is counted and not timed.
fn process_per_point(plan: &Plan, estimate: &Estimate) -> Option<String> {
    let more = plan.num_points() - plan.epochs.len();
    if more == 0 {
        return None;
    }
    let known: Option<f64> = plan
        .epochs
        .iter()
        .zip(&estimate.epochs)
        .map(|(epoch, known)| Some((epoch.points.len() - 1) as f64 * known.as_ref()?.load_s))
        .sum();
    let loads = format!("{} more, each with an import of vLLM", counted(more, "engine load"));
    Some(match known {
        Some(load_s) => format!("A process per point would take {loads}: {} of loading more", duration(load_s)),
        None => format!("A process per point would take {loads}"),
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

/// Seconds as a person says them.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7_200 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_write_them() {
        let shown = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        let shown = [0.44, 9.4, 61.0, 125.0, 7_260.0].map(duration);
        assert_eq!(shown, ["0.4 s", "9.4 s", "61 s", "2 min 5 s", "2 h 1 min"]);
    }
}
