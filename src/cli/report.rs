//! `bench report` and `bench export`: everything that needs recorded runs and no engine.

use super::error::{CliError, Exit};
use super::{ExportArgs, ReportArgs, screen};
use crate::report::{self, DamagedRun, Report};

/// Rebuilds a results folder, or judges a given timeline, and prints the result.
pub(super) fn run(args: &ReportArgs) -> Result<Exit, CliError> {
    let report = match (&args.events, &args.folder) {
        (Some(events), _) => report::from_csv(events)?,
        (None, Some(folder)) => report::read(folder)?,
        (None, None) => Report::empty(None), // clap asks for one of them
    };
    screen::print_report(&report, args.output.format)?;
    // After the table: where nothing can be written it is all there is.
    let written = args.folder.as_ref().map_or(Ok(()), |folder| report::write_all(folder, &report));
    all_read(&report.damaged)?;
    let exit = exit_of(&report);
    let Err(error) = written else { return Ok(exit) };
    screen::error(&error.to_string());
    // No run is the worse for it.
    Ok(if exit == Exit::Valid { Exit::Usage } else { exit })
}

/// Names the runs that could not be read.
pub(super) fn all_read(damaged: &[DamagedRun]) -> Result<(), CliError> {
    if damaged.is_empty() { Ok(()) } else { Err(CliError::Damaged(damaged.to_vec())) }
}

/// Writes the events of a results folder beside its report.
pub(super) fn export(args: &ExportArgs) -> Result<Exit, CliError> {
    let (folder, formats) = (&args.folder, &args.formats);
    let mut paths = Vec::new();
    if formats.csv {
        paths.push(report::export_csv(folder)?);
    }
    if formats.parquet {
        paths.extend(report::export_parquet(folder)?);
    }
    if formats.perfetto {
        paths.push(report::export_trace(folder)?);
    }
    screen::print(&paths.iter().map(|path| format!("{}\n", path.display())).collect::<String>())?;
    all_read(&report::damaged_runs(folder)?).map(|()| Exit::Valid)
}

/// The exit status that a report's verdicts ask for.
pub(super) fn exit_of(report: &Report) -> Exit {
    if report.exit_status() == 0 { Exit::Valid } else { Exit::Invalid }
}
