//! `bench report` and `bench export`: everything that needs recorded runs and no engine.

use super::error::{CliError, Exit};
use super::{ExportArgs, ReportArgs, screen};
use crate::presentation::report::{self, DamagedRun, Report};

/// Rebuilds a results folder, or judges a given timeline, and prints the result.
pub(super) fn run(args: &ReportArgs) -> Result<Exit, CliError> {
    let mut report = match (&args.events, &args.folder) {
        (Some(events), _) => report::from_csv(events)?,
        (None, Some(folder)) => report::read(folder)?,
        (None, None) => Report::empty(None), // clap asks for one of them
    };
    // Neither the table nor the files wait for the other: where one cannot be written the other is all there is.
    let printed = screen::print_report(&report, args.output.format);
    let written = args.folder.as_ref().map_or(Ok(()), |folder| report::write_all(folder, &mut report));
    let exit = exit_of(&report);
    // No run is the worse for it.
    let exit = if written.is_err() && exit == Exit::Valid { Exit::Usage } else { exit };
    if let Err(error) = written {
        screen::error(&error.to_string());
    }
    match (printed, all_read(&report.damaged)) {
        (Ok(()), Ok(())) => Ok(exit),
        (Ok(()), Err(error)) | (Err(error), Ok(())) => Err(error),
        (Err(print), Err(damaged)) => {
            screen::error(&print.to_string());
            Err(damaged)
        }
    }
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

/// The exit status that a report's verdicts and its damaged runs ask for.
pub(super) fn exit_of(report: &Report) -> Exit {
    match (report.damaged.is_empty(), report.exit_status()) {
        (false, _) => Exit::Unreadable,
        (true, 0) => Exit::Valid,
        (true, _) => Exit::Invalid,
    }
}
