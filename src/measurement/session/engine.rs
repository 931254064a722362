//! One loaded engine: stage requests, open a window, read what comes back.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::Deserialize;
use tokio::time::timeout;

use super::channel::{Channel, text};
use super::sidecar::{EXIT_LIMIT, ErrorText};
use super::watchdog::Pace;
use super::work::{NoAnswer, while_it_works};
use super::{SessionError, Sidecar, Window};
use crate::machine::device::Placement;
use crate::measurement::ring::protocol::{EVENT_STREAM, REQUEST_STREAM};
use crate::measurement::ring::{RingError, RingMemory, sealed_memory};
use crate::measurement::timeline::{Compilation, EngineFacts, StepDrafts};
use crate::question::plan::{Drive, Limits};

/// Records that the event ring holds: over a hundred steps of a batch of 4,096.
const EVENT_CAPACITY: u32 = 1 << 16;
/// Requests that can be submitted before the engine looks.
pub const REQUEST_CAPACITY: u32 = 1 << 15;
/// How long a load may take: hundreds of gigabytes from a network disk.
const LOAD_LIMIT: Duration = Duration::from_secs(3600);
/// How long observing one batch size may take.
const OBSERVE_LIMIT: Duration = Duration::from_secs(3600);
/// How long staging, beginning and resetting may take.
const REPLY_LIMIT: Duration = Duration::from_secs(300);
/// What messages call it.
const PROCESS: &str = "the engine process";
/// How long an engine that is asked something between two runs may do nothing at all.
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// The memory of an engine's two rings and what wakes their readers.
pub(super) struct Rings {
    events: RingMemory,
    requests: RingMemory,
    request_wake: EventFd,
    event_wake: Option<EventFd>,
}

impl Rings {
    pub(super) fn create(recorder_sleeps: bool) -> Result<Rings, SessionError> {
        let wake = || {
            EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
                .map_err(|source| RingError::System { what: "eventfd", source })
        };
        Ok(Rings {
            events: RingMemory::create(EVENT_STREAM, EVENT_CAPACITY)?,
            requests: RingMemory::create(REQUEST_STREAM, REQUEST_CAPACITY)?,
            request_wake: wake()?,
            event_wake: if recorder_sleeps { Some(wake()?) } else { None },
        })
    }

    /// This process's ends of both.
    fn window(&self) -> Result<Window, SessionError> {
        Ok(Window {
            events: self.events.consumer(self.event_wake.as_ref().map(AsFd::as_fd))?,
            requests: self.requests.producer(Some(self.request_wake.as_fd()))?,
        })
    }

    /// Whether this process may lock the memory of both, found by trying.
    pub(super) fn can_be_locked() -> Result<bool, SessionError> {
        let window = Rings::create(false)?.window()?;
        Ok(window.events.is_locked() && window.requests.is_locked())
    }

    /// In the order in which the engine process takes them.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.events.as_fd(), self.requests.as_fd(), self.request_wake.as_fd()];
        fds.extend(self.event_wake.as_ref().map(AsFd::as_fd));
        fds
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum FromEngine {
    Ready {
        facts: EngineFacts,
        warnings: Vec<String>,
        load_s: f64,
    },
    Failed {
        #[serde(deserialize_with = "text")]
        stage: String,
        #[serde(deserialize_with = "text")]
        kind: String,
        #[serde(deserialize_with = "text")]
        message: String,
    },
    Ended(Ended),
    Reply(Reply),
}

/// The answer to a question; which fields it has depends on that.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    #[serde(default)]
    error: Option<ErrorText>,
    #[serde(default)]
    reset: Option<bool>,
    #[serde(default)]
    tap_push_ns: Vec<i64>,
    #[serde(default)]
    times_ns: BTreeMap<String, Vec<u64>>,
    #[serde(default)]
    instructions: Option<BTreeMap<String, Vec<u64>>>,
}

/// The ways in which steps can be observed: as in a run; the same without the tap; bare loops over EngineCore's step function and
/// over LLMEngine.step().
pub const OBSERVED_WAYS: [&str; 4] = ["on", "off", "engine_core", "llm_engine"];

/// Steps of one batch size, taken in several ways in random order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedSteps {
    /// Nanoseconds of each step, round by round, by way: those of [`OBSERVED_WAYS`] that were asked for.
    pub times_ns: BTreeMap<String, Vec<u64>>,
    /// Instructions of the engine's thread in each; `None` where the machine does not count them.
    pub instructions: Option<BTreeMap<String, Vec<u64>>>,
}

impl ObservedSteps {
    /// Adds the rounds of `later`, of the same ways.
    pub fn append(&mut self, later: ObservedSteps) {
        let add = |all: &mut BTreeMap<String, Vec<u64>>, more: BTreeMap<String, Vec<u64>>| {
            more.into_iter().for_each(|(way, of_way)| all.entry(way).or_default().extend(of_way));
        };
        add(&mut self.times_ns, later.times_ns);
        if let Some((all, more)) = self.instructions.as_mut().zip(later.instructions) {
            add(all, more);
        }
    }
}

/// What the engine process says of a run that it has carried out.
#[derive(Clone, Debug, Deserialize)]
pub struct Ended {
    /// Steps in which the model ran.
    pub steps: u64,
    /// Nanoseconds spent inside the engine's step function, all phases together.
    pub stepping_ns: u64,
    /// Handles that it refused: not staged, or submitted twice.
    pub refused: Vec<u32>,
    /// What it compiled meanwhile; only engines on JAX tell.
    #[serde(default)]
    pub compilations: Option<Vec<Compilation>>,
    /// What it drafted, by step; only engines with speculative decoding tell.
    #[serde(default)]
    pub drafts: Option<Vec<StepDrafts>>,
}

/// A request to be staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSpec {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Output tokens, delivered exactly unless the engine fails.
    pub output_tokens: u32,
}

/// A loaded engine in a process of its own.
pub struct Engine {
    channel: Channel,
    pid: u32,
    facts: EngineFacts,
    warnings: Vec<String>,
    load_s: f64,
    pace: Pace,
    window: Option<Window>,
    log: std::path::PathBuf,
    _rings: Rings,
}

impl Engine {
    pub(super) async fn wait_until_ready(
        mut channel: Channel,
        pid: u32,
        rings: Rings,
        pace: Pace,
        sidecar: &mut Sidecar,
    ) -> Result<Engine, SessionError> {
        let log = sidecar.log().to_owned();
        let first = match while_it_works(pid, sidecar.stall_limit(), LOAD_LIMIT, channel.receive()).await {
            Err(why) => return Err(no_sign(PROCESS, "the load of an engine", why, &log)),
            Ok(received) => received?,
        };
        match first {
            Some(FromEngine::Ready { facts, .. }) if facts.vocab_size == 0 => {
                Err(SessionError::Protocol("an engine whose vocabulary is empty".to_owned()))
            }
            Some(FromEngine::Ready { facts, warnings, load_s }) => {
                let window = Some(rings.window()?);
                Ok(Engine { channel, pid, facts, warnings, load_s, pace, window, log, _rings: rings })
            }
            Some(FromEngine::Failed { stage, kind, message }) => {
                let hint = hint(&message);
                Err(SessionError::EngineFailed { stage, kind, message, hint, log })
            }
            Some(other) => Err(SessionError::unexpected(&other, "a ready engine")),
            None => Err(sidecar.why_gone(pid).await),
        }
    }

    /// What the engine says of itself.
    pub fn facts(&self) -> &EngineFacts {
        &self.facts
    }

    /// What was noticed at load.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds what was noticed after the load; every run on this engine has it among its warnings.
    pub(super) fn warn(&mut self, warning: Option<String>) {
        self.warnings.extend(warning);
    }

    /// Seconds from the fork to a tested engine; 0 for one that is reused.
    pub fn load_s(&self) -> f64 {
        self.load_s
    }

    /// Process id of the engine process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How long its steps take, as far as it was seen.
    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    /// Keeps what a run has shown of it.
    pub(super) fn keep_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Empties the prefix cache; false if the engine would not.
    pub async fn reset(&mut self) -> Result<bool, SessionError> {
        let reply = self.ask("a reset", &serde_json::json!({"op": "reset"}), &[]).await?;
        reply.reset.ok_or_else(|| SessionError::Protocol("a reset without its result".to_owned()))
    }

    /// Nanoseconds that tap and push took in each of `steps` made-up steps of `batch` requests, outside of any run, with
    /// the caches full of other things. Scripted engines only.
    pub async fn measure_tap(&mut self, batch: u32, steps: u32) -> Result<Vec<i64>, SessionError> {
        let message = serde_json::json!({"op": "measure_tap", "batch": batch, "steps": steps});
        let reply = self.ask("a measurement of the tap", &message, &[]).await?;
        // The records that it pushed belong to no run.
        while let Some(window) = self.window.as_mut() {
            if window.events.pop(1)?.is_none() {
                break;
            }
        }
        Ok(reply.tap_push_ns)
    }

    /// Steps the engine with a batch of `batch` requests in each of `ways`, `rounds` times each.
    /// What the tap pushes is taken out of the ring by a thread that looks all the time, seated as the recorder is in a run.
    pub async fn observe(
        &mut self,
        batch: u32,
        rounds: u32,
        ways: &[&str],
        placement: &Placement,
    ) -> Result<ObservedSteps, SessionError> {
        let Some(window) = self.window.take() else {
            return Err(SessionError::Protocol("steps are to be observed inside a run".to_owned()));
        };
        let drain = Drain::start(window, placement.clone())?;
        let message = serde_json::json!({"op": "observe", "batch": batch, "rounds": rounds, "ways": ways});
        let reply = self.ask_within(OBSERVE_LIMIT, "an observation of steps", &message, &[]).await;
        self.window = Some(drain.stop()?);
        let Reply { times_ns, instructions, .. } = reply?;
        Ok(ObservedSteps { times_ns, instructions })
    }

    /// Builds vLLM's request objects, in order: the handle of a request is its index. `salt` keeps the prefix cache
    /// of one run from answering another. `Refused` says which request vLLM does not take, and why.
    pub async fn stage(&mut self, requests: &[RequestSpec], salt: &str) -> Result<(), SessionError> {
        self.check_requests(requests)?;
        let memory = prompts_memory(requests)?;
        let message = serde_json::json!({
            "op": "stage",
            "salt": salt,
            "prompt_tokens": requests.iter().map(|request| request.prompt.len()).collect::<Vec<_>>(),
            "output_tokens": requests.iter().map(|request| request.output_tokens).collect::<Vec<_>>(),
        });
        self.ask("the staging of requests", &message, &[memory.as_fd()]).await.map(drop)
    }

    /// Opens a run with the scheduler's limits lowered to `limits`, and lends out the rings. From here until the end
    /// record the engine looks only at its request ring. The rings go back with [`Engine::ended`].
    /// `run` names the run in the truth of a scripted engine.
    pub async fn begin(&mut self, run: &str, limits: Limits, drive: Drive) -> Result<Window, SessionError> {
        let message = serde_json::json!({"op": "begin", "run": run, "limits": limits, "drive": drive});
        self.ask("the begin of a run", &message, &[]).await?;
        self.window.take().ok_or_else(|| SessionError::Protocol("a run begun inside another".to_owned()))
    }

    /// Takes the rings back, and waits for what the engine says of the run, unless `said` already holds it.
    pub async fn ended(
        &mut self,
        window: Window,
        said: Option<Ended>,
        sidecar: &mut Sidecar,
    ) -> Result<Ended, SessionError> {
        self.window = Some(window);
        if let Some(said) = said {
            return Ok(said);
        }
        let (pid, log) = (self.pid, self.log.clone());
        match while_it_works(pid, IDLE_LIMIT, REPLY_LIMIT, self.next_sign()).await {
            Ok(Ok(Some(ended))) => Ok(ended),
            Ok(Ok(None)) => Err(sidecar.why_gone(pid).await),
            Ok(Err(err)) => Err(err),
            Err(why) => Err(no_sign(PROCESS, "the end of a run", why, &log)),
        }
    }

    /// The engine's word on a run that goes on: its end, or its failure; `None` if the process is gone. Cancelling it loses
    /// nothing.
    pub async fn next_sign(&mut self) -> Result<Option<Ended>, SessionError> {
        match self.channel.receive().await? {
            Some(FromEngine::Ended(ended)) => {
                self.pace.compiles |= ended.compilations.is_some();
                Ok(Some(ended))
            }
            Some(FromEngine::Failed { stage, kind, message }) => {
                let hint = hint(&message);
                Err(SessionError::EngineFailed { stage, kind, message, hint, log: self.log.clone() })
            }
            Some(other) => Err(SessionError::unexpected(&other, "the end of a run")),
            None => Ok(None),
        }
    }

    /// Ends the engine process, whatever it is doing. An error means that its fork server does not answer any more, and
    /// is to be replaced.
    pub async fn kill(mut self, sidecar: &mut Sidecar) -> Result<(), SessionError> {
        let killed = sidecar.kill_engine(self.pid).await;
        // Its memory, a device's perhaps, is free once its end of the channel is closed.
        let gone = async { while let Ok(Some(_)) = self.channel.receive::<serde_json::Value>().await {} };
        let _ = timeout(EXIT_LIMIT, gone).await;
        killed
    }

    /// For how long it had been loaded when this command came; `None` if it was loaded for it.
    pub fn reused_after_s(&self) -> Option<f64> {
        self.facts.other.get("reused")?.get("age_s")?.as_f64()
    }

    /// Empties the engine, and leaves it to whoever comes next. One that will not be emptied ends.
    pub async fn give_back(mut self) {
        let _ = self.ask("giving an engine back", &serde_json::json!({"op": "give_back"}), &[]).await;
    }

    /// Ends the engine process.
    pub async fn shutdown(mut self) {
        let left = async {
            // A process that is gone already cannot be told; that is what was wanted.
            let _ = self.channel.send(&serde_json::json!({"op": "shutdown"}), &[]).await;
            self.channel.receive::<FromEngine>().await
        };
        let _ = timeout(Duration::from_secs(10), left).await;
    }

    /// What vLLM would clamp, or trip over inside a step, is refused here.
    fn check_requests(&self, requests: &[RequestSpec]) -> Result<(), SessionError> {
        let (max_model_len, vocab_size) = (self.facts.max_model_len, self.facts.vocab_size);
        if requests.len() > REQUEST_CAPACITY as usize {
            let given = requests.len();
            return Err(SessionError::Refused(format!("{given} requests in one run; at most {REQUEST_CAPACITY} fit")));
        }
        for (handle, request) in requests.iter().enumerate() {
            let (prompt, output) = (request.prompt.len() as u64, u64::from(request.output_tokens));
            if prompt == 0 || output == 0 {
                return Err(SessionError::Refused(format!(
                    "request {handle} has {prompt} prompt and {output} output tokens; both must be at least 1"
                )));
            }
            if prompt + output > u64::from(max_model_len) {
                return Err(SessionError::Refused(format!(
                    "request {handle} asks for {prompt} prompt and {output} output tokens, together more than the engine's max_model_len {max_model_len}; vLLM would cut the output short"
                )));
            }
            if let Some(token) = request.prompt.iter().find(|token| **token >= vocab_size) {
                return Err(SessionError::Refused(format!(
                    "request {handle} has token id {token}, outside the vocabulary of {vocab_size} ids (0 to {})",
                    vocab_size - 1
                )));
            }
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        what: &str,
        message: &serde_json::Value,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply, SessionError> {
        self.ask_within(REPLY_LIMIT, what, message, fds).await
    }

    async fn ask_within(
        &mut self,
        limit: Duration,
        what: &str,
        message: &serde_json::Value,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply, SessionError> {
        let channel = &mut self.channel;
        let answer = async {
            // A failed send means a dead peer, and the read below says how it died.
            let _ = channel.send(message, fds).await;
            channel.receive().await
        };
        match while_it_works(self.pid, IDLE_LIMIT, limit, answer).await {
            Err(why) => Err(no_sign(PROCESS, what, why, &self.log)),
            Ok(received) => match received? {
                Some(FromEngine::Reply(Reply { error: Some(error), .. })) => Err(SessionError::Refused(error.message)),
                Some(FromEngine::Reply(reply)) => Ok(reply),
                Some(FromEngine::Failed { stage, kind, message }) => {
                    let hint = hint(&message);
                    Err(SessionError::EngineFailed { stage, kind, message, hint, log: self.log.clone() })
                }
                Some(other) => Err(SessionError::unexpected(&other, &format!("a reply to {what}"))),
                None => Err(SessionError::EngineDied {
                    how: format!("is gone (during {what})"),
                    log: self.log.clone(),
                    tail: super::log_tail(&self.log),
                }),
            },
        }
    }
}

/// A thread that takes records out of the event ring and forgets them.
struct Drain {
    thread: std::thread::JoinHandle<Result<Window, SessionError>>,
    stop: Arc<AtomicBool>,
}

impl Drain {
    fn start(mut window: Window, placement: Placement) -> Result<Drain, SessionError> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::Builder::new().spawn(move || {
            // Not bound, it only disturbs more: the comparison still holds.
            let _ = placement.seat_recorder();
            // Partner: the store in `stop`. Nothing is read through it: relaxed is enough.
            while !asked.load(Ordering::Relaxed) {
                window.events.pop(1_000)?;
            }
            Ok(window)
        });
        let thread = thread.map_err(SessionError::io("starting the draining thread"))?;
        Ok(Drain { thread, stop })
    }

    fn stop(self) -> Result<Window, SessionError> {
        self.stop.store(true, Ordering::Relaxed); // partner: the load in the thread
        let lost = |_| SessionError::Protocol("the draining thread is gone".to_owned());
        self.thread.join().map_err(lost)?
    }
}

/// The prompts one after the other, as 32-bit token ids in sealed memory.
fn prompts_memory(requests: &[RequestSpec]) -> Result<OwnedFd, SessionError> {
    let tokens: Vec<u32> = requests.iter().flat_map(|request| request.prompt.iter().copied()).collect();
    let bytes: &[u8] = bytemuck::cast_slice(&tokens);
    let fd = sealed_memory("bench-prompts", bytes.len().max(4), |fd| {
        let mut written = 0;
        while written < bytes.len() {
            written += nix::sys::uio::pwrite(fd, &bytes[written..], written as i64)
                .map_err(|source| RingError::System { what: "writing the prompts", source })?;
        }
        Ok(())
    })?;
    Ok(fd)
}

/// What to do about a failure that has a known cause.
fn hint(message: &str) -> String {
    let advice = if message.contains("KV cache") && message.contains("max") {
        "give the KV cache more room (--kv-cache-memory-bytes) or lower --max-model-len"
    } else if message.contains("Available memory") {
        "free memory, or give --kv-cache-memory-bytes in args"
    } else {
        return String::new();
    };
    format!("\n  what to do: {advice}")
}

/// Why the answer of `who` was not waited for any longer.
pub(super) fn no_sign(who: &'static str, what: &str, why: NoAnswer, log: &std::path::Path) -> SessionError {
    let (what, log) = (what.to_owned(), log.to_owned());
    match why {
        NoAnswer::Idle(idle_for) => SessionError::Idle { what, who, idle_for, log },
        NoAnswer::TooLong(limit) => SessionError::Timeout { what, limit, log },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn message_to_an_engine_that_does_not_read_is_limited_as_its_answer_is() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let facts = serde_json::json!({
            "vllm_version": null, "prefix_block_size": null, "max_model_len": 8, "vocab_size": 8, "num_kv_blocks": null,
            "async_scheduling": false, "prefix_caching": false, "max_num_seqs": 1, "max_num_batched_tokens": 8, "other": {}
        });
        let mut engine = Engine {
            channel: Channel::from_std(ours).unwrap(),
            pid: std::process::id(),
            facts: serde_json::from_value(facts).unwrap(),
            warnings: Vec::new(),
            load_s: 0.0,
            pace: Pace::default(),
            window: None,
            log: "log".into(),
            _rings: Rings::create(false).unwrap(),
        };
        let message = serde_json::json!({"op": "stage", "salt": "x".repeat(4 << 20)});
        let asked = engine.ask_within(Duration::ZERO, "the staging of requests", &message, &[]);
        let answer = timeout(Duration::from_secs(20), asked).await.expect("an end");
        assert!(matches!(answer, Err(SessionError::Timeout { .. })), "{:?}", answer.err());
    }
}
