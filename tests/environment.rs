//! Environments as a user meets them: made from a lock file with the real installer, interrupted, and used by two
//! commands at once. A small package stands for the engine's 170; the code is the same.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use bench::machine::environment::{EnvironmentError, Host, Interpreter, Lock, Progress, managed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Set for a copy of this program that plays the command which is killed: the cache folder to install into.
const VICTIM: &str = "BENCH_TEST_VICTIM_CACHE";
const LIMIT: Duration = Duration::from_secs(120);

fn tiny_lock() -> Lock {
    Lock {
        name: "tiny".into(),
        text: "six==1.17.0 \\\n    \
               --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n"
            .into(),
        python_minors: 11..=13,
        module: "six".into(),
        download_bytes: 11_000,
        disk_bytes: 100_000,
    }
}

/// A cache folder of its own, with the installer and its downloads shared by all tests and kept for the next run.
fn cache() -> (tempfile::TempDir, Host) {
    static INSTALLER: OnceLock<()> = OnceLock::new();
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("environment");
    INSTALLER.get_or_init(|| {
        managed(&host(&shared), &tiny_lock(), &mut |_| {}).expect("the installer needs the package index");
    });
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for name in ["tools", "uv-cache"] {
        std::os::unix::fs::symlink(shared.join(name), folder.path().join(name)).unwrap();
    }
    let host = host(folder.path());
    (folder, host)
}

fn host(cache: &Path) -> Host {
    Host::of_process().with("BENCH_CACHE_DIR", cache)
}

fn make(host: &Host) -> (Result<Interpreter, EnvironmentError>, Vec<String>) {
    let mut told = Vec::new();
    let made = managed(host, &tiny_lock(), &mut |progress| told.push(progress.to_string()));
    (made, told)
}

/// The names in `envs`.
fn environments(cache: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(cache.join("envs")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn six_runs(python: &Path) -> bool {
    Command::new(python).args(["-I", "-c", "import six"]).status().unwrap().success()
}

#[test]
fn an_environment_is_announced_made_and_found_again() {
    let (folder, host) = cache();
    let (made, told) = make(&host);
    let made = made.unwrap();
    assert!(six_runs(&made.path), "{told:#?}");
    assert!(made.path.starts_with(folder.path().join("envs")));
    assert!(told[0].starts_with("making the Python environment for tiny, once: up to 1 packages"), "{told:#?}");
    assert!(told.last().unwrap().starts_with("the Python environment is ready"), "{told:#?}");
    assert!(told.iter().any(|line| line.contains("+ six==1.17.0")), "the installer's lines are missing: {told:#?}");

    let (again, told) = make(&host);
    assert_eq!((again.unwrap(), told), (made, Vec::new()));
}

#[test]
fn a_damaged_environment_is_made_anew() {
    let (_folder, host) = cache();
    let made = make(&host).0.unwrap();
    fs::remove_file(site_packages(&made.path).join("six.py")).unwrap();
    let (again, told) = make(&host);
    assert!(six_runs(&again.unwrap().path));
    assert!(!told.is_empty());
}

#[test]
fn a_failed_replacement_leaves_the_old_environment_and_a_successful_one_nothing_beside() {
    let (folder, host) = cache();
    let made = make(&host).0.unwrap();
    let name = environments(folder.path()).remove(0);
    let old = folder.path().join("envs").join(&name);
    fs::remove_file(site_packages(&made.path).join("six.py")).unwrap();
    // A command that was killed as it removed what it had replaced.
    fs::create_dir(old.with_extension("old")).unwrap();

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stuck = host.clone().with("UV_DEFAULT_INDEX", format!("http://{closed}/simple")).with("UV_HTTP_RETRIES", "0");
    let error = make(&stuck.with("UV_CACHE_DIR", folder.path().join("cold"))).0.unwrap_err();
    assert!(matches!(error, EnvironmentError::Install { .. }), "{error}");
    assert!(old.join("bin/python").exists() && site_packages(&made.path).exists());

    assert!(six_runs(&make(&host).0.unwrap().path));
    assert_eq!(environments(folder.path()), [name]);
}

#[test]
fn a_shim_that_starts_another_python_elsewhere_does_not_mix_up_the_environment() {
    let (folder, host) = cache();
    let real = real_python();
    // As a version manager's, it looks at the folder where it is started; the installer is started in the cache.
    let elsewhere = format!("case \"$(pwd)\" in {}*) echo not here >&2; exit 127;; esac", folder.path().display());
    let host = with_python3(&folder, host, &format!("{elsewhere}\nexec {} \"$@\"", real.display()));
    assert!(six_runs(&make(&host).0.unwrap().path));
}

#[test]
fn a_python_of_another_version_than_the_environment_is_named_after_is_noticed() {
    let (folder, host) = cache();
    let real = real_python();
    let minor = Command::new(&real).args(["-c", "import sys; print(sys.version_info[1])"]).output().unwrap().stdout;
    let minor: u8 = String::from_utf8(minor).unwrap().trim().parse().unwrap();
    let answer = |minor| {
        format!(
            r#"bench-probe {{"executable": "", "python": [3, {minor}, 0], "modules": ["venv", "ensurepip", "six"], "packages": {{"six": "1.17.0"}}}}"#
        )
    };

    let made = make(&host).0.unwrap();
    fs::remove_file(&made.path).unwrap();
    write_script(&made.path, &format!("echo '{}'", answer(minor + 1)));
    assert_eq!(make(&host).0.unwrap(), made, "the other Python was kept");

    let other = if minor == 12 { 13 } else { 12 };
    let lies = format!("case \"$*\" in *bench-probe*) echo '{}'; exit;; esac", answer(other));
    let host = with_python3(&folder, host, &format!("{lies}\nexec {} \"$@\"", real.display()));
    let error = make(&host).0.unwrap_err();
    assert!(matches!(error, EnvironmentError::Incomplete { .. }), "{error}");
    assert!(error.to_string().contains(&format!("not 3.{other}")), "{error}");
}

fn site_packages(python: &Path) -> PathBuf {
    let versions = fs::read_dir(python.parent().unwrap().parent().unwrap().join("lib")).unwrap();
    versions.map(|version| version.unwrap().path().join("site-packages")).next().unwrap()
}

/// The Python behind the first `python3` on PATH.
fn real_python() -> PathBuf {
    let said = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().into()
}

/// A host whose first `python3` on PATH is this shell script.
fn with_python3(folder: &tempfile::TempDir, host: Host, script: &str) -> Host {
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    write_script(&bin.join("python3"), script);
    let inherited = std::env::var_os("PATH").unwrap();
    let path = [bin].into_iter().chain(std::env::split_paths(&inherited));
    host.with("PATH", std::env::join_paths(path).unwrap())
}

/// Another process writes it: a file that this one has open for writing could be inherited by a child that another test
/// starts at that moment, and would count as busy.
fn write_script(path: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#]).arg(path).arg(script);
    assert!(shell.status().unwrap().success());
}

#[test]
fn a_killed_command_leaves_nothing_that_looks_complete_and_the_next_one_completes_it() {
    if let Some(cache) = std::env::var_os(VICTIM) {
        die_while_installing(Path::new(&cache));
    }
    let (folder, host) = cache();
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "a_killed_command_leaves_nothing_that_looks_complete_and_the_next_one_completes_it"]);
    victim.env(VICTIM, folder.path()).stdout(Stdio::null());
    let status = victim.status().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGKILL as i32), "{status}");
    let left = environments(folder.path());
    assert!(left.iter().all(|name| name.ends_with(".partial")) && left.len() == 1, "{left:?}");

    let made = make(&host).0.unwrap();
    assert!(six_runs(&made.path));
    let left = environments(folder.path());
    assert!(left.len() == 1 && !left[0].ends_with(".partial"), "{left:?}");
}

/// Kills this very process when the installer has said its first word.
fn die_while_installing(cache: &Path) -> ! {
    let _ = managed(&host(cache), &tiny_lock(), &mut |progress| {
        if matches!(progress, Progress::Line(_)) {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
    });
    unreachable!("the installer said nothing");
}

#[test]
fn an_installer_that_dies_is_reported_with_its_log_and_can_be_called_again() {
    let (folder, host) = cache();
    // An index that accepts the connection and never answers, so that the installer can be met alive.
    let index = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/simple", index.local_addr().unwrap());
    let cold = folder.path().join("cold");
    let stuck = host.clone().with("UV_DEFAULT_INDEX", url).with("UV_CACHE_DIR", cold);
    let cache = folder.path().to_owned();
    let killer = thread::spawn(move || {
        let (mut connection, _) = index.accept().unwrap();
        connection.read_exact(&mut [0]).unwrap();
        kill(process_with_argument(&cache.join("envs")), Signal::SIGKILL).unwrap();
    });
    let error = make(&stuck).0.unwrap_err();
    killer.join().unwrap();
    let EnvironmentError::Install { log, .. } = &error else { panic!("{error}") };
    assert!(log.starts_with(folder.path()) && fs::read_to_string(log).unwrap().contains("installing the packages"));
    assert!(
        error.to_string().contains("signal: 9") && error.to_string().contains("run the same command again"),
        "{error}"
    );
    let left = environments(folder.path());
    assert!(left.iter().all(|name| name.ends_with(".partial")), "{left:?}");
    assert!(six_runs(&make(&host).0.unwrap().path));
}

/// The child of this process that has a path below the folder among its arguments.
fn process_with_argument(folder: &Path) -> Pid {
    let me = format!("PPid:\t{}\n", std::process::id());
    let wanted = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let found = processes.filter(|process| {
        let read = |name| fs::read(process.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        read("status").is_ok_and(|status| status.contains(&me))
            && read("cmdline").is_ok_and(|line| line.contains(wanted))
    });
    let ids: Vec<PathBuf> = found.collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    Pid::from_raw(ids[0].file_name().unwrap().to_str().unwrap().parse().unwrap())
}

#[test]
fn an_index_that_cannot_be_reached_is_reported_in_the_installers_words() {
    let (folder, host) = cache();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let host = host.with("UV_DEFAULT_INDEX", format!("http://{closed}/simple")).with("UV_HTTP_RETRIES", "0");
    let error = make(&host.with("UV_CACHE_DIR", folder.path().join("cold"))).0.unwrap_err();
    assert!(matches!(error, EnvironmentError::Install { .. }), "{error}");
    assert!(error.to_string().contains(&closed.to_string()), "{error}");
}

#[test]
fn the_index_that_pip_is_configured_for_is_the_installers() {
    let (folder, host) = cache();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = folder.path().join("pip.conf");
    fs::write(&file, format!("[global]\nindex-url = http://{closed}/from-pip\n")).unwrap();
    let host = host.with("PIP_CONFIG_FILE", file).with("UV_HTTP_RETRIES", "0");
    let uv_settings = ["UV_CONFIG_FILE", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX", "UV_INDEX_URL"];
    let host = uv_settings.iter().fold(host.without("PIP_INDEX_URL"), |host, name| host.without(name));
    let host = host.with("UV_CACHE_DIR", folder.path().join("cold"));
    let error = make(&host).0.unwrap_err();
    assert!(error.to_string().contains(&format!("{closed}/from-pip")), "{error}");
}

#[test]
fn a_file_that_does_not_have_the_locked_hash_is_refused() {
    let (folder, host) = cache();
    let mut lock = tiny_lock();
    lock.text = lock.text.replace("4721f391", "00000000");
    let error = managed(&host, &lock, &mut |_| {}).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("hash"), "{error}");
    assert!(environments(folder.path()).iter().all(|name| name.ends_with(".partial")));
}

#[test]
fn of_two_commands_at_once_one_installs_and_the_other_waits_and_says_so() {
    let (folder, host) = cache();
    let holder = fs::File::create(folder.path().join("install.lock")).unwrap();
    holder.lock().unwrap();
    let installers = thread::scope(|scope| {
        let calls = [(), ()].map(|()| scope.spawn(|| make(&host)));
        // Both have to meet the lock, however fast one would have been.
        thread::sleep(Duration::from_secs(3));
        holder.unlock().unwrap();
        calls.map(|call| {
            let (made, told) = call.join().unwrap();
            assert!(six_runs(&made.unwrap().path));
            assert!(told[0].starts_with("another command is installing: waiting"), "{told:#?}");
            told.iter().filter(|line| line.starts_with("making the Python environment")).count()
        })
    });
    assert_eq!(installers.iter().sum::<usize>(), 1);
}

#[test]
fn an_orphaned_installer_still_excludes_the_next_command() {
    let (folder, _) = cache();
    let index = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/simple", index.local_addr().unwrap());
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "a_killed_command_leaves_nothing_that_looks_complete_and_the_next_one_completes_it"]);
    victim.env(VICTIM, folder.path()).env("UV_DEFAULT_INDEX", url).stdout(Stdio::null());
    let mut victim = victim.env("UV_CACHE_DIR", folder.path().join("cold")).spawn().unwrap();
    let (connection, _) = index.accept().unwrap(); // the installer lives, and waits for an answer
    victim.kill().unwrap();
    victim.wait().unwrap();

    let lock = fs::File::open(folder.path().join("install.lock")).unwrap();
    assert!(matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)), "the orphan does not hold the lock");
    drop((connection, index)); // refused from now on, it gives up
    let deadline = Instant::now() + LIMIT;
    while lock.try_lock().is_err() {
        assert!(Instant::now() < deadline, "the orphan holds the lock for ever");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_real_python_without_vllm_and_a_program_that_is_none_are_told_apart() {
    let (_folder, host) = cache();
    let six_only = make(&host).0.unwrap().path;
    let error = Interpreter::given(&six_only, &host).unwrap_err();
    assert!(matches!(error, EnvironmentError::NoVllm { .. }), "{error}");
    let error = Interpreter::given(Path::new("/bin/ls"), &host).unwrap_err();
    assert!(matches!(error, EnvironmentError::NotPython { .. }), "{error}");
}

#[test]
fn a_folder_named_vllm_is_no_vllm_and_a_package_on_pythonpath_is() {
    let (folder, host) = cache();
    let python = make(&host).0.unwrap().path;
    let path = folder.path().join("on-path");
    fs::create_dir_all(path.join("vllm")).unwrap();
    let host = host.with("PYTHONPATH", &path);
    assert!(matches!(Interpreter::given(&python, &host), Err(EnvironmentError::NoVllm { .. })));
    fs::write(path.join("vllm/__init__.py"), "raise RuntimeError('imported')").unwrap();
    let found = Interpreter::given(&python, &host).unwrap();
    assert_eq!(found.vllm, None);
    let file = path.canonicalize().unwrap().join("vllm/__init__.py");
    assert_eq!((found.vllm_file, found.python_path), (Some(file), Some(path.display().to_string())));
}
