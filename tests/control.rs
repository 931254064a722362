//! The harness and its sidecar: what is imported, who is ended by which signal, and what stands still. A stand-in takes the
//! place of a Python with vLLM where vLLM itself would take minutes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// Runs the sidecar's real package, with a vLLM that does what the mood says.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import json, os, runpy, signal, sys, time, types

mood = os.environ["BENCH_TEST_MOOD"]
if "-c" in sys.argv:
    files = {"vllm": "/looked/up/vllm/__init__.py"}
    facts = {"executable": "", "python": [3, 11, 0], "modules": ["vllm"], "files": files, "packages": {"vllm": "1.0+cpu"}}
    print("bench-probe " + json.dumps(facts))
    sys.exit()

def come_to(place):
    print("came to " + place, file=sys.stderr, flush=True)
    if mood == "slow " + place:
        time.sleep(300)
    if mood == "stopped " + place:
        os.kill(os.getpid(), signal.SIGSTOP)

class VllmDriver:
    def __init__(self, lease, progress):
        come_to("load")

engine = types.ModuleType("bench_sidecar.engine")
engine.preload = lambda: come_to("import")
engine.vllm_version = lambda: "1.0"
engine.vllm_file = lambda: "/other/vllm/__init__.py" if mood == "other" else "/looked/up/vllm/__init__.py"
engine.check_arguments = lambda argv: come_to("check") or {"error": None, "parsed": {}}
driver = types.ModuleType("bench_sidecar.vllm_driver")
driver.VllmDriver = VllmDriver
import bench_sidecar
bench_sidecar.engine = sys.modules["bench_sidecar.engine"] = engine
sys.modules["bench_sidecar.vllm_driver"] = driver
sys.argv = sys.argv[2:]
runpy.run_module("bench_sidecar", run_name="__main__", alter_sys=True)
"#;

const LIMIT: Duration = Duration::from_secs(60);
/// A user who has pressed Ctrl-C waits for less than two seconds; the machine of the tests may be busy.
const AT_ONCE: Duration = Duration::from_secs(10);

#[track_caller]
fn wait_for(what: &str, limit: Duration, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !seen() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder for a command, and what all its processes can be found by.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("tmp")).unwrap();
        fs::create_dir(place.path("here")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs in the folder `here`, in a process group of its own, as a shell does it.
    fn bench(&self, args: &[&str]) -> Command {
        let mut command = Command::new("env"); // whoever runs the tests may ignore hangups
        command
            .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_bench")])
            .args(args)
            .arg("--out")
            .arg(self.path("out"))
            .current_dir(self.path("here"));
        command.env_remove("BENCH_PYTHON").env_remove("XDG_RUNTIME_DIR").env("TMPDIR", self.path("tmp"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        command
    }

    /// A sweep on a scripted engine: runs of 300 ms.
    fn scripted(&self, repeats: &str) -> Command {
        let script = self.path("script.yaml");
        fs::write(&script, "requests: [{first_ns: 100000000, gap_ns: 10000000, tokens: 20}]").unwrap();
        self.bench(&[
            "engine",
            "--own-sidecar",
            "--engine",
            &format!("scripted:{}", script.display()),
            "--repeats",
            repeats,
        ])
    }

    /// The smoke sweep on a stand-in.
    fn stand_in(&self, mood: &str) -> Command {
        let python = self.path("stand-in");
        fs::write(&python, STAND_IN).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        let python = python.display().to_string();
        let mut command = self.bench(&["engine", "--own-sidecar", "--device", "cpu", "--python", &python]);
        command.env("BENCH_TEST_MOOD", mood);
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("out/sidecar.log")).unwrap_or_default()
    }

    fn has_run(&self) -> bool {
        let stored = fs::read_dir(self.path("out/runs"));
        stored.is_ok_and(|runs| runs.flatten().any(|run| run.path().join("timeline.json").exists()))
    }

    /// Of each run, its status.
    fn statuses(&self) -> Vec<String> {
        let text = fs::read(self.path("out/summary_report.json")).unwrap();
        let report: Value = serde_json::from_slice(&text).unwrap();
        report["runs"].as_array().unwrap().iter().map(|run| run["status"].as_str().unwrap().to_owned()).collect()
    }

    /// Process ids of all that the command has started, and of itself.
    fn processes(&self) -> Vec<i32> {
        let mark = self.path("tmp").display().to_string();
        let is_marked = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|it| String::from_utf8_lossy(it).contains(&mark))
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_marked).collect()
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        wait_for("the end of all processes", LIMIT, || self.processes().is_empty());
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// The command's exit status and what it said, which must come within the time.
#[track_caller]
fn ended(mut child: Child, limit: Duration) -> (Option<i32>, String) {
    wait_for("the end of the command", limit, || child.try_wait().unwrap().is_some());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!said.contains("panicked") && !said.contains("Traceback"), "{said}");
    (status.code(), said)
}

#[test]
fn the_first_interrupt_ends_an_import_a_check_and_a_load() {
    for (at, signal) in [("import", Signal::SIGINT), ("check", Signal::SIGTERM), ("load", Signal::SIGINT)] {
        let place = Place::new();
        let child = place.stand_in(&format!("slow {at}")).spawn().unwrap();
        wait_for(at, LIMIT, || place.log().contains(&format!("came to {at}")));
        kill(pid(&child), signal).unwrap();
        let (status, said) = ended(child, AT_ONCE);
        assert_eq!(status, Some(130), "{at}: {said}");
        place.nothing_is_left();
    }
}

#[test]
fn a_sidecar_that_stands_still_is_given_up_when_something_is_expected_of_it() {
    for (at, what) in [("import", "starting the sidecar"), ("check", "the check of the engine's arguments")] {
        let place = Place::new();
        let (status, said) =
            ended(place.stand_in(&format!("stopped {at}")).args(["--stall-limit", "2"]).spawn().unwrap(), LIMIT);
        assert_eq!(status, Some(3), "{said}");
        assert!(said.contains(&format!("no answer to {what}: the sidecar has done nothing for ")), "{said}");
        place.nothing_is_left();
    }
}

#[test]
fn another_vllm_than_the_one_that_was_looked_up_is_refused_with_both() {
    let place = Place::new();
    let (status, said) = ended(place.stand_in("other").spawn().unwrap(), LIMIT);
    assert_eq!(status, Some(3), "{said}");
    let both =
        "imported vLLM 1.0 from /other/vllm/__init__.py, and vLLM 1.0+cpu was looked up at /looked/up/vllm/__init__.py";
    assert!(said.contains(both), "{said}");
    place.nothing_is_left();
}

#[test]
fn a_signal_to_the_whole_group_finishes_the_run_and_starts_nothing_again() {
    let place = Place::new();
    let child = place.scripted("100").spawn().unwrap();
    wait_for("a run", LIMIT, || place.has_run());
    // `timeout` sends it to the process and to its group.
    kill(pid(&child), Signal::SIGTERM).unwrap();
    killpg(pid(&child), Signal::SIGTERM).unwrap();
    let (status, said) = ended(child, LIMIT);
    assert_eq!(status, Some(130), "{said}");
    assert!(!said.contains("another sidecar") && !said.contains("once more in a fresh engine"), "{said}");
    let statuses = place.statuses();
    assert!(statuses.len() < 100 && statuses.iter().all(|status| status == "valid"), "{statuses:?} {said}");
    place.nothing_is_left();
}

#[test]
fn after_an_interrupt_a_lost_sidecar_is_not_replaced() {
    let place = Place::new();
    let child = place.scripted("100").spawn().unwrap();
    wait_for("a run", LIMIT, || place.has_run());
    kill(pid(&child), Signal::SIGINT).unwrap();
    for process in place.processes().into_iter().filter(|process| *process != pid(&child).as_raw()) {
        let _ = kill(Pid::from_raw(process), Signal::SIGKILL); // it may be a thread's helper that has ended
    }
    let (status, said) = ended(child, LIMIT);
    assert_eq!(status, Some(130), "{said}");
    assert!(!said.contains("another sidecar") && !said.contains("once more in a fresh engine"), "{said}");
    place.nothing_is_left();
}

#[test]
fn a_terminal_that_closes_finishes_the_run_unless_hangups_were_ignored() {
    let place = Place::new();
    let child = place.scripted("100").spawn().unwrap();
    wait_for("a run", LIMIT, || place.has_run());
    // A shell that closes sends it to its jobs, and the terminal sends it again.
    killpg(pid(&child), Signal::SIGHUP).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    killpg(pid(&child), Signal::SIGHUP).unwrap();
    let (status, said) = ended(child, LIMIT);
    assert_eq!(status, Some(130), "{said}");
    assert!(place.statuses().iter().all(|status| status == "valid"), "{said}");
    place.nothing_is_left();

    let place = Place::new();
    let bench = place.scripted("4");
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).args(bench.get_args().skip(1));
    nohup
        .current_dir(place.path("here"))
        .env("TMPDIR", place.path("tmp"))
        .env_remove("XDG_RUNTIME_DIR")
        .process_group(0);
    let child = nohup.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a run", LIMIT, || place.has_run());
    killpg(pid(&child), Signal::SIGHUP).unwrap();
    let (status, said) = ended(child, LIMIT);
    assert_eq!((status, place.statuses().len()), (Some(0), 4), "{said}");
}

#[test]
fn a_stopped_sidecar_does_not_outlive_a_killed_harness() {
    let place = Place::new();
    let mut child = place.scripted("100").spawn().unwrap();
    wait_for("a run", LIMIT, || place.has_run());
    for process in place.processes().into_iter().filter(|process| *process != pid(&child).as_raw()) {
        kill(Pid::from_raw(process), Signal::SIGSTOP).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    place.nothing_is_left();
}

/// A package that can be imported in vLLM's place, says so, and knows no arguments.
fn write_vllm(folder: &Path, name: &str) {
    let modules = [
        (
            "vllm/__init__.py",
            format!(
                "import sys\nprint('imported {name}', file=sys.stderr, flush=True)\n__version__ = '1.0'\nEngineArgs = SamplingParams = object\n"
            ),
        ),
        ("vllm/platforms.py", "class current_platform:\n    device_type = 'cpu'\n".to_owned()),
        ("vllm/utils/__init__.py", String::new()),
        ("vllm/utils/argparse_utils.py", "from argparse import ArgumentParser as FlexibleArgumentParser\n".to_owned()),
        ("vllm/v1/__init__.py", String::new()),
        ("vllm/v1/engine/__init__.py", String::new()),
        ("vllm/v1/engine/llm_engine.py", "LLMEngine = object\n".to_owned()),
        ("vllm/v1/executor.py", "Executor = object\n".to_owned()),
    ];
    for (path, text) in modules {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn nothing_of_the_working_folder_is_imported_and_pythonpath_counts_as_when_it_was_looked_up() {
    let place = Place::new();
    let here = place.path("here");
    write_vllm(&here, "the folder's");
    fs::write(here.join("json.py"), "open('executed', 'w')\n").unwrap();
    let with_python = |python_path: &str| {
        let mut command = place.bench(&["engine", "--own-sidecar", "--device", "cpu", "--python", "python3"]);
        ended(command.env("PYTHONPATH", python_path).spawn().unwrap(), LIMIT)
    };
    // An empty entry is the working folder to Python.
    for python_path in ["", ":"] {
        let (status, said) = with_python(python_path);
        assert!(status == Some(3) && said.contains("vLLM"), "{said}");
    }
    write_vllm(&place.path("on-path"), "the path's");
    let (_, said) = with_python(&format!(":{}", place.path("on-path").display()));
    assert!(place.log().contains("imported the path's"), "{said}{}", place.log());
    assert!(!place.log().contains("imported the folder's"), "{}", place.log());

    fs::remove_dir_all(place.path("out")).unwrap();
    let (status, said) = ended(place.scripted("1").spawn().unwrap(), LIMIT);
    assert_eq!(status, Some(0), "{said}");
    assert!(!here.join("executed").exists(), "json.py of the working folder was executed");
}
