//! Chromium, driven through ChromeDriver. Both are Debian's packages `chromium` and `chromium-driver`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// No sandbox: tests run as root, too. The rest keeps it from looking for hosts of its own.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser of its own for a test, with a page open.
pub struct Browser {
    pub client: Client,
    driver: Driver,
}

/// The driver's process, and the folder that its browser is told to use.
struct Driver {
    process: Child,
    profile: tempfile::TempDir,
}

impl Drop for Driver {
    /// A test that failed must not leave them behind; mostly they have ended already. The browser outlives a driver that is
    /// killed.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let profile = self.profile.path().display().to_string();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&profile) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// A command that WebDriver itself does not have.
#[derive(Debug)]
struct Own {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base_url: &url::Url, session_id: Option<&str>) -> Result<url::Url, url::ParseError> {
        base_url.join(&format!("session/{}/{}", session_id.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

impl Browser {
    /// A window of this size without a page, light or dark.
    pub async fn start(width: u32, height: u32, theme: &str) -> Browser {
        let (driver, url) = start();
        let own =
            [format!("--user-data-dir={}", driver.profile.path().display()), format!("--window-size={width},{height}")];
        let flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).chain(own).collect();
        let wanted = json!({"goog:chromeOptions": {"args": flags}, "goog:loggingPrefs": {"browser": "ALL"}});
        let Value::Object(wanted) = wanted else { unreachable!("an object") };
        let client = ClientBuilder::new(HttpConnector::new()).capabilities(wanted).connect(&url).await.unwrap();
        let browser = Browser { client, driver };
        // A window is never narrower than 500 pixels; a phone is.
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
        browser.emulate(&json!({"features": [{"name": "prefers-color-scheme", "value": theme}]})).await;
        browser
    }

    /// Opens a page from the disk in a window of this size, light or dark.
    pub async fn open(page: &Path, width: u32, height: u32, theme: &str) -> Browser {
        let browser = Browser::start(width, height, theme).await;
        browser.client.goto(&format!("file://{}", page.display())).await.unwrap();
        // A page without charts has none to draw.
        let is_there = "document.readyState === 'complete' && (!document.querySelector('figure') || \
                        document.documentElement.dataset.drawn === 'all')";
        browser.wait_until(is_there).await;
        browser
    }

    /// Another medium or color scheme.
    pub async fn emulate(&self, medium: &Value) {
        self.devtools("Emulation.setEmulatedMedia", medium.clone()).await;
    }

    async fn devtools(&self, cmd: &str, params: Value) -> Value {
        let command = Own { path: "goog/cdp/execute", body: json!({"cmd": cmd, "params": params}) };
        self.client.issue_cmd(command).await.unwrap()
    }

    /// What an expression is in the page.
    pub async fn value(&self, expression: &str) -> Value {
        self.client.execute(&format!("return {expression};"), vec![]).await.unwrap()
    }

    /// Waits until an expression is true; a minute at most.
    pub async fn wait_until(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0], end = performance.now() + 60000;\
             const look = () => ({expression}) || performance.now() > end ? done({expression}) : setTimeout(look, 10); look();"
        );
        let is_true = self.client.execute_async(&script, vec![]).await.unwrap();
        assert_eq!(is_true, true, "never true: {expression}; the console: {:?}", self.console().await);
    }

    /// What the console has said since the last look.
    pub async fn console(&self) -> Vec<String> {
        let log = self.client.issue_cmd(Own { path: "se/log", body: json!({"type": "browser"}) }).await.unwrap();
        log.as_array().unwrap().iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub async fn press(&self, keys: &[char]) {
        for key in keys {
            self.client.active_element().await.unwrap().send_keys(&key.to_string()).await.unwrap();
        }
    }

    /// The whole page as an image, for a person to look at.
    pub async fn picture(&self, path: &Path) {
        let shot = json!({"format": "png", "captureBeyondViewport": true});
        let shot = self.devtools("Page.captureScreenshot", shot).await;
        std::fs::write(path, base64(shot["data"].as_str().unwrap())).unwrap();
    }

    /// The page on paper, as a PDF.
    pub async fn printed(&self) -> Vec<u8> {
        let pdf = self.devtools("Page.printToPDF", json!({"printBackground": true})).await;
        base64(pdf["data"].as_str().unwrap())
    }

    /// Ends the browser.
    pub async fn close(self) {
        self.client.close().await.unwrap();
        drop(self.driver);
    }
}

/// Starts a driver on a port that it finds itself.
fn start() -> (Driver, String) {
    let mut command = Command::new("chromedriver");
    command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("chromedriver: {error}: install Chromium and ChromeDriver, `make browser` does it on Debian")
    });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let driver = Driver { process: child, profile: tempfile::tempdir().unwrap() };
    let said = lines.by_ref().map_while(Result::ok).find(|line| line.contains("started successfully on port"));
    // It goes on writing: what nobody reads would stop it in the end.
    std::thread::spawn(move || lines.for_each(drop));
    let said = said.expect("chromedriver ended before it said its port");
    let port = said.rsplit(' ').next().unwrap().trim_end_matches('.').to_owned();
    (driver, format!("http://127.0.0.1:{port}"))
}

fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let all =
            four.iter().enumerate().fold(0_u32, |all, (place, digit)| all | u32::from(*digit) << (18 - 6 * place));
        all.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}
