//! Configuration files as users write them, from the file to the plan.

mod devices;
mod errors;
mod format;
mod hostile;
mod hygiene;
mod matrix;
mod pairs;
mod planning;
mod prefixes;
mod quantization;
mod room;
mod script;
mod times;

use std::fs;
use std::path::PathBuf;

use bench::question::config::{self, Config, ConfigError};
use bench::question::plan::{Plan, Point};
use bench::question::resolve::{self, Overrides};

/// The example of the format that users already have, as it stands.
const EXISTING_FORMAT: &str = r#"
standalone_runs:
  - name: "Ironwood-CodeGen-HighCache"
    mode: vllm_throughput
    args: >-
      --model meta-llama/Llama-3.1-70B-Instruct
      --prefix-len 7900
    tensor_parallel_sizes: [8]
    length_configs:
      - {input_len: 8192, output_len: 2048}
"#;

fn write(text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.yaml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn load(text: impl AsRef<[u8]>) -> Result<Config, ConfigError> {
    let (_folder, path) = write(text);
    config::load(&path)
}

fn plan_with(text: &str, overrides: Overrides) -> Result<Plan, ConfigError> {
    resolve::resolve(&load(text)?, overrides)
}

fn plan_of(text: &str) -> Plan {
    plan_with(text, Overrides::default()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn points(plan: &Plan) -> Vec<&Point> {
    plan.epochs.iter().flat_map(|epoch| &epoch.points).collect()
}

/// An entry with these lines behind `mode`, on a model that needs no file.
fn entry(lines: &str) -> String {
    let lines = lines.replace('\n', "\n    ");
    format!("standalone_runs:\n  - name: a\n    mode: vllm_throughput\n    {lines}\n")
}

/// The problems of a file as `line:column message`.
fn problems(text: &str) -> Vec<String> {
    let error = plan_with(text, Overrides::default()).expect_err(text);
    let shown = |problem: &config::Problem| {
        let at = &problem.location;
        assert!(at.file.as_ref().is_some_and(|file| file.ends_with("sweep.yaml")), "{problem}");
        format!("{}:{} {}", at.line, at.column, problem.message)
    };
    error.problems().iter().map(shown).collect()
}
