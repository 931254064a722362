//! `report.html` in a real browser, of runs on the real vLLM.

mod browser;
mod page;
mod perfetto;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Two entries on one tiny model: short prompts, and prompts of which most come from the prefix cache.
const CONFIG: &str = "\
standalone_runs:
  - name: short
    mode: vllm_throughput
    args: >-
      --model builtin:tiny-llama --load-format dummy --skip-tokenizer-init --enforce-eager --dtype float32
      --max-model-len 2048 --max-num-seqs 64 --kv-cache-memory-bytes 1073741824
    num_prompts: 16
    repeats: 3
    length_configs:
      - {input_len: 64, output_len: 32}
  - name: cached
    mode: vllm_throughput
    args: >-
      --model builtin:tiny-llama --load-format dummy --skip-tokenizer-init --enforce-eager --dtype float32
      --max-model-len 2048 --max-num-seqs 64 --kv-cache-memory-bytes 1073741824
    num_prompts: 8
    repeats: 3
    length_configs:
      - {input_len: 512, output_len: 16, prefix_len: 384}
";

/// A results folder of a real engine, measured once for all tests.
fn results() -> &'static Path {
    static RESULTS: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let measure = || {
        let folder = tempfile::tempdir().unwrap();
        let (config, out) = (folder.path().join("page.yaml"), folder.path().join("out"));
        fs::write(&config, CONFIG).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.env_remove("BENCH_PYTHON").env("NO_COLOR", "1").stdin(Stdio::null());
        let output = command.arg("engine").arg("--config").arg(&config).arg("--out").arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (folder, out)
    };
    &RESULTS.get_or_init(measure).1
}

fn summary() -> Value {
    serde_json::from_slice(&fs::read(results().join("summary_report.json")).unwrap()).unwrap()
}
