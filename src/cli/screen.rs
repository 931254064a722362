//! What a person sees. Results go to standard output, everything else to standard error.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::errno::Errno;

use super::error::{CliError, Exit};
use crate::analysis::verdict::Status;
use crate::base::printable::{json, printable_lines};
use crate::measurement::recorder::LiveTotals;
use crate::measurement::ring::clock_ns;
use crate::measurement::timeline::Phase;
use crate::presentation::report::{Report, RunEntry, TableFormat, table};
use crate::question::plan::Point;

/// Writes text without colours to standard output, see [`write`].
pub(super) fn print(text: &str) -> Result<Exit, CliError> {
    write(&printable_lines(text))
}

/// Writes JSON to standard output, see [`write`].
pub(super) fn print_json(text: &str) -> Result<Exit, CliError> {
    write(&json(text))
}

/// Writes to standard output. A reader that has left, or a terminal that was closed, is no error.
fn write(text: &str) -> Result<Exit, CliError> {
    let mut out = io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What a write to standard output came to.
pub(super) fn printed(written: io::Result<()>) -> Result<Exit, CliError> {
    match written {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe && !is_hung_up(&source) => {
            Err(CliError::Print(source))
        }
        _ => Ok(Exit::Valid),
    }
}

/// Whether standard output is a terminal that was closed. It answers EIO to everything, the question whether it is a terminal
/// included; a disk answers EIO, too, and is no character device.
fn is_hung_up(error: &io::Error) -> bool {
    let is_device = || fs::metadata("/proc/self/fd/1").is_ok_and(|found| found.file_type().is_char_device());
    error.raw_os_error() == Some(Errno::EIO as i32) && is_device()
}

/// Writes a line to standard error. A line that cannot be written, on a full disk or to a closed terminal, is dropped: a
/// sweep may not end for what nobody reads.
pub(super) fn line(text: &str) {
    let _ = anstream::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Prints a report in a format, coloured where standard output is a terminal that wants it.
pub(super) fn print_report(report: &Report, format: TableFormat) -> Result<(), CliError> {
    let colored = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    write(&table(report, format, colored)).map(drop)
}

/// Says on standard error what is wrong.
pub(super) fn error(message: &str) {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    line(&format!("{red}error:{red:#} {}", printable_lines(message)));
}

/// The progress of a command: a bar for the run that goes on, a line for each that has ended.
pub(super) struct Screen {
    quiet: bool,
    bar: ProgressBar,
    run: String,
    expected_tokens: u64,
}

impl Screen {
    /// Draws on standard error; nothing at all if `quiet`, and lines only where it is no terminal.
    pub(super) fn new(quiet: bool) -> Screen {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Screen { quiet, bar, run: String::new(), expected_tokens: 0 }
    }

    /// Whole lines, such as the plan.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| line(&printable_lines(text.trim_end())));
        }
    }

    /// Something takes a while. It is drawn by the one who calls, not by a thread, so that nothing runs beside a run.
    pub(super) fn wait_for(&mut self, what: &str) {
        self.clear();
        if !io::stderr().is_terminal() {
            return self.say(what);
        }
        self.start_bar("{spinner} {msg}", 0);
        self.bar.set_message(printable_lines(what).into_owned());
        self.bar.tick();
    }

    /// Begins the bar of a run.
    pub(super) fn begin_run(&mut self, point: &Point, repeat: u32, number: u32, total: u32) {
        self.clear();
        self.run = format!("[{}/{total}] {} #{}", number + 1, point.point, repeat + 1);
        self.expected_tokens = point.output_tokens();
        self.start_bar("{prefix} {bar:24} {percent:>3}% {msg}", self.expected_tokens);
        self.bar.set_prefix(self.run.clone());
    }

    /// Redraws the bar of the run that goes on.
    pub(super) fn tick(&self, totals: &LiveTotals) {
        if totals.phase != Phase::Measure {
            self.bar.set_message(format!("({})", totals.phase.as_str()));
            return;
        }
        let elapsed_s = clock_ns().saturating_sub(totals.phase_began_ns) as f64 / 1e9;
        self.bar.set_position(totals.output_tokens);
        let mut message = format!("{:.0} tok/s", totals.output_tokens as f64 / elapsed_s.max(1e-3));
        if totals.first_tokens > 0 {
            let ttft_ms = totals.ttft_sum_ns as f64 / totals.first_tokens as f64 / 1e6;
            message += &format!(", TTFT {ttft_ms:.1} ms");
        }
        self.bar.set_message(message);
    }

    /// The line of a run that has ended. Runs that did not begin have none: the error at the end says why.
    pub(super) fn end_run(&mut self, run: &RunEntry) {
        self.clear();
        if run.status == Status::Skipped {
            return;
        }
        let value = |name| crate::analysis::metrics::Metric::named(name).and_then(|metric| run.values.get(metric));
        let mut line = format!("{}: {}", self.run, run.status.as_str());
        if let (Some(ttft_s), Some(rate)) = (value("p50_ttft_s"), value("output_tokens_per_s")) {
            line += &format!(", TTFT p50 {:.2} ms, {rate:.0} output tok/s", ttft_s * 1e3);
        }
        if run.status != Status::Valid {
            let reason = run.reasons.first().and_then(|reason| reason.lines().next());
            line += &reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        }
        self.say(&line);
    }

    /// Takes the bar away.
    pub(super) fn clear(&mut self) {
        self.bar.finish_and_clear();
    }

    fn start_bar(&mut self, template: &str, length: u64) {
        if self.quiet || !io::stderr().is_terminal() {
            return;
        }
        self.bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(4));
        // The templates above are constants; a wrong one would show as a plain bar.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
        self.bar.set_elapsed(Duration::ZERO);
    }
}
