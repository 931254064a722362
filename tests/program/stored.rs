//! Results folders: whose they are, what is said of runs that are missing or damaged, and what is not lost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::running::send;
use crate::{bench, one_engine, refused, run, summary, wait_for};

/// A scripted sweep of some runs of 20 ms at least.
struct Scripted {
    folder: tempfile::TempDir,
}

impl Scripted {
    fn new(first_ns: u64) -> Scripted {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("requests: [{{first_ns: {first_ns}, gap_ns: 100000, tokens: 9}}]");
        fs::write(folder.path().join("script.yaml"), script).unwrap();
        Scripted { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = bench();
        command.args(["engine", "--engine"]).arg(format!("scripted:{}", self.path("script.yaml").display()));
        command.arg("--own-sidecar").current_dir(self.folder.path()).args(more);
        command
    }

    /// Measures so many runs into the folder `out`. What a busy machine makes of them does not matter, as long as all are
    /// stored.
    fn measured(&self, repeats: &str) -> String {
        let _alone = one_engine();
        let output = self.command(&["--out", "out", "--repeats", repeats]).output().unwrap();
        assert!(is_measured(output.status.code()), "{}", String::from_utf8_lossy(&output.stderr));
        let stored = run_folders(&self.path("out")).len();
        assert!(
            stored.to_string() == repeats,
            "{stored} of {repeats} runs: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.path("out").display().to_string()
    }

    fn begin(&self, more: &[&str]) -> Child {
        let said = File::create(self.path("said")).unwrap();
        self.command(more).stdout(Stdio::null()).stderr(said).spawn().unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap()
    }
}

/// Whether a command has ended in order: 1 says that a run is invalid, as it may be on a busy machine.
fn is_measured(status: Option<i32>) -> bool {
    matches!(status, Some(0 | 1))
}

fn run_folders(out: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> =
        fs::read_dir(out.join("runs")).into_iter().flatten().flatten().map(|run| run.path()).collect();
    folders.retain(|path| path.join("timeline.json").exists());
    folders.sort();
    folders
}

#[test]
fn a_second_command_on_a_folder_is_refused_and_changes_nothing_of_the_first() {
    let _alone = one_engine();
    let sweep = Scripted::new(200_000_000);
    let mut first = sweep.begin(&["--out", "out", "--repeats", "30"]);
    let out = sweep.path("out");
    wait_for("a finished run", || !run_folders(&out).is_empty());
    let session = fs::read(out.join("runs/session.json")).unwrap();
    let second = |how: &str| sweep.command(&[how, "out", "--repeats", "3"]).output().unwrap();
    for how in ["--out", "--resume"] {
        refused(&second(how), 2, &["another command is writing its results here"]);
        assert_eq!(fs::read(out.join("runs/session.json")).unwrap(), session, "{how}");
    }
    send("-TERM", &first.id().to_string());
    assert_eq!(first.wait().unwrap().code(), Some(130), "{}", sweep.said());
    refused(&second("--out"), 2, &["out already holds results"]);
    refused(&second("--resume"), 2, &["since then there has changed: the configuration"]);

    let measured = summary(&out)["runs"].as_array().unwrap().len();
    let report = run(&["report", &out.display().to_string()]);
    assert_eq!(report.status.code(), Some(1), "runs are missing");
    let told = String::from_utf8_lossy(&report.stdout).into_owned();
    let missing = 30 - measured;
    let line = format!("MISSING: 30 runs are planned, {measured} are measured, {missing} are missing");
    assert!(told.contains(&line), "{told}");
}

#[test]
fn commands_of_the_same_second_have_a_folder_each() {
    let _alone = one_engine();
    let sweep = Scripted::new(1_000_000);
    let mut commands: Vec<Child> = (0..4)
        .map(|_| sweep.command(&["--repeats", "1"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    let statuses: Vec<_> = commands.iter_mut().map(|command| command.wait().unwrap().code()).collect();
    assert!(statuses.iter().all(|status| is_measured(*status)), "{statuses:?}");
    let folders: Vec<_> = fs::read_dir(sweep.path("results")).unwrap().map(|folder| folder.unwrap().path()).collect();
    assert_eq!(folders.len(), 4, "{folders:?}");
    assert!(folders.iter().all(|folder| !run_folders(folder).is_empty()), "{folders:?}");
}

#[test]
fn a_damaged_run_is_named_with_a_status_of_its_own_and_the_rest_is_there() {
    let sweep = Scripted::new(1_000_000);
    let out = sweep.measured("3");
    let damaged = run_folders(Path::new(&out))[1].join("timeline.json");
    let text = fs::read_to_string(&damaged).unwrap();
    fs::write(&damaged, text.replacen("\"repeat\": 1", "\"repeat\": 2", 1)).unwrap();
    let name = "-1/timeline.json: its checksum does not agree with its content";
    let report = run(&["report", &out]);
    refused(&report, 4, &["recorded data that cannot be read", name]);
    let table = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(table.contains("DAMAGED 1/3") && table.contains(name), "{table}");
    assert_eq!(summary(Path::new(&out))["runs"].as_array().unwrap().len(), 2);
    refused(&run(&["export", &out, "--csv"]), 4, &[name]);
    let events = fs::read_to_string(Path::new(&out).join("events.csv")).unwrap();
    assert!(events.contains("|0,") && events.contains("|2,") && !events.contains("|1,"));
    let compared = run(&["compare", &out, &out]);
    refused(&compared, 4, &[name]);
    assert!(!compared.stdout.is_empty(), "the comparison of the rest");

    fs::write(Path::new(&out).join("runs/session.json"), "{}").unwrap();
    refused(&run(&["report", &out]), 4, &["session.json: not what `bench` wrote"]);
    refused(&run(&["report", &sweep.path("nothing").display().to_string()]), 2, &["session.json: no such file"]);
}

#[test]
fn a_report_whose_files_cannot_be_written_is_printed_and_says_which() {
    let sweep = Scripted::new(1_000_000);
    let out = sweep.measured("1");
    for name in ["report.html", "itl_cdf.svg", "summary_report.json"] {
        let _ = fs::remove_file(Path::new(&out).join(name));
        fs::create_dir(Path::new(&out).join(name)).unwrap();
    }
    let report = run(&["report", &out]);
    refused(
        &report,
        2,
        &["3 of the report's files could not be written", "report.html, itl_cdf.svg, summary_report.json"],
    );
    assert!(String::from_utf8_lossy(&report.stdout).contains(" 1/1"), "the table");
}

#[test]
fn an_interrupt_while_a_finished_sweep_is_resumed_leaves_whole_files() {
    let sweep = Scripted::new(1_000_000);
    let out = PathBuf::from(sweep.measured("8"));
    // Whether an interrupt comes before the end of the command is chance: a few are tried.
    for _ in 0..20 {
        let mut command = sweep.begin(&["--resume", "out", "--repeats", "8"]);
        wait_for("the begin", || sweep.said().contains("8 of 8 runs are there already"));
        send("-INT", &command.id().to_string());
        let status = command.wait().unwrap().code();
        assert!(is_measured(status) || status == Some(130), "{status:?}: {}", sweep.said());
        assert_eq!(summary(&out)["runs"].as_array().unwrap().len(), 8);
        let names = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.starts_with('.')).count(), 0);
        if status == Some(130) {
            break;
        }
    }
}
