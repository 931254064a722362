//! How a command sets up its instrument, and what its report says of it: waiting, priority, memory locking. The engine
//! is a scripted one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bench::machine::device::{Topology, pin_current_thread};
use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

/// Two cores carry one engine at a time.
static ONE_ENGINE: Mutex<()> = Mutex::new(());

const SHORT: &str = "requests: [{first_ns: 1000000, gap_ns: 1000000, tokens: 20}]\n";
/// 3 seconds: time to look at the threads of the run.
const LONG: &str = "requests: [{first_ns: 1000000, gap_ns: 100000000, tokens: 30}]\n";

/// `bench engine` on a script, with results in the folder's `out`. `command` is the program or what starts it.
fn on_script(mut command: Command, folder: &Path, script: &str, args: &[&str]) -> Command {
    let file = folder.join("script.yaml");
    fs::write(&file, script).unwrap();
    command.args(["engine", "--quiet", "--repeats", "1", "--engine"]).arg(format!("scripted:{}", file.display()));
    command.arg("--out").arg(out(folder)).args(args);
    command.env_remove("BENCH_PYTHON").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn out(folder: &Path) -> PathBuf {
    folder.join("out")
}

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bench"))
}

/// What the command leaves behind, which is one valid run.
#[track_caller]
fn measured(command: Command, args: &[&str]) -> Value {
    let _one = ONE_ENGINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = tempfile::tempdir().unwrap();
    let output = on_script(command, folder.path(), SHORT, args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = summary(folder.path());
    assert_eq!(report["runs"][0]["status"], "valid", "{report}");
    report
}

fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(out(folder).join("summary_report.json")).unwrap()).unwrap()
}

fn warnings(report: &Value) -> Vec<&str> {
    report["runs"][0]["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap()).collect()
}

/// `work` on a thread that may use one core, which its processes inherit.
fn on_one_core<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let core = *Topology::of_this_machine().unwrap().physical[0].first().unwrap();
    std::thread::scope(|scope| {
        let pinned = scope.spawn(move || {
            pin_current_thread(&[core]).unwrap();
            work()
        });
        pinned.join().unwrap()
    })
}

fn engine_nice(report: &Value) -> i64 {
    report["runs"][0]["engine_facts"]["other"]["nice"].as_i64().unwrap()
}

fn own_nice() -> i64 {
    getpriority_process(None).unwrap().into()
}

#[test]
fn every_strategy_can_be_asked_for_and_the_report_says_which_it_was() {
    let asked = [
        ("spin", "spin", "spin, "),
        ("spin-then-sleep", "spin_then_sleep", "spin, then sleep "),
        ("sleep", "sleep", "sleep "),
    ];
    for (argument, name, words) in asked {
        let report = measured(bench(), &["--wait", argument]);
        assert_eq!(report["environment"]["placement"]["wait_strategy"], name);
        let said = report["instrument"]["wait_strategy"].as_str().unwrap();
        assert!(said.starts_with(words), "{said}");
    }
    let output = bench().args(["engine", "--wait", "busy"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(["spin, ", "spin-then-sleep", "sleep"].iter().all(|name| said.contains(name)), "{said}");
}

#[test]
fn a_recorder_without_a_core_of_its_own_sleeps_and_is_warned_of_where_it_must_spin() {
    let report = on_one_core(|| measured(bench(), &[]));
    assert_eq!(report["environment"]["placement"]["wait_strategy"], "spin_then_sleep");
    assert_eq!(report["instrument"]["recorder_core"], Value::Null);
    assert!(warnings(&report).contains(&"the recorder has no core of its own"));
    let spins = "the recorder spins on a core that it shares: it takes time from the engine";
    assert!(!warnings(&report).contains(&spins));

    let report = on_one_core(|| measured(bench(), &["--wait", "spin"]));
    assert!(warnings(&report).contains(&spins), "{:?}", warnings(&report));
    // Raised, it would starve the engine.
    assert_eq!(report["instrument"]["recorder_priority"], Value::Null);
    assert_eq!(engine_nice(&report), own_nice());
}

/// Whether this process may raise a thread to nice -20.
fn may_raise() -> bool {
    std::thread::spawn(|| setpriority_process(None, -20).is_ok()).join().unwrap()
}

#[test]
fn recorder_and_engine_are_raised_where_that_is_permitted() {
    let report = measured(bench(), &["--wait", "sleep"]);
    let is_refused = report["instrument"]["not_permitted"].as_array().unwrap().iter().any(|what| {
        let what = what.as_str().unwrap();
        assert!(!what.starts_with("pinning:"), "{what}");
        what.starts_with("priority:")
    });
    assert_eq!(is_refused, !may_raise());
    let expected = if may_raise() { (Value::from(-20), -10) } else { (Value::Null, own_nice()) };
    assert_eq!((report["instrument"]["recorder_priority"].clone(), engine_nice(&report)), expected);

    let _one = ONE_ENGINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        on_script(bench(), folder.path(), LONG, &["--wait", "sleep"]).stdout(Stdio::null()).spawn().unwrap();
    let runs = out(folder.path()).join("runs");
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut was_seen = false;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the command did not end");
        // Once the session is recorded its trials are over: from here on it is the recorder that is seen.
        was_seen |= runs.join("session.json").exists() && nice_values(child.id()).contains(&-20);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(was_seen, may_raise(), "a thread at nice -20");
}

/// Nice values of the threads of a process.
fn nice_values(pid: u32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let stats = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    // The 19th field; the second is a name in parentheses, and may hold spaces.
    let nice = |stat: String| stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(16)?.parse().ok();
    stats.filter_map(nice).collect()
}

#[test]
fn what_the_system_refuses_is_listed_and_the_command_measures_all_the_same() {
    let report = std::thread::spawn(|| {
        // Of this thread's future processes; a user who cannot take them away does not have them.
        for capability in [CapabilitySet::SYS_NICE, CapabilitySet::IPC_LOCK] {
            let _ = remove_capability_from_bounding_set(capability);
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -l 0 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_bench")]);
        measured(shell, &[])
    });
    let report = report.join().unwrap();
    let instrument = &report["instrument"];
    assert_eq!(instrument["recorder_priority"], Value::Null);
    let refused: Vec<&str> =
        instrument["not_permitted"].as_array().unwrap().iter().map(|what| what.as_str().unwrap()).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].starts_with("priority: the recorder could not be raised to nice -20: "), "{refused:?}");
    assert!(refused[1].starts_with("memory locking: the rings could not be locked in memory"), "{refused:?}");
    assert_eq!(engine_nice(&report), own_nice());
}
