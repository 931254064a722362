//! Faults at chosen moments: import, load, warm-up, run and report. The command ends in bounded time, leaves no process, and the
//! sweep is completed by the next one.
//!
//! `BENCH_KILLS_MOMENTS=30 BENCH_KILLS_SEED=7 cargo test --release --test kills -- moment` has as many faults on each engine.

use super::*;

/// When a fault is to fall, as it can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The sidecar has been started, and has not said hello.
    Import,
    /// An engine is being loaded.
    Load,
    /// A real engine that is loaded is being warmed up.
    WarmUp,
    /// The second run goes on.
    Run,
    /// The last run is over, and the report is being written.
    Report,
}

/// What is done at which moment. The first five are those of the gate: each moment once, by five ways to end or to stop a process.
const PLANNED: [(Moment, Fault); 15] = [
    (Moment::Import, Fault::TerminateGroup),
    (Moment::Load, Fault::StopSidecar),
    (Moment::WarmUp, Fault::KillEngine),
    (Moment::Run, Fault::HangUpHarness),
    (Moment::Report, Fault::KillHarness),
    (Moment::Import, Fault::StopSidecar),
    (Moment::Load, Fault::TerminateGroup),
    (Moment::WarmUp, Fault::StopEngine),
    (Moment::Run, Fault::TerminateGroup),
    (Moment::Report, Fault::TerminateGroup),
    (Moment::Import, Fault::KillHarness),
    (Moment::Load, Fault::HangUpHarness),
    (Moment::WarmUp, Fault::HangUpHarness),
    (Moment::Run, Fault::KillSidecar),
    (Moment::Report, Fault::HangUpHarness),
];

/// Tiny points on one engine, scripted or real.
struct Small {
    sweep: Sweep,
    is_real: bool,
}

/// Runs of a small sweep: two points, twice.
const RUNS: usize = 4;
/// How long an engine or a sidecar that does nothing is waited for.
const STALL_S: &str = "5";

impl Small {
    fn new(is_real: bool) -> Small {
        let sweep = Sweep::new();
        let args = if is_real {
            "--model builtin:tiny-llama --load-format dummy --skip-tokenizer-init --enforce-eager --dtype float32 \
             --max-model-len 256 --max-num-seqs 8 --kv-cache-memory-bytes 268435456"
        } else {
            "--model some/model"
        };
        let config = format!(
            "defaults: {{sentinel: none}}\nstandalone_runs:\n  - {{name: t, mode: vllm_throughput, args: {args}, repeats: 2, \
             num_prompts: 2, length_configs: [{{input_len: 16, output_len: 24}}, {{input_len: 16, output_len: 32}}]}}\n"
        );
        fs::write(sweep.path("sweep.yaml"), config).unwrap();
        Small { sweep, is_real }
    }

    fn begin(&self) -> Child {
        let (out, script) = (self.sweep.path("out"), self.sweep.path("script.yaml"));
        let how = if out.join("runs/session.json").exists() { "--resume" } else { "--out" };
        let mut command = Command::new("env"); // whoever runs the tests may ignore hangups
        command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_bench")]);
        command
            .args(["engine", "--own-sidecar", "--stall-limit", STALL_S, "--config"])
            .arg(self.sweep.path("sweep.yaml"));
        if !self.is_real {
            command.arg("--engine").arg(format!("scripted:{}", script.display()));
        }
        command.arg(how).arg(&out).process_group(0);
        command.env_remove("BENCH_PYTHON").env("TMPDIR", self.sweep.path("tmp")).env_remove("XDG_RUNTIME_DIR");
        let said = File::create(self.sweep.path("said")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap()
    }

    /// Whether the moment is now. `Report` has come when all runs are stored and the command still goes on.
    fn is_at(&self, moment: Moment, harness: i32) -> bool {
        let said = self.sweep.said();
        let is_loading = said.contains("\nloading ");
        let stored = || fs::read_dir(self.sweep.path("out/runs")).map_or(0, |all| all.flatten().count()) > RUNS;
        match moment {
            Moment::Import => !is_loading && children(harness).into_iter().any(is_sidecar),
            Moment::Load => is_loading,
            Moment::WarmUp if self.is_real => said.contains("warming up the new engine"),
            Moment::WarmUp => is_loading,
            Moment::Run => said.contains("\n[1/") || said.contains("\n[3/"),
            Moment::Report => stored() || said.contains(&format!("\n[{RUNS}/")),
        }
    }

    /// Waits for the moment and hits; false if the command was over before.
    fn hit_at(&self, child: &mut Child, moment: Moment, fault: Fault) -> bool {
        let deadline = Instant::now() + LIMIT;
        let harness = child.id() as i32;
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.is_at(moment, harness) && hit(harness, fault, Duration::ZERO) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{moment:?} has not come: {}", self.sweep.said());
    }

    /// The command ends within the limit, in a way that it may, and with it every process that it has started.
    fn ends(&self, child: &mut Child, what: &str) {
        let status = wait(child, LIMIT).unwrap_or_else(|| {
            let left = self.sweep.who_is_there();
            let _ = send(-(child.id() as i32), Signal::SIGKILL);
            panic!("{what}: it does not end: {left}{}", self.sweep.said());
        });
        self.sweep.wait_until_all_have_ended();
        let said = self.sweep.said();
        assert!(matches!(status.code(), Some(0 | 1 | 3 | 130) | None), "{what}: {status}: {said}");
        assert!(!said.contains("panicked") && !said.contains("Traceback"), "{what}: {said}");
    }

    /// Goes on until the sweep is whole, and looks whether each planned run is there once.
    fn complete(&mut self, what: &str) {
        for _ in 0..3 {
            let mut child = self.begin();
            self.ends(&mut child, what);
            self.sweep.look();
            let summary = fs::read(self.sweep.path("out/summary_report.json")).unwrap_or_default();
            let summary: Value = serde_json::from_slice(&summary).unwrap_or_default();
            let runs = summary["runs"].as_array().cloned().unwrap_or_default();
            // Whatever their verdict: a busy machine may make one invalid.
            let completed = || runs.iter().filter(|run| run["status"] == "valid" || run["status"] == "invalid");
            let places: BTreeSet<String> =
                completed().map(|run| format!("{}|{}", run["point"], run["round"])).collect();
            assert_eq!(places.len(), completed().count(), "{what}: measured twice");
            if places.len() == RUNS {
                return;
            }
        }
        panic!("{what}: the sweep is not completed: {}", self.sweep.said());
    }
}

/// Whether the command leaves after this fault.
fn ends_command(fault: Fault) -> bool {
    matches!(fault, Fault::KillHarness | Fault::HangUpHarness | Fault::TerminateGroup)
}

/// Five faults fall on one sweep, which saves loads: on one command for as long as it goes on, else on the one that resumes.
fn faults_at_moments(is_real: bool, faults: u64) {
    let planned: Vec<_> = PLANNED.iter().copied().cycle().take(faults as usize).collect();
    let mut hits = 0;
    for of_sweep in planned.chunks(5) {
        let mut small = Small::new(is_real);
        let mut child = small.begin();
        for (moment, fault) in of_sweep.iter().copied() {
            let what = format!("{fault:?} at {moment:?}");
            let is_hit = small.hit_at(&mut child, moment, fault) || {
                // The fault before has ended the command, or the report was over before it was seen.
                small.ends(&mut child, &what);
                child = small.begin();
                small.hit_at(&mut child, moment, fault)
            };
            hits += u64::from(is_hit);
            if !is_hit || ends_command(fault) {
                small.ends(&mut child, &what);
                small.sweep.look();
                child = small.begin();
            }
            println!("{what}: {hits} hits");
        }
        small.ends(&mut child, "the last command");
        small.complete(&format!("{of_sweep:?}"));
    }
    assert!(4 * hits >= 3 * faults, "{hits} of {faults}");
}

#[test]
fn a_fault_at_any_moment_of_a_scripted_engine_ends_in_time_and_the_sweep_is_completed() {
    faults_at_moments(false, variable("BENCH_KILLS_MOMENTS", 15));
}

#[test]
fn a_fault_at_any_moment_of_a_real_engine_ends_in_time_and_the_sweep_is_completed() {
    faults_at_moments(true, variable("BENCH_KILLS_MOMENTS", 5));
}
