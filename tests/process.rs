//! What the system refuses a command: output that cannot be written, threads, stack, file sizes, open files. No command
//! panics for it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A run of one request, as short as a run can be.
const SCRIPT: &str = "requests: [{first_ns: 1000000, gap_ns: 1000000, tokens: 5}]";

/// A user that owns nothing, and so has no process of its own.
const NOBODY: u32 = 65_534;

/// A folder with a script, in which `bench` is run.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        fs::write(folder.path().join("script.yaml"), SCRIPT).unwrap();
        Place(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// `bench` with these words, started by a shell that has done `before` (limits and redirections).
    fn shell(&self, before: &str, words: &str) -> Command {
        self.shell_of(env!("CARGO_BIN_EXE_bench"), before, words)
    }

    fn shell_of(&self, program: &str, before: &str, words: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{before}\nexec {program} {words}")]).current_dir(self.0.path());
        command.env_remove("BENCH_PYTHON").env_remove("XDG_RUNTIME_DIR").env_remove("RUST_BACKTRACE");
        command.env("TMPDIR", self.path("tmp")).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// A sweep of this many runs is in `out`, and all of them are valid.
    #[track_caller]
    fn holds_valid_runs(&self, out: &str, runs: usize) {
        let report: Value =
            serde_json::from_slice(&fs::read(self.path(out).join("summary_report.json")).unwrap()).unwrap();
        let found = report["runs"].as_array().unwrap();
        assert!(found.len() == runs && found.iter().all(|run| run["status"] == "valid"), "{found:?}");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// No command may end by a signal, nor with the status of a panic.
#[track_caller]
fn ended_with(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}", said(output));
    assert!(!said(output).contains("panicked"), "{}", said(output));
}

const ENGINE: &str = "engine --engine scripted:script.yaml --own-sidecar";

#[test]
fn a_sweep_goes_on_when_standard_error_takes_no_more() {
    let place = Place::new();
    for (nth, before) in ["exec 2>/dev/full", "exec 2>&-", "exec <&- >&- 2>&-"].into_iter().enumerate() {
        let output = place.shell(before, &format!("{ENGINE} --repeats 2 --out {nth}")).output().unwrap();
        ended_with(&output, 0);
        place.holds_valid_runs(&nth.to_string(), 2);
    }
    // What was opened first has not become the standard output of something else.
    let log = fs::read_to_string(place.path("2/sidecar.log")).unwrap();
    assert!(!log.contains("results: "), "{log}");
}

/// Runs its words with a terminal as standard output and standard error, closes the terminal in the middle of the sweep, and
/// gives the status of the command. As under `nohup`, nobody tells the command.
const CLOSES_ITS_TERMINAL: &str = r#"
import os, signal, subprocess, sys
master, slave = os.openpty()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
os.close(slave)
said = b""
while b"[2/" not in said:
    said += os.read(master, 4096)
os.close(master)
sys.exit(command.wait())
"#;

#[test]
fn a_sweep_goes_on_when_its_terminal_is_closed() {
    let place = Place::new();
    let mut command = Command::new("python3");
    command.args(["-c", CLOSES_ITS_TERMINAL, env!("CARGO_BIN_EXE_bench")]).args(ENGINE.split(' '));
    command.args(["--repeats", "4", "--out", "out"]).current_dir(place.path(".")).env("TMPDIR", place.path("tmp"));
    let output = command.env_remove("BENCH_PYTHON").env_remove("XDG_RUNTIME_DIR").output().unwrap();
    ended_with(&output, 0);
    place.holds_valid_runs("out", 4);
}

#[test]
fn a_result_that_cannot_be_printed_is_an_error_and_a_reader_that_left_is_none() {
    let place = Place::new();
    let run = |before: &str, words: &str| place.shell(before, words).output().unwrap();
    let output = run("exec >/dev/full", &format!("{ENGINE} --out out"));
    ended_with(&output, 1);
    assert!(said(&output).contains("error: cannot write to standard output: No space left on device"));
    assert!(said(&output).contains("results: out"), "what was measured is kept: {}", said(&output));
    place.holds_valid_runs("out", 1);
    fs::remove_file(place.path("out/report.html")).unwrap();
    ended_with(&run("exec >/dev/full", "report out"), 1);
    assert!(place.path("out/report.html").exists(), "the files of a report that cannot be printed");
    for words in ["report out", "export out --csv", "schema", "sidecar list", "--version"] {
        let output = run("exec >/dev/full", words);
        ended_with(&output, 1);
        assert!(said(&output).contains("error: cannot write to standard output: "), "{words}: {}", said(&output));
    }
    for words in ["schema", "--help"] {
        ended_with(&run("exec >/dev/full 2>&1", words), 1);
        ended_with(&run("exec >&-", words), 0);
        // The reader has left before the first word.
        ended_with(&run("exec > >(:); sleep 0.1", words), 0);
    }
    ended_with(&run("exec 2>/dev/full", "no-such-command"), 2);
}

#[test]
fn a_command_has_a_stack_of_its_own() {
    let place = Place::new();
    for words in [&format!("{ENGINE} --dry-run") as &str, "engine --dry-run", "schema", "doctor --device cuda"] {
        let output = place.shell("ulimit -s 32", words).output().unwrap();
        assert!(output.status.code().is_some_and(|status| [0, 3].contains(&status)), "{words}: {}", said(&output));
        assert!(!output.stdout.is_empty(), "{words}: {}", said(&output));
    }
}

#[test]
fn a_file_that_grows_beyond_its_limit_is_an_error_and_no_signal() {
    let place = Place::new();
    ended_with(&place.shell("", &format!("{ENGINE} --out out")).output().unwrap(), 0);
    let output = place.shell("ulimit -f 1", "export out --csv --perfetto").output().unwrap();
    ended_with(&output, 1);
    assert!(said(&output).contains("File too large"), "{}", said(&output));
    assert!(said(&output).contains("what to do: allow larger files: ulimit -f unlimited"), "{}", said(&output));
    assert!(!place.path("out/trace.json").exists(), "half a file");
    let output = place.shell("ulimit -f 1", &format!("{ENGINE} --out other")).output().unwrap();
    ended_with(&output, 3);
    assert!(said(&output).contains("File too large"), "{}", said(&output));
}

#[test]
fn a_limit_of_open_files_is_named() {
    let place = Place::new();
    for (limit, status) in [(8, 3), (12, 3), (16, 3), (18, 3)] {
        let words = format!("{ENGINE} --out out-{limit} --quiet");
        let output = place.shell(&format!("ulimit -n {limit}"), &words).output().unwrap();
        ended_with(&output, status);
        assert!(said(&output).contains("Too many open files"), "{limit}: {}", said(&output));
        assert!(said(&output).contains("ulimit -n 1024"), "{limit}: {}", said(&output));
    }
}

/// The program and a folder for a user whose processes are counted from none; `None` where this user may not become it.
fn as_nobody(place: &Place, limit: u32, words: &str) -> Option<Command> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not tested: takes root");
        return None;
    }
    let program = place.path("bench");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_bench"), &program).unwrap();
        for (path, mode) in [(".", 0o777), ("tmp", 0o777), ("script.yaml", 0o644), ("bench", 0o755)] {
            fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    let mut command = place.shell_of(&program.display().to_string(), &format!("ulimit -u {limit}"), words);
    command.env("HOME", place.path(".")).env("XDG_CACHE_HOME", place.path("cache"));
    let mut inner = Command::new("setpriv");
    inner.args([&format!("--reuid={NOBODY}"), "--clear-groups"]).arg(command.get_program()).args(command.get_args());
    inner.current_dir(place.path(".")).stdin(Stdio::null());
    command.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(inner.env(name, value)),
        None => drop(inner.env_remove(name)),
    });
    Some(inner)
}

#[test]
fn a_thread_that_is_not_granted_is_an_error() {
    let place = Place::new();
    for limit in [0, 1, 4, 5, 6] {
        let Some(mut command) = as_nobody(&place, limit, &format!("{ENGINE} --out out-{limit}")) else { return };
        let output = command.output().unwrap();
        assert!(output.status.code().is_some_and(|status| [0, 1, 3].contains(&status)), "{limit}: {}", said(&output));
        assert!(!said(&output).contains("panicked"), "{limit}: {}", said(&output));
    }
    let output = as_nobody(&place, 1, "schema").unwrap().output().unwrap();
    ended_with(&output, 0);
    assert!(!output.stdout.is_empty());
}

#[test]
fn a_file_of_the_command_never_becomes_a_standard_stream() {
    let place = Place::new();
    ended_with(&place.shell("", &format!("{ENGINE} --out out")).output().unwrap(), 0);
    let report = place.path("out/summary_report.json");
    let before = fs::read(&report).unwrap();
    ended_with(&place.shell("exec <&- >&- 2>&-", "report out").output().unwrap(), 0);
    assert_eq!(serde_json::from_slice::<Value>(&before).unwrap()["runs"], runs_of(&report), "printed into a file");
}

fn runs_of(report: &Path) -> Value {
    serde_json::from_reader::<_, Value>(File::open(report).unwrap()).unwrap()["runs"].clone()
}
