//! What a user's environment may be like: variables that Python and OpenMP heed, and limits that leave no room.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::{bench, one_engine, refused, summary};

/// A command that measures a request of a script.
fn scripted(folder: &Path) -> Command {
    let script = folder.join("script.yaml");
    fs::write(&script, "requests: [{first_ns: 2000000, gap_ns: 1000000, tokens: 4}]\n").unwrap();
    let mut command = bench();
    let out = folder.join("out").display().to_string();
    command.args(["engine", "--engine", &format!("scripted:{}", script.display()), "--own-sidecar", "--out", &out]);
    command.args(["--repeats", "1"]);
    command
}

fn config(folder: &Path, args: &str, lines: &str) -> String {
    let path = folder.join("sweep.yaml");
    let text = format!(
        "standalone_runs:\n  - {{name: a, mode: vllm_throughput, args: --model builtin:tiny-llama {args}, input_len: 8, \
         output_len: 4, {lines}}}\n"
    );
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn variables_that_no_python_works_with_are_not_passed_on_and_said() {
    let _alone = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let output = scripted(folder.path()).env("PYTHONHOME", "/nowhere").env("PYTHONWARNINGS", "error").output().unwrap();
    let said = said(&output);
    // 1: the run is invalid, as it may be on a busy machine.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    for variable in ["PYTHONHOME=/nowhere", "PYTHONWARNINGS=error"] {
        assert!(said.contains(&format!("warning: {variable} of the environment is not passed on")), "{said}");
    }
    let warnings = &summary(&folder.path().join("out"))["runs"][0]["warnings"];
    assert!(!warnings.to_string().contains("PYTHON"), "{warnings}");
}

#[test]
fn without_room_for_a_process_the_limit_is_told_and_not_that_there_is_no_python() {
    let folder = tempfile::tempdir().unwrap();
    let command = scripted(folder.path());
    let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let script = format!("ulimit -n 6; exec {} {}", env!("CARGO_BIN_EXE_bench"), words.join(" "));
    let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("Too many open files") && said.contains("ulimit -n"), "{said}");
    assert!(!said.contains("no Python"), "{said}");
}

#[test]
fn threads_that_the_user_asked_for_are_told_to_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = config(folder.path(), "", "num_prompts: 2");
    let mut command = bench();
    command.args(["engine", "--device", "cpu", "--dry-run", "--config", &file]);
    let output = command.env("OMP_NUM_THREADS", "77").env("VLLM_CPU_OMP_THREADS_BIND", "0-76").output().unwrap();
    let plan = said(&output);
    assert!(plan.contains("  OMP_NUM_THREADS=77 of the environment is replaced by "), "{plan}");
    assert!(plan.contains("  VLLM_CPU_OMP_THREADS_BIND=0-76 of the environment is replaced by "), "{plan}");
}

#[test]
fn more_ranks_than_cores_are_refused_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    for (args, words) in [
        ("-tp 4096", "tensor parallel 4096 needs 4096 cores of the host, for a rank each, and this host has "),
        ("-tp 2 -pp 4096", "8192 ranks (tensor parallel 2 x pipeline parallel 4096) needs 8192 cores"),
    ] {
        let file = config(folder.path(), args, "num_prompts: 2");
        let output = bench().args(["engine", "--device", "cpu", "--config", &file]).output().unwrap();
        refused(&output, 3, &[words, "lower the parallel sizes"]);
    }
}
