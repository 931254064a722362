//! Running other programs: with a time limit, or with every line of their output passed on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Output beyond this is not read; a Python that describes itself needs a twentieth of it.
const CAPTURE_LIMIT_BYTES: u64 = 1 << 20;
/// How many of the last lines an error shows.
const LAST_LINES: usize = 12;
const POLL: Duration = Duration::from_millis(2);

/// How a program with a time limit ended.
#[derive(Debug)]
pub(super) enum Captured {
    /// By itself.
    Ended { status: ExitStatus, stdout: String, stderr: String },
    /// It was killed, with the processes that it had started.
    Killed,
}

/// Runs a program without input for at most `limit` and returns what it wrote.
///
/// # Errors
/// When it could not be started.
pub(super) fn capture(mut command: Command, limit: Duration) -> io::Result<Captured> {
    let deadline = Instant::now() + limit;
    // A group of its own, so that what it starts in turn can be stopped along with it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let streams = (child.stdout.take().map(read_aside).transpose(), child.stderr.take().map(read_aside).transpose());
    let (stdout, stderr) = match streams {
        (Ok(stdout), Ok(stderr)) => (stdout, stderr),
        (Err(err), _) | (_, Err(err)) => {
            stop(&mut child)?;
            return Err(err);
        }
    };
    let text = |stream: Option<mpsc::Receiver<String>>| match stream {
        Some(stream) => stream.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
        None => None,
    };
    // The streams first: a child that writes much ends only when it has been read.
    let (stdout, stderr) = (text(stdout), text(stderr));
    match (stdout, stderr, wait_until(&mut child, deadline)?) {
        (Some(stdout), Some(stderr), Some(status)) => Ok(Captured::Ended { status, stdout, stderr }),
        _ => {
            stop(&mut child)?;
            Ok(Captured::Killed)
        }
    }
}

/// Kills a program with the processes that it had started.
fn stop(child: &mut Child) -> io::Result<()> {
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL); // it may have ended just now
    child.wait().map(drop)
}

/// Whether a program could not be started because a limit is reached, which says nothing of the program.
pub(super) fn lacks_resources(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::EAGAIN | Errno::ENOMEM))
}

/// Fails where no thread can be started.
fn read_aside(stream: impl Read + Send + 'static) -> io::Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let reading = thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        // An error is an early end: what came before it is what there is to judge.
        let _ = stream.take(CAPTURE_LIMIT_BYTES).read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned()); // nobody listens after the time limit
    });
    reading.map(|_| receiver)
}

fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// How a program ended whose output was passed on.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) status: ExitStatus,
    pub(super) last_lines: Vec<String>,
}

/// Runs a program, writes all its output to `log` and gives each line to `on_line` as it comes. It has no time limit:
/// the user sees the lines and can interrupt.
///
/// # Errors
/// When it could not be started, or the log could not be written.
pub(super) fn run_logged(mut command: Command, log: &mut File, on_line: &mut dyn FnMut(&str)) -> io::Result<Logged> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    drop(command); // it holds the pipe's other end, and the reader would wait for it
    let mut last_lines = VecDeque::new();
    let read = BufReader::new(reader).split(b'\n').try_for_each(|line| {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        writeln!(log, "{line}")?;
        on_line(&line);
        if last_lines.len() == LAST_LINES {
            last_lines.pop_front();
        }
        last_lines.push_back(line);
        Ok(())
    });
    if read.is_err() {
        let _ = child.kill(); // with its output unread it would block for ever
    }
    let status = child.wait()?;
    read.map(|()| Logged { status, last_lines: last_lines.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn capture_returns_both_streams_and_the_status() {
        let captured = capture(sh("echo out; echo err >&2; exit 3"), Duration::from_secs(20)).unwrap();
        let Captured::Ended { status, stdout, stderr } = captured else { panic!("{captured:?}") };
        assert_eq!((status.code(), stdout.as_str(), stderr.as_str()), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn capture_kills_what_hangs_together_with_its_children() {
        let began = Instant::now();
        let captured = capture(sh("sleep 77 & wait"), Duration::from_millis(200)).unwrap();
        assert!(matches!(captured, Captured::Killed), "{captured:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn capture_stops_reading_a_program_that_never_stops_writing() {
        let captured = capture(sh("exec yes"), Duration::from_secs(5)).unwrap();
        match captured {
            Captured::Ended { stdout, .. } => assert_eq!(stdout.len() as u64, CAPTURE_LIMIT_BYTES),
            Captured::Killed => panic!("a closed pipe should have ended it"),
        }
    }

    #[test]
    fn logged_output_is_passed_on_line_by_line_and_its_end_is_kept() {
        let mut log = tempfile::tempfile().unwrap();
        let mut seen = Vec::new();
        let script = "for i in $(seq 20); do echo line $i; done; echo end >&2; exit 7";
        let logged = run_logged(sh(script), &mut log, &mut |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(logged.status.code(), Some(7));
        assert_eq!((seen.len(), seen[0].as_str(), seen[20].as_str()), (21, "line 1", "end"));
        assert_eq!(logged.last_lines, seen[21 - LAST_LINES..]);
    }
}
