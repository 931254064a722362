//! The program as its users run it, with the real vLLM where an engine is needed.

mod commands;
mod comparing;
mod devices;
mod faults;
mod folders;
mod library;
mod limits;
mod outside;
mod prefix_cache;
mod quantization;
mod resume;
mod running;
mod speculation;
mod stored;
mod sweep;
mod warm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

const ARGS: &str = "--model builtin:tiny-llama --load-format dummy --skip-tokenizer-init --enforce-eager \
                    --dtype float32 --max-model-len 2048 --max-num-seqs 64 --kv-cache-memory-bytes 1073741824";

/// Two cores carry one engine at a time.
fn one_engine() -> MutexGuard<'static, ()> {
    static ONE_ENGINE: Mutex<()> = Mutex::new(());
    ONE_ENGINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.env_remove("BENCH_PYTHON").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    bench().args(args).output().unwrap()
}

fn config(folder: &Path, args: &str, rest: &str) -> PathBuf {
    let path = folder.join("sweep.yaml");
    let text = format!("standalone_runs:\n  - name: t\n    mode: vllm_throughput\n    args: >-\n      {args}\n{rest}");
    fs::write(&path, text).unwrap();
    path
}

/// The exit status, and one message that says all of `wanted`, without a panic or a traceback.
#[track_caller]
fn refused(output: &Output, status: i32, wanted: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    for text in wanted {
        assert!(said.contains(text), "{text:?} is not in: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("Traceback"), "{said}");
    let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, usize::from(status != 0), "{said}");
}

fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("summary_report.json")).unwrap()).unwrap()
}

#[track_caller]
fn wait_for(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while !seen() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}
