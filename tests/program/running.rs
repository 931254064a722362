//! A command that measures, and every process that belongs to it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::{bench, wait_for};

/// A sweep that goes on.
pub struct Running {
    child: Child,
    /// Its results folder.
    pub out: PathBuf,
    /// Its fork server.
    pub sidecar: u32,
    /// Its engine process.
    pub engine: u32,
    said: PathBuf,
    traces: Traces,
}

impl Running {
    /// Starts a sweep in a process group of its own, as a shell does, and waits until its first run is stored.
    pub fn begin(file: &Path, out: &Path) -> Running {
        let traces = Traces::new();
        let said = out.with_extension("stderr");
        let mut command = bench();
        command.args(["engine", "--config"]).arg(file).arg("--out").arg(out);
        command.stderr(File::create(&said).unwrap()).stdout(Stdio::null()).process_group(0);
        let child = traces.leave_on(&mut command).spawn().unwrap();
        let mut running = Running { child, out: out.to_owned(), sidecar: 0, engine: 0, said, traces };
        wait_for("a finished run", || {
            assert!(running.child.try_wait().unwrap().is_none(), "{}", running.said());
            running.has_run()
        });
        running.sidecar = only_child(running.child.id());
        running.engine = only_child(running.sidecar);
        running
    }

    /// Process id of the command itself.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the engine is well inside a run: staging the next one takes it a tenth of this.
    pub fn wait_until_stepping(&self) {
        let before = cpu_ticks(self.engine);
        wait_for("a run that goes on", || cpu_ticks(self.engine) >= before + 50);
    }

    /// What Ctrl-C does: the signal reaches all processes of the terminal's foreground group.
    pub fn interrupt(&self) {
        send("-INT", &format!("-{}", self.pid()));
    }

    /// Waits until the command has said this.
    pub fn wait_until_said(&self, text: &str) {
        wait_for(text, || self.said().contains(text));
    }

    /// Waits for the command's end; nothing may be left of it then.
    pub fn ended(mut self) -> Output {
        wait_for("the end of the command", || self.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        self.traces.wait_until_gone();
        Output { status, stdout: Vec::new(), stderr: fs::read(&self.said).unwrap() }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    fn has_run(&self) -> bool {
        let stored = fs::read_dir(self.out.join("runs"));
        stored.is_ok_and(|runs| runs.flatten().any(|run| run.path().join("timeline.json").exists()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed half-way must not leave a sweep to the next one. It has mostly ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By what a command and all processes that it starts can be found: a folder for temporary files of its own, which
/// stands in their environment.
pub struct Traces {
    folder: tempfile::TempDir,
}

impl Traces {
    /// Of a command that has not begun.
    pub fn new() -> Traces {
        Traces { folder: tempfile::tempdir().unwrap() }
    }

    /// The command, which will leave them.
    pub fn leave_on<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("TMPDIR", self.folder.path()).env_remove("XDG_RUNTIME_DIR")
    }

    /// Waits until no process is left.
    #[track_caller]
    pub fn wait_until_ended(&self) {
        // That of the command itself, and those in it which sidecars get.
        let mark = [OsStr::new("TMPDIR=").as_bytes(), self.folder.path().as_os_str().as_bytes()].concat();
        wait_for("an end of all processes", || !processes().any(|environment| holds(&environment, &mark)));
    }

    /// Waits until no process, no socket's folder and no temporary file is left.
    #[track_caller]
    pub fn wait_until_gone(&self) {
        self.wait_until_ended();
        let names = |folder: &Path| fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        let own = format!("bench-{}", nix::unistd::getuid());
        let left: Vec<_> = names(self.folder.path()).filter(|name| *name != *own).collect();
        assert!(left.is_empty(), "{left:?}");
        let left: Vec<_> = names(&self.folder.path().join(own)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The environment of each process that this user may look at; a zombie has none.
fn processes() -> impl Iterator<Item = Vec<u8>> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|process| fs::read(process.path().join("environ")).ok())
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Sends a signal to a process, or to a group with a minus before its number.
#[track_caller]
pub fn send(signal: &str, target: &str) {
    assert!(Command::new("kill").args([signal, "--", target]).status().unwrap().success());
}

/// Processor time that a process has used, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = status.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The only child of all threads of `pid`.
#[track_caller]
fn only_child(pid: u32) -> u32 {
    let ids = children(pid);
    assert_eq!(ids.len(), 1, "children of {pid}: {ids:?}");
    ids[0]
}

/// The children of all threads of `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect()
}
