//! Folders for temporary files and sidecars: what is not this program's own is neither removed nor waited for.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::{getuid, mkfifo};

use crate::running::{children, send};
use crate::{bench, one_engine, refused, summary, wait_for};

/// Output tokens of a sweep that is done at once, and of one that goes on for minutes.
const SHORT: u32 = 4;
const LONG: u32 = 3_000;
/// Nobody's number.
const OTHER: u32 = 65_534;
/// A scripted sweep takes a second or two; one that waits for a pipe would take for ever.
const LIMIT: Duration = Duration::from_secs(100);

/// A folder for temporary files that this user shares with others.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Shared {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        Shared(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program's own folder in it.
    fn own(&self) -> PathBuf {
        self.path(&format!("bench-{}", getuid()))
    }

    fn own_names(&self) -> Vec<String> {
        names(&self.own())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = bench();
        command.env("TMPDIR", self.0.path()).env_remove("XDG_RUNTIME_DIR").args(args);
        command
    }

    /// One run of a scripted engine, of a token every 50 ms.
    fn scripted(&self, out: &Path, output_len: u32) -> Command {
        let (script, sweep) = (out.with_extension("script.yaml"), out.with_extension("yaml"));
        fs::write(&script, "requests: [{first_ns: 1000000, gap_ns: 50000000}]").unwrap();
        let run = format!(
            "{{name: t, mode: vllm_throughput, model: some/model, num_prompts: 1, repeats: 1, warmup: 0, length_configs: \
             [{{input_len: 4, output_len: {output_len}}}]}}"
        );
        fs::write(&sweep, format!("defaults: {{sentinel: none}}\nstandalone_runs: [{run}]\n")).unwrap();
        let mut command = self.command(&["engine", "--own-sidecar", "--wait", "sleep", "--python", python()]);
        command.arg("--engine").arg(format!("scripted:{}", script.display()));
        command.arg("--config").arg(sweep).arg("--out").arg(out);
        command
    }
}

/// The Python itself, where that on PATH may be a shim of a version manager, which takes a second to answer.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let answer = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    })
}

/// A folder of this user alone with a file in it, as if it had been there for a long time.
fn private(path: &Path, file: &str) -> PathBuf {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    fs::write(path.join(file), file).unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    path.to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What the command says, which must not wait for anybody.
#[track_caller]
fn output(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("it waits for something");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn folders_pipes_sockets_and_links_that_only_have_the_name_are_left() {
    let _one = one_engine();
    let shared = Shared::new();
    let results = tempfile::tempdir().unwrap();
    private(&shared.path("bench-notes"), "todo.md");
    private(&shared.path("bench-Xa3bC9"), "summary_report.json"); // mktemp -d -t bench-XXXXXX
    let elsewhere = private(&shared.path("elsewhere"), "control");
    // In the program's own folder: all kinds under the names that it gives.
    fs::create_dir(shared.own()).unwrap();
    fs::set_permissions(shared.own(), Permissions::from_mode(0o700)).unwrap();
    let mut sockets = Vec::new();
    for folder in [shared.0.path().to_owned(), shared.own()] {
        for prefix in ["bench-", "run-", "new-"] {
            let path = |name: &str| folder.join(format!("{prefix}{name}"));
            mkfifo(&path("pipe01"), Mode::S_IRWXU).unwrap();
            symlink(&elsewhere, path("link01")).unwrap();
            sockets.push(UnixListener::bind(path("sock01")).unwrap());
            private(&path("notes1"), "notes");
            fs::write(path("file01"), "").unwrap();
            if getuid().is_root() {
                chown(private(&path("alien1"), "lock"), Some(OTHER), None).unwrap();
            }
        }
    }
    let before = (names(shared.0.path()), shared.own_names());
    // And what a command that was killed has left there, which leads outside.
    let abandoned = private(&shared.own().join("run-dead01"), "lock");
    sockets.push(UnixListener::bind(abandoned.join("control")).unwrap());
    fs::create_dir_all(abandoned.join("tmp/torchinductor_root/a/b")).unwrap();
    fs::write(abandoned.join("tmp/vllm_dist_1"), "").unwrap();
    symlink(&elsewhere, abandoned.join("tmp/torchinductor_root/out")).unwrap();

    let out = results.path().join("out");
    let said = output(shared.scripted(&out, SHORT));
    refused(&said, 0, &[]);
    assert_eq!((names(shared.0.path()), shared.own_names()), before);
    assert_eq!(names(&elsewhere), ["control"]);
    assert!(names(&shared.path("bench-notes")) == ["todo.md"] && names(&shared.path("bench-Xa3bC9")).len() == 1);
}

#[test]
fn a_folder_that_somebody_else_made_first_is_neither_used_nor_in_the_way() {
    let _one = one_engine();
    let results = tempfile::tempdir().unwrap();
    let pipe: fn(&Path) = |path| mkfifo(path, Mode::S_IRWXU).unwrap();
    let link: fn(&Path) = |path| symlink("/tmp", path).unwrap();
    fn open(path: &Path) {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    let aliens: fn(&Path) = |path| {
        open(path);
        chown(path, getuid().is_root().then_some(OTHER), None).unwrap();
    };
    for (number, make) in [pipe, link, open, aliens].into_iter().enumerate() {
        let shared = Shared::new();
        make(&shared.own());
        let before = fs::symlink_metadata(shared.own()).unwrap();
        let out = results.path().join(format!("out{number}"));
        refused(&output(shared.scripted(&out, SHORT)), 0, &[&shared.own().display().to_string(), "is not used"]);
        assert_eq!(summary(&out)["runs"][0]["status"], "valid");
        let after = fs::symlink_metadata(shared.own()).unwrap();
        assert_eq!((before.ino(), before.mtime()), (after.ino(), after.mtime()));
        assert_eq!(names(shared.0.path()).len(), 1, "{:?}", names(shared.0.path()));
    }
}

/// Starts a sweep that goes on for minutes; its sidecar.
fn begin(mut command: Command) -> (Child, u32) {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // A shim of a version manager has children, too.
    let is_sidecar = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|word| word == b"--temporary") && !children(*pid).is_empty()
    };
    let sidecar = || children(child.id()).into_iter().find(is_sidecar);
    wait_for("an engine", || sidecar().is_some());
    let sidecar = sidecar().unwrap();
    (child, sidecar)
}

/// Whether a process has ended; a zombie has no environment.
fn is_gone(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/environ")).unwrap_or_default().is_empty()
}

#[test]
fn temporary_files_of_the_engine_go_with_it_and_after_a_kill_with_the_next_command() {
    let _one = one_engine();
    let shared = Shared::new();
    let results = tempfile::tempdir().unwrap();
    let out = |name: &str| results.path().join(name);
    let (mut child, sidecar) = begin(shared.scripted(&out("killed"), LONG));
    let environment = fs::read(format!("/proc/{sidecar}/environ")).unwrap();
    let given = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"TMPDIR="));
    let temporary = PathBuf::from(String::from_utf8(given.unwrap().to_vec()).unwrap());
    assert!(temporary.starts_with(shared.own()) && temporary.ends_with("tmp"), "{}", temporary.display());
    fs::create_dir_all(temporary.join("torchinductor_root/a")).unwrap();
    fs::write(temporary.join("torchinductor_root/a/kernel.py"), "").unwrap();

    // While it lives, others leave it alone.
    refused(&output(shared.scripted(&out("beside"), SHORT)), 0, &[]);
    assert!(temporary.join("torchinductor_root/a/kernel.py").exists());
    assert_eq!(shared.own_names().len(), 1);

    send("-STOP", &sidecar.to_string()); // so that it cannot clear away by itself
    child.kill().unwrap();
    child.wait().unwrap();
    send("-9", &sidecar.to_string());
    wait_for("the end of the sidecar", || is_gone(sidecar));
    assert!(temporary.exists());
    refused(&output(shared.scripted(&out("next"), SHORT)), 0, &[]);
    assert!(shared.own_names().is_empty(), "{:?}", shared.own_names());

    let (mut child, sidecar) = begin(shared.scripted(&out("alone"), LONG));
    let [folder] = &shared.own_names()[..] else { panic!("{:?}", shared.own_names()) };
    fs::write(shared.own().join(folder).join("tmp/vllm_dist_1"), "").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the end of the sidecar", || is_gone(sidecar));
    assert!(shared.own_names().is_empty(), "the sidecar clears away by itself: {:?}", shared.own_names());
}

#[test]
fn the_registry_of_warm_sidecars_waits_for_nothing_and_removes_nothing_of_others() {
    let runtime = tempfile::tempdir().unwrap();
    let registry = runtime.path().join("bench");
    fs::create_dir(&registry).unwrap();
    fs::set_permissions(&registry, Permissions::from_mode(0o700)).unwrap();
    mkfifo(&registry.join("cpu-pipe01"), Mode::S_IRWXU).unwrap();
    symlink(runtime.path(), registry.join("cpu-link01")).unwrap();
    private(&registry.join("notes"), "lock");
    private(&registry.join("cpu-notes1"), "notes");
    let locked = private(&registry.join("cpu-fifo01"), "notes");
    mkfifo(&locked.join("lock"), Mode::S_IRWXU).unwrap();
    if getuid().is_root() {
        chown(private(&registry.join("cpu-alien1"), "lock"), Some(OTHER), None).unwrap();
    }
    let before = names(&registry);
    private(&registry.join("cpu-dead01"), "lock");
    let mut command = bench();
    command.env("XDG_RUNTIME_DIR", runtime.path()).args(["sidecar", "list", "--json"]);
    let listed = output(command);
    refused(&listed, 0, &[]);
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(listed.iter().all(|one| one["status"].is_null()), "{listed:?}");
    assert_eq!(names(&registry), before);
}

/// Compiles a module that leaves a mark, and puts the bytecode where Python would keep that of the module given.
const PLANT: &str = "
import importlib.util, os, sys
from importlib import _bootstrap_external as external
source, mark = sys.argv[1:]
status, cached = os.stat(source), importlib.util.cache_from_source(source)
code = compile(f'open({mark!r}, \"w\")', source, 'exec')
os.makedirs(os.path.dirname(cached), exist_ok=True)
open(cached, 'wb').write(external._code_to_timestamp_pyc(code, int(status.st_mtime), status.st_size))
";

#[test]
fn what_was_added_to_the_sidecars_package_is_not_run() {
    let _one = one_engine();
    let (shared, results) = (Shared::new(), tempfile::tempdir().unwrap());
    let (cache, mark) = (results.path().join("cache"), results.path().join("mark"));
    let measure = |name: &str| {
        let mut command = shared.scripted(&results.path().join(name), SHORT);
        command.env("BENCH_CACHE_DIR", &cache);
        output(command)
    };
    refused(&measure("first"), 0, &[]);
    assert_eq!(fs::metadata(&cache).unwrap().mode() & 0o777, 0o700);
    let [package] = &names(&cache.join("assets"))[..] else { panic!("one build") };
    let package = cache.join("assets").join(package);
    let plants_mark = format!("open({:?}, 'w')\n", mark.display().to_string());
    fs::write(package.join("json.py"), &plants_mark).unwrap();
    fs::write(package.join("bench_sidecar/array.py"), &plants_mark).unwrap();
    let module = package.join("bench_sidecar/control.py");
    let planted = Command::new(python()).args(["-c", PLANT]).arg(&module).arg(&mark).status().unwrap();
    assert!(planted.success());
    refused(&measure("second"), 0, &[]);
    assert!(!mark.exists() && !package.join("json.py").exists());

    let planted = Command::new(python()).args(["-c", PLANT]).arg(&module).arg(&mark).status().unwrap();
    assert!(planted.success());
    refused(&measure("third"), 0, &[]);
    assert!(!mark.exists(), "bytecode alone");

    fs::set_permissions(&cache, Permissions::from_mode(0o770)).unwrap();
    refused(&measure("fourth"), 3, &["has mode 770", "chmod go-w"]);
}
