//! Ctrl-C, SIGTERM and SIGHUP: the first finishes the run and leaves, or ends a load at once; the second leaves now.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// `timeout`, Slurm and a shell that closes send one signal twice, to the process and to its group: within this it is one.
const SAME: Duration = Duration::from_secs(1);
/// SIGHUP in the masks of `/proc`.
const HANGUP_BIT: u64 = 1 << (nix::libc::SIGHUP - 1);

/// Counts the user's interrupts.
pub(super) struct UserInterrupts {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where it was ignored when this process began: `nohup` wants it so.
    hangup: Option<Signal>,
    seen: u32,
    /// When a SIGTERM or SIGHUP last counted.
    sent: Option<Instant>,
}

impl UserInterrupts {
    /// Listens from now on; must be called inside the runtime.
    pub(super) fn listen() -> io::Result<UserInterrupts> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let hangup = if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(UserInterrupts { interrupt, terminate, hangup, seen: 0, sent: None })
    }

    /// How many there were.
    pub(super) fn seen(&self) -> u32 {
        self.seen
    }

    /// Waits for the next one. Cancelling it loses none.
    pub(super) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => {}
                _ = received(self.hangup.as_mut()) => {}
            }
            if is_another(&mut self.sent, Instant::now()) {
                break;
            }
        }
        self.seen += 1;
    }
}

/// Whether a SIGTERM or SIGHUP that comes `now` is another one than that of `sent`, which then becomes `now`. One that is the
/// same does not change `sent`: signals in quick succession are not ignored for ever.
fn is_another(sent: &mut Option<Instant>, now: Instant) -> bool {
    let is_another = sent.is_none_or(|sent| now.duration_since(sent) > SAME);
    if is_another {
        *sent = Some(now);
    }
    is_another
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & HANGUP_BIT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminations_in_quick_succession_count_once_a_second() {
        let began = Instant::now();
        let mut sent = None;
        let counted = [0, 10, 900, 1_800, 2_700].map(|ms| is_another(&mut sent, began + Duration::from_millis(ms)));
        assert_eq!(counted, [true, false, false, true, false]);
    }
}
