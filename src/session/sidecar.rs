//! The sidecar process: started once, it imports vLLM and forks an engine process for every load.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::channel::Channel;
use super::engine::{Engine, Rings};
use super::folder::PrivateFolder;
use super::watchdog::Pace;
use super::{SessionError, log_tail};
use crate::config::Script;
use crate::device::{DeviceClass, Placement};
use crate::plan::StepApi;
use crate::ring;

/// How long a sidecar may take to listen: starting Python, nothing imported yet.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long importing vLLM may take, on a cold disk too.
const HELLO_LIMIT: Duration = Duration::from_secs(600);
/// How long a small question may take.
const REPLY_LIMIT: Duration = Duration::from_secs(120);
/// How long a process may take to leave when it is asked to, before it is killed.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// How long the fork server may take to say how an engine process ended.
pub(super) const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// How long a killed engine process may take to be gone; one with much memory takes seconds.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// What a sidecar is started with.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    /// The class of every engine that it loads.
    pub device: DeviceClass,
    /// An interpreter that can import vLLM.
    pub python: PathBuf,
    /// Folder that holds the package `bench_sidecar`.
    pub package: PathBuf,
    /// `libbench_ring.so` of this build.
    pub ring_library: PathBuf,
    /// Where the threads of the measurement run.
    pub placement: Placement,
    /// Where the sidecar's output goes.
    pub log: PathBuf,
    /// Added to the sidecar's environment.
    pub env: Vec<(String, String)>,
    /// Whether vLLM is imported; without it only scripted engines can be loaded.
    pub with_vllm: bool,
    /// How long an engine with work may give no sign before its run is given up.
    pub stall_limit: Duration,
}

impl SidecarOptions {
    /// A step of the largest prefill on the slowest device takes less.
    pub const STALL_LIMIT: Duration = Duration::from_secs(120);

    /// Every variable that is set for the sidecar, over what it inherits; of two with one name the last counts.
    pub fn variables(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("PYTHONPATH".to_owned(), self.package.display().to_string()),
            ("PYTHONUNBUFFERED".to_owned(), "1".to_owned()),
            ("VLLM_ENABLE_V1_MULTIPROCESSING".to_owned(), "0".to_owned()),
            ("VLLM_NO_USAGE_STATS".to_owned(), "1".to_owned()),
        ];
        let openmp = self.placement.openmp_environment(self.device);
        variables.extend(openmp.into_iter().map(|(name, value)| (name.to_owned(), value)));
        variables.extend(self.env.iter().cloned());
        variables
    }
}

/// The columns of `truth.csv`: a row for each token, as the script meant it and as the engine emitted it.
pub const TRUTH_HEADER: &str = "run,request,token,intended_ns,emitted_ns\n";

/// What an engine is loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineSpec {
    /// vLLM.
    Vllm {
        /// For vLLM's own parser: the model and everything that needs a reload.
        argv: Vec<String>,
        /// Which step function is called.
        step_api: StepApi,
        /// Added to the environment of the engine's process.
        env: Vec<(String, String)>,
    },
    /// Tokens on a schedule, in place of vLLM's.
    Scripted {
        /// What its requests do.
        script: Arc<Script>,
        /// Where it appends what it really did, `truth.csv`; the file exists.
        truth: PathBuf,
    },
}

impl EngineSpec {
    /// The engine's name in records and reports: `vllm` or `scripted`.
    pub fn engine_name(&self) -> &'static str {
        match self {
            EngineSpec::Vllm { .. } => "vllm",
            EngineSpec::Scripted { .. } => "scripted",
        }
    }

    /// What is known of its steps before the first: a script may let an engine be silent.
    fn pace(&self) -> Pace {
        match self {
            EngineSpec::Vllm { .. } => Pace::default(),
            EngineSpec::Scripted { script, .. } => Pace::known(script.longest_gap_ns()),
        }
    }

    fn load_message(&self, device: DeviceClass, placement: &Placement) -> serde_json::Value {
        let mut message = match self {
            EngineSpec::Vllm { argv, step_api, env } => {
                let env: BTreeMap<_, _> = env.iter().cloned().collect();
                serde_json::json!({"argv": argv, "step_api": step_api, "env": env, "device": device})
            }
            EngineSpec::Scripted { script, truth } => serde_json::json!({"script": **script, "truth": truth}),
        };
        message["op"] = "load".into();
        message["cores"] = serde_json::json!(placement.engine_cores);
        message["nice"] = serde_json::json!(placement.engine_nice());
        message
    }
}

/// What a sidecar said of itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Hello {
    /// ABI version of the ring that it has loaded.
    pub abi_version: u32,
    /// Version of the package.
    pub sidecar_version: String,
    /// Process id of the fork server.
    pub pid: u32,
    /// Version of Python.
    pub python: String,
    /// Version of vLLM; null where it is not imported.
    pub vllm_version: Option<String>,
    /// Seconds that importing vLLM took.
    pub import_s: f64,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum FromSidecar {
    Hello(Hello),
    Exited {
        pid: u32,
        code: i32,
        signal: i32,
    },
    Reply {
        #[serde(default)]
        pid: Option<u32>,
        #[serde(default)]
        error: Option<ErrorText>,
    },
}

/// An error as the sidecar words it.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorText {
    pub(super) message: String,
}

/// A running sidecar. Dropping it kills its process, and with that every engine process.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    channel: Channel,
    hello: Hello,
    device: DeviceClass,
    placement: Placement,
    log: PathBuf,
    stall_limit: Duration,
    /// Whether it has failed to answer.
    is_lost: bool,
    _folder: PrivateFolder,
}

impl Sidecar {
    /// Starts a sidecar and waits until vLLM is imported.
    pub async fn start(options: &SidecarOptions) -> Result<Sidecar, SessionError> {
        let folder = PrivateFolder::make()?;
        let socket = folder.path().join("control");
        // Of a sidecar that replaces another, or of a sweep that goes on: what was said before is kept.
        let log = File::options().create(true).append(true).open(&options.log);
        let log = log.map_err(SessionError::io(format!("cannot write {}", options.log.display())))?;
        let lock = folder.inheritable_lock()?;
        let mut child = command(options, &socket, log)
            .spawn()
            .map_err(|source| SessionError::Start { python: options.python.clone(), source })?;
        drop(lock); // the sidecar has it now
        let stream = connect(&socket, &mut child, &options.log).await?;
        check_peer(&stream)?;
        let mut channel = Channel::new(stream);
        let hello = match timeout(HELLO_LIMIT, channel.receive()).await {
            Ok(Ok(Some(FromSidecar::Hello(hello)))) => hello,
            Ok(Ok(None)) => return Err(died(&mut child, &options.log).await),
            Ok(Ok(Some(other))) => return Err(SessionError::Protocol(format!("{other:?} instead of a hello"))),
            Ok(Err(err)) => return Err(err),
            Err(_) => return Err(no_answer("starting the sidecar", HELLO_LIMIT, &options.log)),
        };
        if hello.abi_version != ring::abi_version() {
            return Err(SessionError::Abi { found: hello.abi_version, expected: ring::abi_version() });
        }
        let (device, placement) = (options.device, options.placement.clone());
        Ok(Sidecar {
            child,
            channel,
            hello,
            device,
            placement,
            log: options.log.clone(),
            stall_limit: options.stall_limit,
            is_lost: false,
            _folder: folder,
        })
    }

    /// What the sidecar said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Where the sidecar's output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Asks vLLM's own parser about `argv`, without loading anything. `Refused` says what it said.
    pub async fn check(&mut self, argv: &[String]) -> Result<(), SessionError> {
        let message = serde_json::json!({"op": "check", "argv": argv});
        self.ask("the check of the engine's arguments", &message, &[]).await.map(drop)
    }

    /// Loads an engine in a process of its own. One at a time; the one before is to be shut down first.
    pub async fn load(&mut self, spec: &EngineSpec) -> Result<Engine, SessionError> {
        let (ours, theirs) = StdUnixStream::pair().map_err(SessionError::io("making a socket pair"))?;
        let rings = Rings::create(self.placement.wait_strategy.sleeps())?;
        let message = spec.load_message(self.device, &self.placement);
        let mut fds = vec![theirs.as_fd()];
        fds.extend(rings.descriptors());
        let reply = self.ask("the load of an engine", &message, &fds).await?;
        drop(fds);
        drop(theirs); // the engine process has the only other end: its death closes the channel
        let pid = reply.ok_or_else(|| SessionError::Protocol("a load without a process id".to_owned()))?;
        let channel = Channel::from_std(ours).map_err(SessionError::io("using a socket pair"))?;
        let ready = Engine::wait_until_ready(channel, pid, rings, spec.pace(), self).await;
        if ready.is_err() {
            // It says why by itself; a fork server that does not answer is noted.
            let _ = self.kill_engine(pid).await;
        }
        ready
    }

    /// How long an engine may give no sign.
    pub(super) fn stall_limit(&self) -> Duration {
        self.stall_limit
    }

    /// Whether it has failed to answer, so that nothing more is to be expected of it.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Ends it at once, and with it every engine process.
    pub async fn kill(&mut self) {
        // It can only fail if it is gone already.
        let _ = self.child.kill().await;
    }

    /// Kills an engine process and waits for its end; one that has ended before is no error.
    pub(super) async fn kill_engine(&mut self, pid: u32) -> Result<(), SessionError> {
        if self.is_lost {
            return Err(died(&mut self.child, &self.log).await);
        }
        let message = serde_json::json!({"op": "kill", "pid": pid});
        self.ask_within(KILL_LIMIT, "the end of an engine process", &message, &[]).await.map(drop)
    }

    /// Why the process `pid` of an engine, or the sidecar itself, is gone.
    pub(super) async fn why_gone(&mut self, pid: u32) -> SessionError {
        let deadline = Instant::now() + EXIT_LIMIT;
        while let Ok(received) = tokio::time::timeout_at(deadline, self.channel.receive()).await {
            match received {
                Ok(Some(FromSidecar::Exited { pid: gone, code, signal })) if gone == pid => {
                    let how = ending(code, signal);
                    return SessionError::EngineDied { how, log: self.log.clone(), tail: log_tail(&self.log) };
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    self.is_lost = true;
                    return died(&mut self.child, &self.log).await;
                }
            }
        }
        let how = "closed its channel without a word".to_owned();
        SessionError::EngineDied { how, log: self.log.clone(), tail: log_tail(&self.log) }
    }

    /// Asks the sidecar to leave, and waits for it; kills it if it does not.
    pub async fn shutdown(mut self) {
        let asked = self.channel.send(&serde_json::json!({"op": "shutdown"}), &[]).await;
        if asked.is_err() || timeout(SHUTDOWN_LIMIT, self.child.wait()).await.is_err() {
            // It does not listen; killing it can only fail if it has just left.
            let _ = self.child.kill().await;
        }
    }

    async fn ask(
        &mut self,
        what: &str,
        message: &serde_json::Value,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<Option<u32>, SessionError> {
        self.ask_within(REPLY_LIMIT, what, message, fds).await
    }

    async fn ask_within(
        &mut self,
        limit: Duration,
        what: &str,
        message: &serde_json::Value,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<Option<u32>, SessionError> {
        let answer = self.answer(limit, what, message, fds).await;
        self.is_lost |= matches!(answer, Err(SessionError::SidecarDied { .. } | SessionError::Timeout { .. }));
        answer
    }

    async fn answer(
        &mut self,
        limit: Duration,
        what: &str,
        message: &serde_json::Value,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<Option<u32>, SessionError> {
        if self.channel.send(message, fds).await.is_err() {
            return Err(died(&mut self.child, &self.log).await);
        }
        let deadline = Instant::now() + limit;
        loop {
            match tokio::time::timeout_at(deadline, self.channel.receive()).await {
                Ok(Ok(Some(FromSidecar::Reply { error: Some(error), .. }))) => {
                    return Err(SessionError::Refused(error.message));
                }
                Ok(Ok(Some(FromSidecar::Reply { pid, .. }))) => return Ok(pid),
                Ok(Ok(Some(_))) => {} // an engine of before has ended
                Ok(Ok(None)) => return Err(died(&mut self.child, &self.log).await),
                Ok(Err(err)) => return Err(err),
                Err(_) => return Err(no_answer(what, limit, &self.log)),
            }
        }
    }
}

fn command(options: &SidecarOptions, socket: &Path, log: File) -> Command {
    let mut command = Command::new(&options.python);
    command.args(["-m", "bench_sidecar", "--socket"]).arg(socket);
    command.arg("--ring-library").arg(&options.ring_library);
    command.args((!options.with_vllm).then_some("--scripted"));
    command.envs(options.variables());
    let errors = log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from);
    command.stdin(Stdio::null()).stdout(Stdio::from(log)).stderr(errors);
    command.kill_on_drop(true);
    command
}

/// Connects as soon as the sidecar listens, or says why it never will.
async fn connect(socket: &Path, child: &mut Child, log: &Path) -> Result<UnixStream, SessionError> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() > deadline => return Err(no_answer("starting the sidecar", CONNECT_LIMIT, log)),
            Err(_) => {}
        }
        match child.try_wait() {
            Ok(Some(_)) => return Err(died(child, log).await),
            _ => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Refuses a peer of another user.
fn check_peer(stream: &UnixStream) -> Result<(), SessionError> {
    let peer = stream.peer_cred().map_err(SessionError::io("asking for the peer's user id"))?;
    let own = nix::unistd::getuid().as_raw();
    if peer.uid() != own {
        return Err(SessionError::Protocol(format!("the socket's peer has user id {}, not {own}", peer.uid())));
    }
    Ok(())
}

async fn died(child: &mut Child, log: &Path) -> SessionError {
    use std::os::unix::process::ExitStatusExt;
    let how = match timeout(EXIT_LIMIT, child.wait()).await {
        Ok(Ok(status)) => ending(status.code().unwrap_or(0), status.signal().unwrap_or(0)),
        _ => "closed its channel without leaving".to_owned(),
    };
    SessionError::SidecarDied { how, log: log.to_owned(), tail: log_tail(log) }
}

pub(super) fn no_answer(what: &str, limit: Duration, log: &Path) -> SessionError {
    SessionError::Timeout { what: what.to_owned(), limit, log: log.to_owned() }
}

fn ending(code: i32, signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(name) => format!("was killed by {name}"),
        Err(_) => format!("ended with status {code}"),
    }
}
