//! The sidecar process: started once, it imports vLLM and has an engine process begin for every load. One that an earlier
//! command has left behind is used instead where it fits.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::channel::{Channel, text};
use super::engine::{Engine, Rings, no_sign};
use super::folder::PrivateFolder;
use super::spec::{EngineSpec, SidecarOptions, Warm};
use super::warm::{self, About, Held, Holder, WarmSidecar};
use super::work::while_it_works;
use super::{ParsedLabels, SessionError, log_tail, variables};
use crate::base::bounded_file::open_own_file;
use crate::machine::device::{DeviceClass, Placement};
use crate::machine::environment::VllmSource;
use crate::measurement::ring;

/// How long a sidecar may take to listen: starting Python, nothing imported yet.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long importing vLLM may take, on a cold disk too.
const HELLO_LIMIT: Duration = Duration::from_secs(600);
/// How long a sidecar of which an answer is expected may do nothing at all, if `--stall-limit` is not less.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// How long a small question may take.
const REPLY_LIMIT: Duration = Duration::from_secs(120);
/// How long a process may take to leave when it is asked to, before it is killed.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// The same after an interrupt.
const INTERRUPTED_LIMIT: Duration = Duration::from_millis(1_500);
/// How long the fork server may take to say how an engine process ended.
pub(super) const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// How long a killed engine process may take to be gone; one with much memory takes seconds.
const KILL_LIMIT: Duration = Duration::from_secs(30);

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
    /// The file that vLLM was imported from, without symbolic links; null where it is not imported.
    #[serde(default)]
    pub vllm_file: Option<PathBuf>,
    /// Seconds that importing vLLM took.
    pub import_s: f64,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum FromSidecar {
    Hello(Hello),
    Exited {
        pid: u32,
        code: i32,
        signal: i32,
    },
    Reply {
        #[serde(default)]
        error: Option<ErrorText>,
        #[serde(flatten)]
        reply: Reply,
    },
}

/// What the answer to a load says of the engine.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Reply {
    #[serde(default)]
    pid: Option<u32>,
    /// The engine that had to leave for this one.
    #[serde(default)]
    replaced: Option<serde_json::Value>,
    /// Of a check: what vLLM's parser reads where a report has a label.
    #[serde(default)]
    parsed: Option<ParsedLabels>,
}

/// An error as the sidecar words it.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorText {
    #[serde(deserialize_with = "text")]
    pub(super) message: String,
}

/// A running sidecar. Dropping one that is not to stay kills its process, and with that every engine process.
#[derive(Debug)]
pub struct Sidecar {
    /// `None` of one that an earlier command has started.
    child: Option<Child>,
    /// Its process, as the kernel has it: that which was started, or the socket's peer.
    pid: u32,
    channel: Channel,
    hello: Hello,
    device: DeviceClass,
    placement: Placement,
    log: PathBuf,
    warm: Option<WarmUse>,
    remarks: Vec<String>,
    stall_limit: Duration,
    /// Set when it has failed to answer.
    lost: Option<Lost>,
    /// Of one that ends with its command. One that stays takes its folder away itself.
    _folder: Option<PrivateFolder>,
}

/// Why nothing more is to be expected of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// It has closed its channel.
    Gone,
    /// It lives, and does not answer.
    Hangs,
}

/// How a command uses a sidecar that stays after it.
#[derive(Clone, Debug, Serialize)]
pub struct WarmUse {
    /// The sidecar's name.
    pub id: String,
    /// Whether an earlier command has started it.
    pub is_attached: bool,
    /// Seconds that it had lived when this command came.
    pub age_s: f64,
}

impl Sidecar {
    /// Has a sidecar: a warm one that fits, where that is wanted, else one that is started now. Waits until vLLM is imported.
    ///
    /// # Errors
    /// [`SessionError::Busy`] if another command measures with the one that fits; else why it could not be started.
    pub async fn start(options: &SidecarOptions) -> Result<Sidecar, SessionError> {
        let mut remarks = Vec::new();
        if let Some(warm) = &options.warm {
            match warm.registry.list() {
                Ok(found) => {
                    for found in found.iter().filter(|found| found.is_of(options)) {
                        match Sidecar::attach(found, options, warm)? {
                            Ok(sidecar) => return Ok(sidecar),
                            Err(why) => remarks.push(format!("not attached to the warm sidecar {}: {why}", found.id)),
                        }
                    }
                }
                Err(err) if warm.keep.is_none() => remarks.push(format!("not attached to a warm sidecar: {err}")),
                Err(err) => return Err(err),
            }
        }
        let mut sidecar = Sidecar::start_anew(options).await?;
        sidecar.remarks.append(&mut remarks);
        Ok(sidecar)
    }

    /// Whether a warm sidecar fits, which [`Sidecar::start`] would attach to. Asked before this process goes to its cores, where
    /// the recorder of a command that holds it may leave it little time.
    ///
    /// # Errors
    /// [`SessionError::Busy`] if another command holds it.
    pub fn is_warm(options: &SidecarOptions) -> Result<bool, SessionError> {
        let found = options.warm.as_ref().and_then(|warm| warm.registry.list().ok()).unwrap_or_default();
        let fits = |found: &&WarmSidecar| found.is_of(options) && found.misfit(options).is_none();
        match found.iter().find(fits) {
            None => Ok(false),
            Some(found) => found.holder().map_or(Ok(true), |holder| Err(busy(&found.id, holder))),
        }
    }

    /// Becomes the holder of a warm sidecar; or says why not.
    fn attach(
        found: &WarmSidecar,
        options: &SidecarOptions,
        warm: &Warm,
    ) -> Result<Result<Sidecar, String>, SessionError> {
        if let Some(why) = found.misfit(options) {
            return Ok(Err(why));
        }
        let Ok(status) = &found.status else { return Ok(Err("it does not answer".to_owned())) };
        let (stream, hello) = match found.hold(&hold_message(options, &options.log)) {
            Held::Ours(stream, hello) => (stream, hello),
            Held::Busy(holder) => return Err(busy(&found.id, &holder)),
            Held::Gone(why) => return Ok(Err(why)),
        };
        if hello.abi_version != ring::abi_version() {
            return Ok(Err(format!("its ring has ABI version {}, ours {}", hello.abi_version, ring::abi_version())));
        }
        let pid = warm::peer(&stream).map_err(SessionError::io("using the sidecar's socket"))?;
        if let Err(err) = check_vllm(options, &hello) {
            return Ok(Err(err.to_string()));
        }
        let channel = Channel::from_std(stream).map_err(SessionError::io("using the sidecar's socket"))?;
        let log = status.about.as_ref().map_or_else(|| options.log.clone(), |about| about.log.clone());
        let (device, placement) = (options.device, options.placement.clone());
        let warm_use = WarmUse { id: found.id.clone(), is_attached: true, age_s: status.age_s };
        let remarks = match warm.keep {
            Some(_) => Vec::new(),
            None => vec![format!("the sidecar {} stays warm after this command, as it was found", found.id)],
        };
        Ok(Ok(Sidecar {
            child: None,
            pid: pid.unsigned_abs(),
            channel,
            hello,
            device,
            placement,
            log,
            warm: Some(warm_use),
            remarks,
            stall_limit: options.stall_limit,
            lost: None,
            _folder: None,
        }))
    }

    async fn start_anew(options: &SidecarOptions) -> Result<Sidecar, SessionError> {
        match options.warm.as_ref().filter(|warm| warm.keep.is_some()) {
            Some(warm) => {
                let (folder, lock, log) = warm.registry.new_folder(options.device)?;
                let private = PrivateFolder::make()?;
                let mut sidecar = Sidecar::start_in(options, folder.path(), &private, log).await?;
                drop(lock); // the sidecar has it by now
                private.leave();
                let id = warm::id_of(&folder.keep());
                sidecar.warm = Some(WarmUse { id, is_attached: false, age_s: 0.0 });
                Ok(sidecar)
            }
            None => {
                let private = PrivateFolder::make()?;
                let sidecar = Sidecar::start_in(options, private.path(), &private, options.log.clone()).await?;
                Ok(Sidecar { _folder: Some(private), ..sidecar })
            }
        }
    }

    /// `folder` is for the socket; temporary files go into the private one.
    async fn start_in(
        options: &SidecarOptions,
        folder: &Path,
        private: &PrivateFolder,
        log: PathBuf,
    ) -> Result<Sidecar, SessionError> {
        // Of a sidecar that replaces another, or of a sweep that is gone on with: what was said before is kept.
        let output = open_own_file(&log, File::options().create(true).append(true));
        let output = output.map_err(SessionError::io(format!("cannot write {}", log.display())))?;
        let lock = private.inheritable_lock()?;
        let mut child = command(options, folder, &private.temporary(), output)
            .spawn()
            .map_err(|source| SessionError::Start { python: options.python.clone(), source })?;
        drop(lock); // the sidecar has it, too
        let (channel, hello) = match greet(options, folder, &mut child, &log).await {
            Ok(greeted) => greeted,
            Err(err) => {
                let _ = child.start_kill(); // it has mostly ended already
                return Err(err);
            }
        };
        Ok(Sidecar {
            pid: child.id().unwrap_or_default(),
            child: Some(child),
            channel,
            hello,
            device: options.device,
            placement: options.placement.clone(),
            log,
            warm: None,
            remarks: private.remark().into_iter().collect(),
            stall_limit: options.stall_limit,
            lost: None,
            _folder: None,
        })
    }

    /// What the sidecar said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// How this command uses a sidecar that stays after it; `None` for one that ends with it.
    pub fn warm_use(&self) -> Option<&WarmUse> {
        self.warm.as_ref()
    }

    /// What is to be said of warm sidecars: why one was not attached to, what an engine had to leave for.
    pub fn take_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    /// Where the sidecar's output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Asks vLLM's own parser about `argv`, without loading anything; gives what it reads. `Refused` says what it said.
    pub async fn check(&mut self, argv: &[String]) -> Result<ParsedLabels, SessionError> {
        let message = serde_json::json!({"op": "check", "argv": argv});
        let reply = self.ask("the check of the engine's arguments", &message, &[]).await?;
        Ok(reply.parsed.unwrap_or_default())
    }

    /// Loads an engine in a process of its own; or has the one that is loaded in a warm sidecar, if it was loaded with the same.
    /// One at a time; the one before is to be put back first.
    pub async fn load(&mut self, spec: &EngineSpec) -> Result<Engine, SessionError> {
        let (ours, theirs) = StdUnixStream::pair().map_err(SessionError::io("making a socket pair"))?;
        let rings = Rings::create(self.placement.wait_strategy.sleeps())?;
        let message = spec.load_message(self.device, &self.placement);
        let mut fds = vec![theirs.as_fd()];
        fds.extend(rings.descriptors());
        let reply = self.ask("the load of an engine", &message, &fds).await?;
        drop(fds);
        drop(theirs); // the engine process has the only other end: its death closes the channel
        if let Some(replaced) = &reply.replaced {
            self.remarks.push(format!("the warm engine is loaded anew: {}", reload_reason(replaced, &message)));
        }
        let pid = reply.pid.ok_or_else(|| SessionError::Protocol("a load without a process id".to_owned()))?;
        let channel = Channel::from_std(ours).map_err(SessionError::io("using a socket pair"))?;
        let ready = Engine::wait_until_ready(channel, pid, rings, spec.pace(), self).await;
        if ready.is_err() {
            // It says why by itself; a fork server that does not answer is noted.
            let _ = self.kill_engine(pid).await;
        }
        ready
    }

    /// Kills an engine process and waits for its end; one that has ended before is no error.
    pub(super) async fn kill_engine(&mut self, pid: u32) -> Result<(), SessionError> {
        if self.is_lost() {
            return Err(died(self.child.as_mut(), &self.log).await);
        }
        let message = serde_json::json!({"op": "kill", "pid": pid});
        self.ask_within((KILL_LIMIT, KILL_LIMIT), "the end of an engine process", &message, &[]).await.map(drop)
    }

    /// How long an engine may give no sign.
    pub(super) fn stall_limit(&self) -> Duration {
        self.stall_limit
    }

    /// Whether it has failed to answer, so that nothing more is to be expected of it.
    pub fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Ends it at once, and with it every engine process.
    pub async fn kill(&mut self) {
        match &mut self.child {
            // It can only fail if it is gone already.
            Some(child) => drop(child.kill().await),
            None if self.lost == Some(Lost::Hangs) && self.pid > 0 => {
                let pid = nix::unistd::Pid::from_raw(self.pid.cast_signed());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            None => {}
        }
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
                    self.lost = Some(Lost::Gone);
                    return died(self.child.as_mut(), &self.log).await;
                }
            }
        }
        let how = "closed its channel without a word".to_owned();
        SessionError::EngineDied { how, log: self.log.clone(), tail: log_tail(&self.log) }
    }

    /// Ends with an engine: one of a sidecar that stays is emptied and left to the next command, any other is shut down.
    pub async fn put_back(&mut self, engine: Engine) {
        if self.warm.is_some() {
            engine.give_back().await;
        } else {
            engine.shutdown().await;
        }
    }

    /// Asks the sidecar to leave, and waits for it; kills it if it does not. One that stays is left alone.
    pub async fn shutdown(self) {
        self.shutdown_within(SHUTDOWN_LIMIT).await;
    }

    /// As [`Sidecar::shutdown`], for a user who waits: a sidecar that takes longer is killed sooner.
    pub async fn shutdown_at_once(self) {
        self.shutdown_within(INTERRUPTED_LIMIT).await;
    }

    async fn shutdown_within(mut self, limit: Duration) {
        if self.warm.is_some() {
            return;
        }
        if self.is_lost() {
            return self.kill().await;
        }
        let Some(child) = &mut self.child else { return };
        let left = async {
            self.channel.send(&serde_json::json!({"op": "shutdown"}), &[]).await?;
            child.wait().await
        };
        if !matches!(timeout(limit, left).await, Ok(Ok(_))) {
            // It does not listen; killing it can only fail if it has just left.
            let _ = child.kill().await;
        }
    }

    async fn ask(
        &mut self,
        what: &str,
        message: &serde_json::Value,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<Reply, SessionError> {
        let idle_limit = self.stall_limit.min(IDLE_LIMIT);
        self.ask_within((idle_limit, REPLY_LIMIT), what, message, fds).await
    }

    /// Asks, and waits for `idle_limit` while the sidecar does nothing, and for `limit` in all.
    async fn ask_within(
        &mut self,
        (idle_limit, limit): (Duration, Duration),
        what: &str,
        message: &serde_json::Value,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<Reply, SessionError> {
        let pid = self.pid;
        // 0: the sidecar is in another process namespace, so its processor time is unknown.
        let idle_limit = if pid == 0 { limit } else { idle_limit };
        let answer = match while_it_works(pid, idle_limit, limit, self.answer(message, fds)).await {
            Ok(answer) => answer,
            Err(why) => Err(no_sign("the sidecar", what, why, &self.log)),
        };
        match &answer {
            Err(SessionError::SidecarDied { .. }) => self.lost = Some(Lost::Gone),
            // Nobody knows what else a sidecar does that does not keep to the protocol.
            Err(SessionError::Timeout { .. } | SessionError::Idle { .. } | SessionError::Protocol(_)) => {
                self.lost = Some(Lost::Hangs);
            }
            _ => {}
        }
        answer
    }

    async fn answer(
        &mut self,
        message: &serde_json::Value,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<Reply, SessionError> {
        if self.channel.send(message, fds).await.is_err() {
            return Err(died(self.child.as_mut(), &self.log).await);
        }
        loop {
            match self.channel.receive().await? {
                Some(FromSidecar::Reply { error: Some(error), .. }) => {
                    return Err(SessionError::Refused(error.message));
                }
                Some(FromSidecar::Reply { reply, .. }) => return Ok(reply),
                Some(_) => {} // an engine of before has ended
                None => return Err(died(self.child.as_mut(), &self.log).await),
            }
        }
    }
}

/// Who holds the sidecar, and what those who come later are to know of it.
fn hold_message(options: &SidecarOptions, log: &Path) -> serde_json::Value {
    let keep = options.warm.as_ref().and_then(|warm| warm.keep);
    let about = About {
        device: options.device,
        python: options.python.clone(),
        vllm_package: options.warm.as_ref().and_then(|warm| warm.vllm_package.clone()),
        package: options.package.clone(),
        log: log.to_owned(),
        variables: variables::digests(options),
    };
    serde_json::json!({
        "op": "hold",
        "command": crate::base::printable::command_line(),
        "keep_s": keep.map(|keep| keep.as_secs_f64()),
        "about": about,
    })
}

fn busy(id: &str, holder: &Holder) -> SessionError {
    SessionError::Busy {
        id: id.to_owned(),
        pid: holder.pid,
        command: holder.command_line(),
        held_for: Duration::try_from_secs_f64(holder.held_s).unwrap_or_default(),
    }
}

/// In what a loaded engine's load differs from the one that is asked for.
fn reload_reason(loaded: &serde_json::Value, asked: &serde_json::Value) -> String {
    let names = [
        ("argv", "its arguments differ"),
        ("script", "its script differs"),
        ("step_api", "its step_api differs"),
        ("env", "its environment variables differ"),
        ("files", "files named in its arguments have changed"),
        ("cores", "its cores differ"),
        ("nice", "its priority differs"),
        ("cwd", "its working folder differs"),
    ];
    let differing = names.iter().filter(|(name, _)| loaded.get(name) != asked.get(name)).map(|(_, words)| *words);
    differing.collect::<Vec<_>>().join(", ")
}

fn command(options: &SidecarOptions, folder: &Path, temporary: &Path, log: File) -> Command {
    let is_kept = options.warm.as_ref().is_some_and(|warm| warm.keep.is_some());
    let mut command = Command::new(&options.python);
    command.args(["-m", "bench_sidecar", "--socket"]).arg(folder.join(warm::SOCKET));
    command.arg("--ring-library").arg(&options.ring_library);
    command.arg("--parent").arg(std::process::id().to_string());
    command.args((!options.with_vllm).then_some("--scripted")).args(is_kept.then_some("--keep"));
    command.arg("--temporary").arg(temporary);
    command.envs(options.variables()).env("TMPDIR", temporary);
    let errors = log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from);
    command.stdin(Stdio::null()).stdout(Stdio::from(log)).stderr(errors);
    // What is sent to the group of this command (by a terminal, `timeout`, Slurm) is for this command: it ends its sidecar.
    command.process_group(0);
    command.kill_on_drop(!is_kept);
    command
}

/// Becomes the holder of a sidecar that is being started, and waits until vLLM is imported.
async fn greet(
    options: &SidecarOptions,
    folder: &Path,
    child: &mut Child,
    log: &Path,
) -> Result<(Channel, Hello), SessionError> {
    let pid = child.id().unwrap_or_default();
    let greeted = greet_at_leisure(options, folder, child, log);
    match while_it_works(pid, options.stall_limit, CONNECT_LIMIT + HELLO_LIMIT, greeted).await {
        Ok(greeted) => greeted,
        Err(why) => Err(no_sign("the sidecar", "starting the sidecar", why, log)),
    }
}

async fn greet_at_leisure(
    options: &SidecarOptions,
    folder: &Path,
    child: &mut Child,
    log: &Path,
) -> Result<(Channel, Hello), SessionError> {
    let stream = connect(folder, child, log).await?;
    let mut channel = Channel::from_std(stream).map_err(SessionError::io("using the sidecar's socket"))?;
    if channel.send(&hold_message(options, log), &[]).await.is_err() {
        return Err(died(Some(child), log).await);
    }
    let hello = match channel.receive().await? {
        Some(FromSidecar::Hello(hello)) => hello,
        None => return Err(died(Some(child), log).await),
        Some(other) => return Err(SessionError::unexpected(&other, "a hello")),
    };
    if hello.abi_version != ring::abi_version() {
        return Err(SessionError::Abi { found: hello.abi_version, expected: ring::abi_version() });
    }
    check_vllm(options, &hello)?;
    Ok((channel, hello))
}

/// Refuses a sidecar that has imported another vLLM than the one that was looked up, whose version stands in the plan, the
/// fingerprint and the report. A local part of a version (`+cpu`) does not count.
fn check_vllm(options: &SidecarOptions, hello: &Hello) -> Result<(), SessionError> {
    if !options.with_vllm {
        return Ok(());
    }
    let public = |version: &Option<String>| version.as_deref().and_then(|it| it.split('+').next()).map(str::to_owned);
    let VllmSource { version, file, .. } = &options.vllm;
    let is_other_version = version.is_some() && public(version) != public(&hello.vllm_version);
    let is_other_file = file.is_some() && *file != hello.vllm_file;
    if !(is_other_version || is_other_file) {
        return Ok(());
    }
    let (version, file) = (hello.vllm_version.clone(), hello.vllm_file.clone());
    let imported = VllmSource { version, file, python_path: None };
    Err(SessionError::OtherVllm { imported, looked_up: options.vllm.clone() })
}

/// Connects as soon as the sidecar listens, or says why it never will.
async fn connect(folder: &Path, child: &mut Child, log: &Path) -> Result<StdUnixStream, SessionError> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match warm::connect(folder) {
            Ok(stream) => {
                warm::peer(&stream).map_err(SessionError::io("connecting to the sidecar"))?;
                return Ok(stream);
            }
            Err(_) if Instant::now() > deadline => return Err(no_answer("starting the sidecar", CONNECT_LIMIT, log)),
            Err(_) => {}
        }
        match child.try_wait() {
            Ok(Some(_)) => return Err(died(Some(child), log).await),
            _ => sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn died(child: Option<&mut Child>, log: &Path) -> SessionError {
    use std::os::unix::process::ExitStatusExt;
    let how = match child {
        None => "is gone, which an earlier command had started".to_owned(),
        Some(child) => match timeout(EXIT_LIMIT, child.wait()).await {
            Ok(Ok(status)) => ending(status.code().unwrap_or(0), status.signal().unwrap_or(0)),
            _ => "closed its channel without leaving".to_owned(),
        },
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
