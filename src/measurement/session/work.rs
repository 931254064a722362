//! Whether a process does anything while its answer is waited for.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Why an answer was not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Neither the process nor any that it has started has used a processor for this long.
    Idle(Duration),
    /// It worked on for this long.
    TooLong(Duration),
}

/// Waits for `answer` for as long as process `pid` works: until it has used no processor time for `idle_limit`, and for
/// `limit` in all.
pub(super) async fn while_it_works<T>(
    pid: u32,
    idle_limit: Duration,
    limit: Duration,
    answer: impl Future<Output = T>,
) -> Result<T, NoAnswer> {
    tokio::pin!(answer);
    let began = Instant::now();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut used, mut idle, mut looked) = (cpu_ticks_of_tree(pid), Duration::ZERO, began);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            _ = ticks.tick() => {}
        }
        // A harness that was stopped meanwhile has seen nothing of that time.
        let since = looked.elapsed().min(2 * LOOK);
        looked = Instant::now();
        let now = cpu_ticks_of_tree(pid);
        idle = if now == used { idle + since } else { Duration::ZERO };
        used = now;
        if idle >= idle_limit {
            return Err(NoAnswer::Idle(idle));
        }
        if began.elapsed() >= limit {
            return Err(NoAnswer::TooLong(limit));
        }
    }
}

/// Processor time of a process and all that it has started, in the kernel's ticks; 0 for one that is gone.
fn cpu_ticks_of_tree(pid: u32) -> u64 {
    let children = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = children.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let of_children: u64 = lists.flat_map(|list| list.split_whitespace().map(of_child).collect::<Vec<u64>>()).sum();
    own_cpu_ticks(pid).unwrap_or(0) + of_children
}

fn of_child(pid: &str) -> u64 {
    pid.parse().map_or(0, cpu_ticks_of_tree)
}

/// utime, stime, and those of children that were waited for: fields 14 to 17 of `/proc/PID/stat`, counted after the name,
/// which may hold blanks.
fn own_cpu_ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_ascii_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "current_thread")]
    async fn a_process_that_stands_still_is_given_up_and_one_that_works_in_a_child_is_not() {
        let never = || std::future::pending::<()>();
        let mut idle = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let given_up = while_it_works(idle.id(), Duration::from_secs(2), LONG, never()).await;
        assert!(matches!(given_up, Err(NoAnswer::Idle(_))), "{given_up:?}");
        idle.kill().unwrap();
        idle.wait().unwrap();

        let mut busy = std::process::Command::new("sh").args(["-c", "while :; do :; done & wait"]).spawn().unwrap();
        let given_up = while_it_works(busy.id(), LONG, Duration::from_secs(3), never()).await;
        assert_eq!(given_up, Err(NoAnswer::TooLong(Duration::from_secs(3))));
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", busy.id())).unwrap();
        std::process::Command::new("kill").args(children.split_whitespace()).status().unwrap();
        busy.wait().unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_answer_that_comes_is_given() {
        assert_eq!(while_it_works(std::process::id(), LONG, LONG, async { 7 }).await, Ok(7));
    }
}
