//! A sweep whose processes are killed and stopped at random, and resumed, until it is done: what was finished is there,
//! once and right, and nothing else is.
//!
//! The faults follow from a seed: `BENCH_KILLS_SEED=7 BENCH_KILLS=200 cargo test --release --test kills`. When they fall
//! is up to the machine.

mod moments;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

/// Points of a sweep, and runs of each.
const POINTS: u32 = 5;
const REPEATS: u32 = 12;
/// Longest time between two faults.
const MOST_BETWEEN_MS: u64 = 500;
/// Longest time that a process is stopped which is continued.
const MOST_STOPPED_MS: u64 = 700;
/// No command may take longer to end or to go on.
const LIMIT: Duration = Duration::from_secs(120);

/// Who is hit, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillHarness,
    KillSidecar,
    KillEngine,
    /// Until the harness has noticed.
    StopEngine,
    PauseHarness,
    PauseSidecar,
    PauseEngine,
    /// Until the harness has noticed. As it costs the limit of a silent engine, it is hit at chosen moments only.
    StopSidecar,
    /// As of a closed terminal: the run is finished, and the command leaves.
    HangUpHarness,
    /// As of `timeout`, systemd or Slurm: harness, sidecar and engine at once.
    TerminateGroup,
}

const FAULTS: [Fault; 7] = [
    Fault::KillHarness,
    Fault::KillSidecar,
    Fault::KillEngine,
    Fault::StopEngine,
    Fault::PauseHarness,
    Fault::PauseSidecar,
    Fault::PauseEngine,
];

/// A sweep in its folder, whatever has become of the commands that measured it.
struct Sweep {
    folder: tempfile::TempDir,
    /// Bytes of the files of each run that was seen finished.
    finished: BTreeMap<PathBuf, Vec<u8>>,
}

impl Sweep {
    fn new() -> Sweep {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        fs::write(folder.path().join("script.yaml"), "requests: [{first_ns: 20000000, gap_ns: 8000000}]").unwrap();
        let lengths: Vec<String> =
            (0..POINTS).map(|point| format!("{{input_len: 16, output_len: {}}}", 10 + 4 * point)).collect();
        let config = format!(
            "defaults: {{sentinel: none}}\nstandalone_runs:\n  - {{name: t, mode: vllm_throughput, args: --model some/model, repeats: {REPEATS}, \
             num_prompts: 3, length_configs: [{}]}}\n",
            lengths.join(", ")
        );
        fs::write(folder.path().join("sweep.yaml"), config).unwrap();
        Sweep { folder, finished: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `bench engine` on the sweep's configuration.
    fn command(&self) -> Command {
        let mut command = Command::new("env"); // whoever runs the tests may ignore hangups
        command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_bench")]);
        command.args(["engine", "--engine", &format!("scripted:{}", self.path("script.yaml").display())]);
        // An engine that is stopped while it loads is given up after this long.
        command.args(["--stall-limit", "10"]);
        command.arg("--config").arg(self.path("sweep.yaml"));
        command.env_remove("BENCH_PYTHON").env("TMPDIR", self.path("tmp")).env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// Begins the sweep, or goes on with it.
    fn begin(&self) -> Child {
        let out = self.path("out");
        let how = if out.join("runs/session.json").exists() { "--resume" } else { "--out" };
        let mut command = self.command();
        command.arg(how).arg(&out);
        let said = File::options().create(true).append(true).open(self.path("said")).unwrap();
        command.process_group(0); // so that a fault of the group does not hit the test
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap()
    }

    /// What was finished at the look before is still there, byte for byte; what is finished now is kept in mind.
    fn look(&mut self) {
        for (path, bytes) in &self.finished {
            assert_eq!(&fs::read(path).unwrap(), bytes, "{} has changed", path.display());
        }
        for run in fs::read_dir(self.path("out/runs")).into_iter().flatten().flatten() {
            let record = run.path().join("timeline.json");
            let Ok(text) = fs::read(&record) else { continue };
            let stored: Value = serde_json::from_slice(&text).unwrap();
            if stored["outcome"]["kind"] == "completed" {
                let events = run.path().join("timeline.bin");
                self.finished.insert(events.clone(), fs::read(events).unwrap());
                self.finished.insert(record, text);
            }
        }
    }

    /// Processes of the sweep: each has its folder in its environment.
    fn processes(&self) -> Vec<i32> {
        // That of the command itself, and those in it which sidecars get.
        let mark = format!("TMPDIR={}", self.path("tmp").display());
        let has_mark = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_mark).collect()
    }

    /// A line for each process that is left: what it is, its state, parent and threads, and where it waits.
    fn who_is_there(&self) -> String {
        let read = |pid: i32, name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let describe = |pid: i32| {
            let status = read(pid, "status");
            let facts = ["State", "PPid", "Threads", "SigBlk"]
                .map(|key| status.lines().find(|line| line.starts_with(key)).unwrap_or_default().replace('\t', " "));
            format!("{pid} {}: {}, {}\n", read(pid, "cmdline").replace('\0', " "), facts.join(", "), read(pid, "wchan"))
        };
        self.processes().into_iter().map(describe).collect()
    }

    /// No process is left.
    fn wait_until_all_have_ended(&self) {
        let deadline = Instant::now() + LIMIT;
        while !self.processes().is_empty() {
            assert!(Instant::now() < deadline, "still there: {}{}", self.who_is_there(), self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What was killed has left no folder of a socket and no temporary files, or the commands after it have removed them.
    fn check_temporary_files(&self) {
        let left = || -> Vec<_> {
            let own = self.path("tmp").join(format!("bench-{}", nix::unistd::getuid()));
            // One that was killed while it made its folder has left it for a minute.
            let all = fs::read_dir(own).unwrap().map(|entry| entry.unwrap().file_name());
            all.filter(|name| !name.to_string_lossy().starts_with("new-")).collect()
        };
        // Of the last that was killed no command has come after it that starts a sidecar.
        if !left().is_empty() {
            let next = self.command().args(["--repeats", "1", "--out"]).arg(self.path("next")).output().unwrap();
            assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
        }
        assert!(left().is_empty(), "{:?}", left());
    }

    /// The sweep is whole: each planned run once, as the script has it.
    fn check(&mut self) {
        self.look();
        let out = self.path("out").display().to_string();
        let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().unwrap();
        let report = run(&["report", &out]);
        assert!(matches!(report.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&report.stderr));
        assert!(run(&["export", &out, "--csv"]).status.success());
        let summary: Value = serde_json::from_slice(&fs::read(self.path("out/summary_report.json")).unwrap()).unwrap();
        let runs = summary["runs"].as_array().unwrap();
        let mut planned = BTreeSet::new();
        let mut measured = BTreeSet::new();
        for run in runs {
            if run["status"] != "failed" {
                let [name, point] = ["name", "point"].map(|key| run[key].as_str().unwrap());
                measured.insert(format!("{name}|{point}|{}", run["repeat"]));
            }
            let key = (run["point"].as_str().unwrap().to_owned(), run["round"].as_u64().unwrap());
            match run["status"].as_str().unwrap() {
                "valid" => assert!(planned.insert(key), "measured twice: {run}"),
                "invalid" => {
                    // Of a harness that was stopped in the middle of it; what it received is all the same complete.
                    assert!(run["reasons"].to_string().contains("stood still"), "{}", run["reasons"]);
                    assert!(planned.insert(key), "measured twice: {run}");
                }
                status => assert_eq!(status, "failed"),
            }
        }
        assert_eq!(planned.len() as u32, POINTS * REPEATS);
        assert_eq!(self.finished.len(), 2 * planned.len(), "runs on the disk that are in no report");
        let names: BTreeSet<String> = fs::read_dir(self.path("out"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        let known = [
            "events.csv",
            "report.html",
            "requests.parquet",
            "runs",
            "set-aside",
            "sidecar.log",
            "summary_report.json",
            "truth.csv",
        ];
        let is_chart = |name: &str| name.ends_with(".svg") || name.ends_with(".png");
        assert!(names.iter().all(|name| is_chart(name) || known.contains(&name.as_str())), "{names:?}");
        self.check_tokens(&measured);
    }

    /// Each token event of the measured runs is one that the script has emitted, and none is missing. Of a run that was
    /// killed nobody has written what it emitted.
    fn check_tokens(&self, measured: &BTreeSet<String>) {
        let rows = |name: &str| -> Vec<HashMap<String, String>> {
            let mut reader = csv::Reader::from_path(self.path("out").join(name)).unwrap();
            reader.deserialize().map(|row| row.unwrap()).collect()
        };
        // A run that was measured anew under the same name has emitted twice; the later one counts.
        let mut truth: HashMap<(String, String, String), u64> = HashMap::new();
        for row in rows("truth.csv") {
            let key = (row["run"].clone(), row["request"].clone(), row["token"].clone());
            truth.insert(key, row["emitted_ns"].parse().unwrap());
        }
        let mut seen: HashMap<(String, String), u32> = HashMap::new();
        let mut finished: HashMap<String, u32> = HashMap::new();
        for row in rows("events.csv").into_iter().filter(|row| measured.contains(&row["run"])) {
            let request = (row["run"].clone(), row["request"].clone());
            match row["kind"].as_str() {
                "token" => {
                    let token = seen.entry(request.clone()).or_default();
                    let emitted_ns = truth[&(request.0, request.1, token.to_string())];
                    let [stamped_ns, received_ns] =
                        ["emitted_ns", "received_ns"].map(|column| row[column].parse::<u64>().unwrap());
                    assert!(emitted_ns <= stamped_ns && stamped_ns <= received_ns, "{row:?}");
                    *token += 1;
                }
                "finish" => *finished.entry(request.0).or_default() += 1,
                _ => {}
            }
        }
        assert!(finished.len() == measured.len() && finished.values().all(|requests| *requests == 3), "{finished:?}");
        let tokens: BTreeMap<&str, u32> = measured.iter().map(|run| (run.as_str(), 3 * tokens_of(run))).collect();
        let mut received: BTreeMap<&str, u32> = BTreeMap::new();
        seen.iter().for_each(|((run, _), count)| *received.entry(run).or_default() += count);
        assert_eq!(received, tokens);
    }
}

/// Tokens of each request, from the name of its run: `t|i16-o14-p0-n3|2`.
fn tokens_of(run: &str) -> u32 {
    let output = run.split("-o").nth(1).unwrap();
    output.split('-').next().unwrap().parse().unwrap()
}

/// The children of a process.
fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<i32>>()).collect()
}

/// Not what only looks at an interpreter, nor a shell script that stands before one, as pyenv has it: nobody but this test
/// would go on with what it stops in there.
fn is_sidecar(pid: i32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let is_python = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
    is_python && command.split(|byte| *byte == 0).any(|word| word == b"bench_sidecar")
}

fn send(pid: i32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid), signal).is_ok()
}

/// Hits a process of the command; false if it is not there at the moment.
fn hit(harness: i32, fault: Fault, pause: Duration) -> bool {
    let sidecar = children(harness).into_iter().find(|child| is_sidecar(*child));
    let engine = sidecar.and_then(|sidecar| children(sidecar).into_iter().next());
    let (target, signal, goes_on) = match fault {
        Fault::KillHarness => (Some(harness), Signal::SIGKILL, false),
        Fault::KillSidecar => (sidecar, Signal::SIGKILL, false),
        Fault::KillEngine => (engine, Signal::SIGKILL, false),
        Fault::StopEngine => (engine, Signal::SIGSTOP, false),
        Fault::PauseHarness => (Some(harness), Signal::SIGSTOP, true),
        Fault::PauseSidecar => (sidecar, Signal::SIGSTOP, true),
        Fault::PauseEngine => (engine, Signal::SIGSTOP, true),
        Fault::StopSidecar => (sidecar, Signal::SIGSTOP, false),
        Fault::HangUpHarness => (Some(harness), Signal::SIGHUP, false),
        Fault::TerminateGroup => (Some(-harness), Signal::SIGTERM, false),
    };
    let is_hit = target.is_some_and(|pid| send(pid, signal));
    if goes_on && is_hit {
        std::thread::sleep(pause);
        target.map(|pid| send(pid, Signal::SIGCONT));
    }
    is_hit
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// The command's status, once it has ended.
fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn whatever_is_killed_or_stopped_what_was_finished_is_kept_and_the_sweep_is_completed() {
    let (seed, faults) = (variable("BENCH_KILLS_SEED", 1), variable("BENCH_KILLS", 200));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut below = |bound: u64| random.next_u64() % bound;
    let mut hits: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut sweeps = 0;
    while hits.values().sum::<u64>() < faults {
        let mut sweep = Sweep::new();
        let mut child = sweep.begin();
        let mut commands = 1;
        loop {
            if let Some(status) = wait(&mut child, Duration::from_millis(below(MOST_BETWEEN_MS))) {
                sweep.wait_until_all_have_ended();
                sweep.look();
                let is_whole = sweep.finished.len() as u32 == 2 * POINTS * REPEATS;
                // 1: a run failed on the way, or the sidecar could not be started; 3: nothing could.
                assert!(matches!(status.code(), Some(0 | 1 | 3) | None), "{status}: {}", sweep.said());
                // One that was killed in its last write leaves half a file, which the next one clears away.
                if is_whole && status.code().is_some() {
                    sweep.check_temporary_files();
                    break;
                }
                commands += 1;
                assert!(commands < 10 * faults, "it is resumed again and again: {}", sweep.said());
                child = sweep.begin();
                continue;
            }
            if hits.values().sum::<u64>() < faults {
                let fault = FAULTS[below(FAULTS.len() as u64) as usize];
                let pause = Duration::from_millis(below(MOST_STOPPED_MS));
                *hits.entry(fault).or_default() += u64::from(hit(child.id() as i32, fault, pause));
            } else {
                assert!(wait(&mut child, LIMIT).is_some(), "it does not end: {}", sweep.said());
            }
        }
        let said = sweep.said();
        assert!(!said.contains("panicked") && !said.contains("Traceback"), "{said}");
        sweep.check();
        sweeps += 1;
    }
    println!("seed {seed}: {hits:?} in {sweeps} sweeps");
}
