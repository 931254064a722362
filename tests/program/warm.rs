//! Sidecars that stay after their command: who gets the engine, who is refused, and what is left behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::running::{Traces, send};
use crate::{ARGS, bench, config, one_engine, refused, summary, wait_for};

/// Twenty tokens at once; and one that goes on for minutes.
const SHORT: &str = "requests: [{first_ns: 1000000, gap_ns: 1000000, tokens: 20}]";
const LONG: &str = "requests: [{first_ns: 1000000, gap_ns: 100000000, tokens: 3000}]";

/// A user with a registry of warm sidecars of its own.
struct User {
    folder: tempfile::TempDir,
    traces: Traces,
}

impl User {
    fn new() -> User {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("runtime")).unwrap();
        User { folder, traces: Traces::new() }
    }

    fn registry(&self) -> PathBuf {
        self.folder.path().join("runtime/bench")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = bench();
        self.traces.leave_on(&mut command).env("XDG_RUNTIME_DIR", self.folder.path().join("runtime"));
        // Engines know their working folder, and the tests' is no business of theirs.
        command.current_dir(self.folder.path()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Measures a script.
    fn scripted(&self, script: &str, out: &str, more: &[&str]) -> Command {
        fs::write(self.folder.path().join("script.yaml"), script).unwrap();
        // A recorder that spins would leave a second command next to no time on two cores.
        let args = ["engine", "--engine", "scripted:script.yaml", "--wait", "sleep", "--out", out];
        self.command(&[&args, more].concat())
    }

    /// Measures a script that goes on for minutes, and waits until it has the engine.
    fn holding(&self, more: &[&str]) -> Child {
        let mut command = self.scripted(LONG, "held", more);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("a command that measures", || {
            let sidecars = self.list();
            sidecars.as_array().unwrap().iter().any(|one| one["status"]["engine"]["is_free"] == false)
        });
        child
    }

    fn list(&self) -> Value {
        let output = self.run(&["sidecar", "list", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn only_sidecar(&self) -> Value {
        let sidecars = self.list();
        assert_eq!(sidecars.as_array().unwrap().len(), 1, "{sidecars:#}");
        sidecars[0].clone()
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Nothing is left: no process, no socket, no folder.
    fn is_rid_of_all(&self) {
        self.traces.wait_until_ended();
        self.list(); // the next command removes the temporary files of one that was killed
        self.traces.wait_until_gone();
        assert_eq!(fs::read_dir(self.registry()).unwrap().count(), 0);
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.command(&["sidecar", "stop", "--all", "--force"]).output();
    }
}

#[track_caller]
fn says(output: &Output, wanted: &[&str]) {
    refused(output, 0, wanted);
}

fn pid_of(sidecar: &Value) -> String {
    sidecar["status"]["pid"].to_string()
}

fn first_run(out: &Path) -> Value {
    summary(out)["runs"][0].clone()
}

#[test]
fn the_next_command_measures_on_the_loaded_vllm_and_one_with_another_key_loads_anew() {
    let _one = one_engine();
    let user = User::new();
    let measure = |args: &str, out: &str| {
        let file = config(
            user.folder.path(),
            args,
            "    num_prompts: 4\n    length_configs: [{input_len: 64, output_len: 8}]\n",
        );
        user.run(&["engine", "--keep-warm", "--config", &file.display().to_string(), "--out", out])
    };
    says(&measure(ARGS, "first"), &["importing vLLM"]);
    let began = user.only_sidecar();

    let second = measure(ARGS, "second");
    says(&second, &["attached to the warm sidecar cpu-", "the engine is reused"]);
    assert!(!String::from_utf8_lossy(&second.stderr).contains("importing vLLM"));
    assert!(String::from_utf8_lossy(&second.stdout).contains("engine 1: reused, an earlier command had loaded it"));
    let (first, second) = (first_run(&user.out("first")), first_run(&user.out("second")));
    assert!(first["engine_load_s"].as_f64().unwrap() > 0.0 && second["engine_load_s"] == 0.0);
    assert_eq!((&first["status"], &second["status"]), (&Value::from("valid"), &Value::from("valid")));
    assert_eq!(second["engine_facts"]["other"]["process"], "forked");
    assert!(second["engine_facts"]["other"]["reused"]["age_s"].as_f64().unwrap() > 0.0);
    assert_eq!(summary(&user.out("second"))["environment"]["sidecars"]["cpu"]["warm"]["is_attached"], true);

    says(
        &measure(&ARGS.replace("--max-num-seqs 64", "--max-num-seqs 32"), "third"),
        &["attached to the warm sidecar cpu-", "the warm engine is loaded anew: its arguments differ"],
    );
    assert!(first_run(&user.out("third"))["engine_load_s"].as_f64().unwrap() > 0.0);
    assert_eq!(pid_of(&user.only_sidecar()), pid_of(&began));
    says(&user.run(&["sidecar", "stop"]), &[]);
    user.is_rid_of_all();
}

#[test]
fn a_second_command_is_told_who_holds_the_sidecar() {
    let _one = one_engine();
    let user = User::new();
    let mut holder = user.holding(&["--keep-warm"]);
    let pid = holder.id().to_string();
    let held = [
        "is held by process",
        &pid,
        "--engine scripted:script.yaml --wait sleep --out held --keep-warm",
        "kill -INT",
        "--own-sidecar",
    ];
    refused(&user.scripted(SHORT, "second", &[]).output().unwrap(), 3, &held);
    says(&user.scripted(SHORT, "third", &["--own-sidecar"]).output().unwrap(), &[]);
    assert_eq!(first_run(&user.out("third"))["status"], "valid");
    let listed = user.run(&["sidecar", "list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains(&format!("by process {pid}: ")) && listed.contains("leaves after 30 min without one"),
        "{listed}"
    );

    let output = user.run(&["sidecar", "stop"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("process {pid} has measured with it")));
    let stopped = user.only_sidecar()["id"].clone();
    says(&user.run(&["sidecar", "stop", "--force"]), &[]);
    // Its holder has lost a run, which it measures anew on another sidecar.
    wait_for("another sidecar", || {
        let sidecars = user.list();
        sidecars
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["id"] != stopped && one["status"]["engine"]["is_free"] == false)
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    says(&user.run(&["sidecar", "stop", "--all", "--force"]), &[]);
    user.is_rid_of_all();
}

#[test]
fn a_killed_holder_leaves_a_sidecar_that_serves_the_next_and_ends_by_itself() {
    let _one = one_engine();
    let user = User::new();
    let mut holder = user.holding(&["--keep-warm=2s"]);
    let began = user.only_sidecar();
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_for("an end of its engine", || user.only_sidecar()["status"]["engine"].is_null());
    says(&user.scripted(SHORT, "next", &[]).output().unwrap(), &["attached to the warm sidecar", "stays warm after"]);
    let run = first_run(&user.out("next"));
    assert_eq!(run["status"], "valid", "{run:#}");
    assert!(run["engine_load_s"].as_f64().unwrap() > 0.0, "the engine of the killed one was thrown away");
    assert!(PathBuf::from(began["status"]["about"]["log"].as_str().unwrap()).exists());
    user.is_rid_of_all();
}

#[test]
fn what_a_dead_sidecar_leaves_is_cleared_away_and_the_next_command_starts_its_own() {
    let _one = one_engine();
    let user = User::new();
    says(&user.scripted(SHORT, "first", &["--keep-warm"]).output().unwrap(), &[]);
    send("-9", &pid_of(&user.only_sidecar()));
    let second = user.scripted(SHORT, "second", &["--keep-warm"]).output().unwrap();
    says(&second, &[]);
    assert!(!String::from_utf8_lossy(&second.stderr).contains("attached"), "there was nothing to attach to");
    assert_eq!(fs::read_dir(user.registry()).unwrap().count(), 1);
    send("-9", &pid_of(&user.only_sidecar()));
    wait_for("an empty list", || user.list().as_array().unwrap().is_empty());
    user.is_rid_of_all();
}

#[test]
fn one_that_was_started_in_another_environment_is_not_used_and_the_variable_is_named() {
    let _one = one_engine();
    let user = User::new();
    says(&user.scripted(SHORT, "first", &["--keep-warm"]).output().unwrap(), &[]);
    let other = user.scripted(SHORT, "second", &[]).env("VLLM_SOMETHING", "1").env("TERM", "other").output().unwrap();
    says(&other, &["not attached to the warm sidecar cpu-", "its environment is another: VLLM_SOMETHING\n"]);
    assert_eq!(summary(&user.out("second"))["environment"]["sidecars"]["cpu"]["warm"], Value::Null);
}

#[test]
fn a_sidecar_that_does_not_answer_is_said_to_be_so_and_killed_by_force_alone() {
    let _one = one_engine();
    let user = User::new();
    says(&user.scripted(SHORT, "first", &["--keep-warm"]).output().unwrap(), &[]);
    let sidecar = user.only_sidecar();
    send("-STOP", &pid_of(&sidecar));
    let listed = user.run(&["sidecar", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("it does not answer"));
    let id = sidecar["id"].as_str().unwrap();
    assert_eq!(user.run(&["sidecar", "stop", id]).status.code(), Some(1));
    let killed = user.run(&["sidecar", "stop", id, "--force"]);
    assert!(String::from_utf8_lossy(&killed.stdout).contains("was killed"));
    user.is_rid_of_all();
    refused(&user.run(&["sidecar", "stop", "cpu-none"]), 2, &["no warm sidecar cpu-none", "there are: none"]);
}

#[test]
fn a_registry_that_is_open_to_others_is_not_used() {
    let _one = one_engine();
    let user = User::new();
    fs::create_dir(user.registry()).unwrap();
    fs::set_permissions(user.registry(), Permissions::from_mode(0o755)).unwrap();
    refused(&user.scripted(SHORT, "first", &["--keep-warm"]).output().unwrap(), 3, &["mode 0700", "with mode 755"]);
    let own = user.scripted(SHORT, "second", &[]).output().unwrap();
    says(&own, &["not attached to a warm sidecar: ", "mode 0700"]);
    assert_eq!(first_run(&user.out("second"))["status"], "valid");
    fs::set_permissions(user.registry(), Permissions::from_mode(0o700)).unwrap();
}
