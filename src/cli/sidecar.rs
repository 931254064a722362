//! `bench sidecar`: the warm sidecars of this user, shown and stopped.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::{SidecarCommand, screen};
use crate::base::printable::printable;
use crate::machine::environment::Host;
use crate::measurement::session::{LoadedEngine, Registry, Status, Stopped, WarmSidecar};

/// Shows or stops.
pub(super) fn run(command: &SidecarCommand) -> Result<Exit, CliError> {
    let host = Host::of_process();
    let found = Registry::of(&host, &host.cache_dir()?).list()?;
    match command {
        SidecarCommand::List { json: true } => {
            let all: Vec<Value> = found.iter().map(as_json).collect();
            screen::print_json(&format!("{:#}\n", Value::from(all)))
        }
        SidecarCommand::List { json: false } if found.is_empty() => screen::print("no warm sidecar\n"),
        SidecarCommand::List { json: false } => screen::print(&found.iter().map(as_text).collect::<String>()),
        SidecarCommand::Stop { all: true, force, .. } => stop(&found, *force),
        SidecarCommand::Stop { id: Some(id), force, .. } => match found.iter().find(|found| found.id == *id) {
            Some(found) => stop(std::slice::from_ref(found), *force),
            None => Err(CliError::NoSuchSidecar { id: id.clone(), there_are: names(&found) }),
        },
        SidecarCommand::Stop { id: None, force, .. } if found.len() <= 1 => stop(&found, *force),
        SidecarCommand::Stop { id: None, .. } => Err(CliError::WhichSidecar(names(&found))),
    }
}

fn names(found: &[WarmSidecar]) -> String {
    let names: Vec<&str> = found.iter().map(|found| found.id.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn stop(found: &[WarmSidecar], force: bool) -> Result<Exit, CliError> {
    if found.is_empty() {
        return screen::print("no warm sidecar\n");
    }
    let mut exit = Exit::Valid;
    let mut printed = Ok(exit);
    for found in found {
        let id = &found.id;
        let said = match found.stop(force)? {
            Stopped::Left => format!("{id} has left\n"),
            Stopped::Killed => format!("{id} was killed\n"),
            Stopped::Busy(holder) => {
                exit = Exit::Invalid;
                let (pid, held) = (holder.pid, in_words(holder.held_s));
                let command = holder.command_line();
                format!(
                    "{id} is still there: process {pid} has measured with it for {held} ({command}); use --force to stop it anyway\n"
                )
            }
            Stopped::Silent(why) => {
                exit = Exit::Invalid;
                format!("{id} is still there: {why}; use --force to kill it\n")
            }
        };
        printed = printed.and(screen::print(&said));
    }
    printed.map(|_| exit)
}

fn as_json(found: &WarmSidecar) -> Value {
    match &found.status {
        Ok(status) => json!({"id": found.id, "status": status, "memory_bytes": memory_bytes(status.pid)}),
        Err(why) => json!({"id": found.id, "status": null, "problem": why}),
    }
}

fn as_text(found: &WarmSidecar) -> String {
    let id = &found.id;
    let status = match &found.status {
        Ok(status) => status,
        Err(why) => return format!("{id}: {why}\n"),
    };
    let device = status.about.as_ref().map_or_else(|| "unknown".to_owned(), |about| about.device.to_string());
    let memory = memory_bytes(status.pid).map_or_else(|| "unknown".to_owned(), mib);
    let (pid, age) = (status.pid, in_words(status.age_s));
    let mut text = format!("{id}: device {device}, process {pid}, started {age} ago, memory {memory}\n");
    text += &format!(
        "  {}\n  engine   {}\n",
        state(status),
        status.engine.as_ref().map_or_else(|| "none".to_owned(), engine)
    );
    if let Some(about) = &status.about {
        text += &format!("  python   {}\n  log      {}\n", about.python.display(), about.log.display());
    }
    text
}

fn state(status: &Status) -> String {
    let limit = status.idle_limit_s.map(in_words);
    let limit =
        limit.map_or_else(|| "leaves with its command".to_owned(), |limit| format!("leaves after {limit} without one"));
    match (&status.holder, status.idle_s) {
        (Some(holder), _) => {
            let (pid, held, command) = (holder.pid, in_words(holder.held_s), holder.command_line());
            format!("held     for {held} by process {pid}: {command}; {limit}")
        }
        (None, Some(idle_s)) => format!("idle     for {}; {limit}", in_words(idle_s)),
        (None, None) => limit,
    }
}

/// What is loaded, in the words of its arguments.
fn engine(engine: &LoadedEngine) -> String {
    let words: Vec<&str> = engine.key["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let what = if words.is_empty() {
        "scripted".to_owned()
    } else {
        shlex::try_join(words.iter().copied()).unwrap_or_else(|_| words.join(" "))
    };
    format!("process {}, loaded {} ago: {}", engine.pid, in_words(engine.loaded_s), printable(&what))
}

/// A time for people, in its two largest units.
pub(super) fn in_words(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Memory of a process and all that it has started, what they share counted once; `None` where the kernel does not say.
fn memory_bytes(pid: u32) -> Option<u64> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(process) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|fields| fields.split_ascii_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(process);
    }
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        family.extend(children.get(&family[at]).into_iter().flatten());
        at += 1;
    }
    let shares = family.iter().map(|process| {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    });
    shares.sum::<Option<u64>>().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_two_largest_units() {
        let told = [0.4, 59.6, 61.0, 1800.0, 3600.0, 7261.0].map(in_words);
        assert_eq!(told, ["0 s", "1 min", "1 min 1 s", "30 min", "1 h", "2 h 1 min"]);
    }
}
