//! `bench compare`: what a change did, from recorded runs alone.

use std::path::Path;

use super::error::{CliError, Exit};
use super::report::all_read;
use super::{CompareArgs, EngineArgs, screen};
use crate::analysis::metrics::Metric;
use crate::presentation::comparison::{Comparison, Question};
use crate::presentation::report::{self, Report};

/// Compares, prints, and exits with 1 if something got worse or is not valid.
pub(super) fn run(args: &CompareArgs) -> Result<Exit, CliError> {
    let question =
        Question { metrics: args.metric.clone(), threshold: args.threshold, slo: args.slo.iter().cloned().collect() };
    let a = report::read(&args.a)?;
    let b = args.b.as_ref().map(|folder| Ok::<_, CliError>((report::read(folder)?, folder))).transpose()?;
    let damaged = [a.damaged.as_slice(), b.as_ref().map_or(&[], |(b, _)| &b.damaged)].concat();
    let comparison = match &b {
        None => Comparison::of_pairs(&a, &args.a, &question)?,
        Some((b, folder)) => Comparison::of_saved((&a, &args.a), (b, folder), &question)?,
    };
    if let Some(folder) = &args.out {
        comparison.write(folder)?;
    }
    screen::print(&comparison.render(args.format))?;
    all_read(&damaged)?;
    exit_of(&comparison)
}

/// Compares the pairs that a command has just measured: prints them, and leaves them in the results folder.
pub(super) fn pairs(report: &Report, folder: &Path, args: &EngineArgs) -> Result<Exit, CliError> {
    let question = Question { threshold: args.threshold, ..Question::default() };
    let comparison = Comparison::of_pairs(report, folder, &question)?;
    comparison.write(folder)?;
    screen::print(&comparison.render(args.output.format))?;
    exit_of(&comparison)
}

/// 1 when something got worse, or a run of either side is not valid or missing; a comparison that answers nothing is an error.
fn exit_of(comparison: &Comparison) -> Result<Exit, CliError> {
    match comparison.undecided() {
        _ if comparison.got_worse => Ok(Exit::Invalid),
        Some(why) => Err(CliError::Undecided(why)),
        None if comparison.is_whole() => Ok(Exit::Valid),
        None => Ok(Exit::Invalid),
    }
}

/// `p99_ttft_s=0.5`.
pub(super) fn parse_objective(text: &str) -> Result<(String, f64), String> {
    let (name, bound) = text.split_once('=').ok_or("give METRIC=BOUND, such as p99_ttft_s=0.5")?;
    let metric = parse_metric(name)?;
    let bound: f64 = bound.parse().map_err(|_| format!("{bound} is no number"))?;
    if bound.is_finite() && bound > 0.0 {
        Ok((metric.name(), bound))
    } else {
        Err("the bound has to be above 0".to_owned())
    }
}

/// `p99_ttft_s`.
pub(super) fn parse_metric(name: &str) -> Result<Metric, String> {
    Metric::named(name).ok_or_else(|| {
        let all: Vec<String> = Metric::all().map(Metric::name).collect();
        format!("there is no metric {name}; there are: {}", all.join(", "))
    })
}

/// `1%` or `1`: a share.
pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    let percent: Option<f64> = number.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| "give a percentage from 0% to 100%, such as 1%".to_owned())
}
