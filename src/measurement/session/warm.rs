//! Warm sidecars: those that outlive the command that has started them. Each has a folder in a registry that belongs to this
//! user alone, with its socket and a lock that it holds while it lives.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, getsockopt, sockopt::PeerCredentials};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::channel::parse;
use super::sidecar::Hello;
use super::{SessionError, SidecarOptions, folder, variables};
use crate::base::bounded_file::open_own_file;
use crate::base::owned_folder::{self, Kind, is_temporary_name, open_private};
use crate::base::printable::printable;
use crate::machine::device::DeviceClass;
use crate::machine::environment::Host;

/// How long a sidecar may take to say how it stands.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a sidecar may take to leave when it is told to.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);
/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// A folder without a lock is being made, or was left by a command that died over it: by its age.
const MAKING_LIMIT: Duration = Duration::from_secs(60);
/// Logs of sidecars that are kept, whatever became of those.
const KEPT_LOGS: usize = 20;
pub(super) const SOCKET: &str = "control";
pub(super) const LOCK: &str = "lock";
const NEW_LOCK: &str = "lock.new";
/// Everything that is put into a sidecar's folder.
const KNOWN: [(&str, Kind); 3] = [(SOCKET, Kind::Socket), (LOCK, Kind::File), (NEW_LOCK, Kind::File)];

/// Where the warm sidecars of this user are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    folder: PathBuf,
    logs: PathBuf,
}

impl Registry {
    /// Below `$XDG_RUNTIME_DIR`; without it in the cache folder, by the host's name: other hosts may share that. Logs are kept in
    /// the cache folder, where they outlast the sidecar.
    pub fn of(host: &Host, cache: &Path) -> Registry {
        let runtime = host.runtime_dir();
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let below_cache = || cache.join("sidecars").join(name.trim());
        let folder = runtime.map_or_else(below_cache, |runtime| runtime.join("bench"));
        Registry { folder, logs: cache.join("logs") }
    }

    /// All that live, those that nobody holds first, by name. What dead ones have left is taken away.
    ///
    /// # Errors
    /// The registry cannot be read, or is open to others.
    pub fn list(&self) -> Result<Vec<WarmSidecar>, SessionError> {
        folder::clear_abandoned();
        let failed = || SessionError::io(format!("cannot read {}", self.folder.display()));
        match fs::symlink_metadata(&self.folder) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            status => status.map_err(failed())?,
        };
        self.check_private()?;
        let names = open_private(&self.folder).and_then(|folder| owned_folder::names(&folder)).map_err(failed())?;
        let folders = names.iter().filter(|name| is_of_sidecar(name)).map(|name| self.folder.join(name));
        let mut found: Vec<WarmSidecar> =
            folders.filter(|folder| !clear_if_dead(folder)).map(WarmSidecar::look_at).collect();
        found.sort_by(|one, other| (one.holder().is_some(), &one.id).cmp(&(other.holder().is_some(), &other.id)));
        Ok(found)
    }

    /// A folder for a new sidecar, with a lock that shows that it is in use, and the path of its log.
    pub(super) fn new_folder(&self, device: DeviceClass) -> Result<(tempfile::TempDir, File, PathBuf), SessionError> {
        let failed = |path: &Path| SessionError::io(format!("cannot make a folder in {}", path.display()));
        owned_folder::make(&self.folder).map_err(failed(&self.folder))?;
        self.check_private()?;
        owned_folder::make(&self.logs).map_err(failed(&self.logs))?;
        self.drop_old_logs();
        let prefix = format!("{device}-");
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(&prefix).rand_bytes(6).permissions(fs::Permissions::from_mode(0o700));
        let folder = builder.tempdir_in(&self.folder).map_err(failed(&self.folder))?;
        let lock = new_lock(folder.path()).map_err(SessionError::io("locking the sidecar's folder"))?;
        let log = self.logs.join(format!("sidecar-{}.log", id_of(folder.path())));
        Ok((folder, lock, log))
    }

    /// Removes all but the newest logs. One that cannot be removed costs room, no more.
    fn drop_old_logs(&self) {
        let Ok(entries) = fs::read_dir(&self.logs) else { return };
        let modified = |entry: fs::DirEntry| {
            let (name, status) = (entry.file_name(), entry.metadata().ok()?); // of a link itself
            let id = name.to_str()?.strip_prefix("sidecar-")?.strip_suffix(".log")?;
            let is_ours = is_of_sidecar(OsStr::new(id)) && status.is_file() && owned_folder::is_own(&status);
            Some((status.modified().ok().filter(|_| is_ours)?, entry.path()))
        };
        let mut logs: Vec<(SystemTime, PathBuf)> = entries.flatten().filter_map(modified).collect();
        logs.sort_unstable();
        for (_, path) in logs.iter().take(logs.len().saturating_sub(KEPT_LOGS)) {
            let _ = fs::remove_file(path);
        }
    }

    /// Others could put a socket of their own into an open folder.
    fn check_private(&self) -> Result<(), SessionError> {
        let folder = &self.folder;
        let status =
            fs::symlink_metadata(folder).map_err(SessionError::io(format!("cannot read {}", folder.display())))?;
        let own = nix::unistd::getuid().as_raw();
        if status.is_dir() && status.uid() == own && status.mode() & 0o077 == 0 {
            return Ok(());
        }
        Err(SessionError::NotPrivate { folder: folder.clone(), owner: status.uid(), mode: status.mode() & 0o777 })
    }
}

/// The lock appears under its name only when it is held, so that nobody takes the folder for a dead one's.
fn new_lock(folder: &Path) -> io::Result<File> {
    let new = folder.join(NEW_LOCK);
    let lock = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
    lock.lock_shared()?;
    fs::rename(&new, folder.join(LOCK))?;
    Ok(lock)
}

/// Whether no sidecar uses a folder. One that is a dead sidecar's, and holds nothing else, is taken away.
fn clear_if_dead(folder: &Path) -> bool {
    let (Some(registry), Some(name)) = (folder.parent(), folder.file_name()) else { return false };
    let Ok(registry) = open_private(registry) else { return false };
    let Ok(opened) = open_private(&owned_folder::entry(&registry, name)) else { return false };
    let is_dead = match open_own_file(&owned_folder::entry(&opened, OsStr::new(LOCK)), File::options().read(true)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) if !is_no_lock(&error) => false,
        Err(_) => {
            let made = opened.metadata().and_then(|status| status.modified());
            made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > MAKING_LIMIT))
        }
    };
    if is_dead {
        // A folder with unknown files stays. It is listed no more: no process holds its lock.
        let _ = owned_folder::remove_known(&registry, name, &KNOWN);
    }
    is_dead
}

/// Whether the opening of a lock failed because there is none, or something else in its place. Any other failure, as of too
/// many open files, says nothing of the sidecar.
fn is_no_lock(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput)
        || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) // a link, a socket
}

/// The one process of which a file of this user is open, beside this process.
fn process_that_holds(file: &Path) -> io::Result<i32> {
    let file = fs::symlink_metadata(file)?;
    let is_open_in = |process: &Path| {
        // Processes of other users do not say.
        let mut descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        descriptors.any(|descriptor| {
            let open = fs::metadata(descriptor.path());
            open.is_ok_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
        })
    };
    let own = std::process::id().cast_signed();
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let holders: Vec<i32> =
        pids.filter(|pid| *pid != own && is_open_in(&Path::new("/proc").join(pid.to_string()))).collect();
    match holders[..] {
        [pid] => Ok(pid),
        _ => Err(io::Error::other(format!("{} processes hold its lock, and none of them answers", holders.len()))),
    }
}

/// Whether a folder of this name is a sidecar's: a device class and what [`Registry::new_folder`] puts behind it.
fn is_of_sidecar(name: &OsStr) -> bool {
    DeviceClass::ALL.iter().any(|device| is_temporary_name(name, &format!("{device}-")))
}

/// The name of the sidecar in a folder.
pub(super) fn id_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A sidecar in the registry that lives.
#[derive(Clone, Debug)]
pub struct WarmSidecar {
    /// Its name: that of its folder.
    pub id: String,
    folder: PathBuf,
    /// How it stands; or why it did not say.
    pub status: Result<Status, String>,
}

/// How a sidecar stands, in its own words. Times are seconds until now.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// Process id of the fork server.
    pub pid: u32,
    /// What the command that has started it said of it; `None` while that has not happened.
    #[serde(deserialize_with = "empty_as_none")]
    pub about: Option<About>,
    /// Who measures with it.
    pub holder: Option<Holder>,
    /// How long nobody has.
    pub idle_s: Option<f64>,
    /// How long it waits for somebody; `None`: it leaves with its holder.
    pub idle_limit_s: Option<f64>,
    /// What it says of itself; `None` while it imports vLLM.
    pub hello: Option<Hello>,
    /// Whether it has vLLM; without it only scripted engines can be loaded.
    pub with_vllm: bool,
    /// When packages were last installed into each folder of Python's, in nanoseconds since 1970.
    packages: BTreeMap<PathBuf, u64>,
    /// How long it has lived.
    pub age_s: f64,
    /// The engine that it has loaded.
    pub engine: Option<LoadedEngine>,
}

/// What the command that started a sidecar knew of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct About {
    /// The class of its engines.
    pub device: DeviceClass,
    /// Its interpreter.
    #[serde(serialize_with = "crate::base::printable::serialize_path")]
    pub python: PathBuf,
    /// Version of vLLM's package as Python's metadata have it.
    pub vllm_package: Option<String>,
    /// The folder of the package `bench_sidecar`, which has the build in its name.
    #[serde(serialize_with = "crate::base::printable::serialize_path")]
    pub package: PathBuf,
    /// Where its output goes.
    #[serde(serialize_with = "crate::base::printable::serialize_path")]
    pub log: PathBuf,
    /// Its environment: see [`variables::digests`].
    pub(super) variables: BTreeMap<String, String>,
}

/// The command that has a sidecar.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its command line.
    pub command: Vec<String>,
    /// For how long it has the sidecar, in seconds.
    pub held_s: f64,
}

/// An engine in a sidecar.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LoadedEngine {
    /// Its process.
    pub pid: u32,
    /// What it was loaded with.
    pub key: serde_json::Value,
    /// How long ago, in seconds.
    pub loaded_s: f64,
    /// Whether its holder has given it back.
    pub is_free: bool,
}

impl Status {
    /// The first folder of Python's packages that is not as it was.
    fn changed_packages(&self) -> Option<&Path> {
        let modified_ns = |folder: &Path| {
            let modified = fs::metadata(folder).ok()?.modified().ok()?;
            u64::try_from(modified.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos()).ok()
        };
        let changed = self.packages.iter().find(|(folder, seen)| modified_ns(folder) != Some(**seen));
        changed.map(|(folder, _)| folder.as_path())
    }
}

impl Holder {
    /// Its command line, as a shell would take it; control characters are escaped.
    pub fn command_line(&self) -> String {
        let line = shlex::try_join(self.command.iter().map(String::as_str)).unwrap_or_else(|_| self.command.join(" "));
        printable(&line).into_owned()
    }
}

fn empty_as_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<About>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
    if is_empty { Ok(None) } else { serde_json::from_value(value).map(Some).map_err(serde::de::Error::custom) }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Answer {
    Hello(Hello),
    Busy(Holder),
    Status(Box<Status>),
    Leaving {},
}

impl Answer {
    /// What to say of an answer to another question.
    fn unexpected(&self, instead_of: &str) -> String {
        SessionError::unexpected(self, instead_of).to_string()
    }
}

/// What came of an attempt to have a sidecar.
pub(super) enum Held {
    /// This process holds it.
    Ours(UnixStream, Hello),
    /// Another one does.
    Busy(Holder),
    /// It has gone.
    Gone(String),
}

/// What came of telling a sidecar to leave.
#[derive(Debug)]
pub enum Stopped {
    /// It has left.
    Left,
    /// It was killed, because it did not answer or leave.
    Killed,
    /// A command measures with it.
    Busy(Holder),
    /// It does not answer.
    Silent(String),
}

impl WarmSidecar {
    fn look_at(folder: PathBuf) -> WarmSidecar {
        let asked = ask(&folder, &serde_json::json!({"op": "status"}));
        let status = match asked {
            Ok((_, Answer::Status(status))) => Ok(*status),
            Ok((_, other)) => Err(other.unexpected("its status")),
            Err(err) => Err(format!("it does not answer: {err}")),
        };
        WarmSidecar { id: id_of(&folder), folder, status }
    }

    /// The command that has it, if it says so.
    pub(super) fn holder(&self) -> Option<&Holder> {
        self.status.as_ref().ok()?.holder.as_ref()
    }

    /// Whether a command with these options could be meant.
    pub(super) fn is_of(&self, options: &SidecarOptions) -> bool {
        let about = |status: &Status| status.about.as_ref().map(|about| (about.device, status.with_vllm));
        match &self.status {
            Ok(status) => about(status).is_none_or(|of| of == (options.device, options.with_vllm)),
            Err(_) => self.id.starts_with(&format!("{}-", options.device)),
        }
    }

    /// Why a command with these options cannot use it; `None` if it can.
    pub(super) fn misfit(&self, options: &SidecarOptions) -> Option<String> {
        let status = match &self.status {
            Ok(status) => status,
            Err(why) => return Some(why.clone()),
        };
        let Some(about) = &status.about else { return Some("it is being started".to_owned()) };
        if about.package != options.package {
            return Some("it is of another build of bench".to_owned());
        }
        if about.python != options.python {
            let (its, ours) = (about.python.display(), options.python.display());
            return Some(format!("its Python is {its}, and this command's {ours}"));
        }
        if let Some(folder) = status.changed_packages() {
            return Some(format!("packages in {} have changed since it was started", folder.display()));
        }
        variables::difference(&about.variables, &variables::digests(options))
    }

    /// Whether nothing was installed into or removed from its Python's folders since it began.
    pub fn has_same_packages(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| status.changed_packages().is_none())
    }

    /// Becomes its holder.
    pub(super) fn hold(&self, message: &serde_json::Value) -> Held {
        match ask(&self.folder, message) {
            Ok((stream, Answer::Hello(hello))) => Held::Ours(stream, hello),
            Ok((_, Answer::Busy(holder))) => Held::Busy(holder),
            Ok((_, other)) => Held::Gone(other.unexpected("a hello")),
            Err(err) => Held::Gone(format!("it does not answer: {err}")),
        }
    }

    /// Has it leave, and waits until it has. `force`: also one that a command measures with, or that does not answer, which is
    /// killed.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn stop(&self, force: bool) -> Result<Stopped, SessionError> {
        let silent = match ask(&self.folder, &serde_json::json!({"op": "leave", "force": force})) {
            Ok((_, Answer::Busy(holder))) => return Ok(Stopped::Busy(holder)),
            Ok((_, Answer::Leaving {})) if self.is_gone_within(LEAVE_LIMIT) => return Ok(Stopped::Left),
            Ok(_) => format!("it was told to leave and is still there after {} s", LEAVE_LIMIT.as_secs()),
            Err(_) if clear_if_dead(&self.folder) => return Ok(Stopped::Left),
            Err(err) => err.to_string(),
        };
        if !force {
            return Ok(Stopped::Silent(silent));
        }
        self.kill().map_err(SessionError::io(format!("cannot kill the sidecar {}", self.id)))?;
        self.is_gone_within(LEAVE_LIMIT);
        Ok(Stopped::Killed)
    }

    /// Kills the process that listens here, and no other. Its number is the kernel's word; it still is that process after its
    /// descriptor was opened if its lock is held then. One whose queue of connections is full is known by its lock.
    fn kill(&self) -> io::Result<()> {
        let pid = match connect(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => process_that_holds(&self.folder.join(LOCK))?,
            connected => peer(&connected?)?,
        };
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("it runs in another process namespace"))?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        if clear_if_dead(&self.folder) {
            return Ok(());
        }
        Ok(pidfd_send_signal(process, Signal::KILL)?)
    }

    fn is_gone_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.folder.exists() && !clear_if_dead(&self.folder) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// Through a descriptor of the folder: the name of a socket is short, and the path of a folder may not be. Never waits: a
/// stopped sidecar with a full queue of connections is an error.
pub(super) fn connect(folder: &Path) -> io::Result<UnixStream> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let folder = OpenOptions::new().read(true).custom_flags(flags.bits()).open(folder)?;
    let address = UnixAddr::new(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).as_str())?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The process at the other end, which must be of this user.
pub(super) fn peer(stream: &UnixStream) -> io::Result<i32> {
    let peer = getsockopt(stream, PeerCredentials)?;
    let own = nix::unistd::getuid().as_raw();
    if peer.uid() != own {
        return Err(io::Error::other(format!("the socket's peer has user id {}, not {own}", peer.uid())));
    }
    Ok(peer.pid())
}

fn ask(folder: &Path, message: &serde_json::Value) -> io::Result<(UnixStream, Answer)> {
    let mut stream = connect(folder)?;
    peer(&stream)?;
    let deadline = Instant::now() + ANSWER_LIMIT;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(format!("{message}\n").as_bytes())?;
    let mut line = Vec::new();
    let mut part = [0; 1 << 14];
    // Nothing follows the line before it is answered.
    while line.last() != Some(&b'\n') && line.len() < MAX_ANSWER_BYTES {
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        stream.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        match stream.read(&mut part)? {
            0 => break,
            read => line.extend_from_slice(&part[..read]),
        }
    }
    let answer = parse(&line).map_err(|err| io::Error::other(err.to_string()))?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok((stream, answer))
}

#[cfg(test)]
mod answers {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::Backlog;

    use super::*;

    /// What is said of a sidecar that answers so.
    fn answered(answer: Vec<u8>) -> Result<Answer, String> {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let sidecar = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(&answer); // who asks may have gone
        });
        let answer = ask(folder.path(), &serde_json::json!({"op": "status"}));
        sidecar.join().unwrap();
        answer.map(|(_, answer)| answer).map_err(|err| err.to_string())
    }

    #[test]
    fn hostile_answers_are_errors_of_a_bounded_length() {
        let long = format!("{{\"event\":\"{}\u{1b}[2J\"}}\n", "x".repeat(1 << 20));
        let wrong = "{\"event\":\"busy\",\"pid\":-1,\"command\":[],\"held_s\":0}\n".to_owned();
        for answer in ["[".repeat(200_000) + "\n", long, wrong, String::new(), "\n".to_owned()] {
            let said = answered(answer.into_bytes()).unwrap_err();
            assert!(said.len() < 1_000 && !said.contains('\u{1b}'), "{} bytes", said.len());
        }
        let huge = "{\"event\":\"busy\",\"pid\":7,\"command\":[\"\\u001b[2J\"],\"held_s\":1e308}\n";
        let Answer::Busy(holder) = answered(huge.into()).unwrap() else { panic!("another answer") };
        assert!(!holder.command_line().contains('\u{1b}'));
    }

    /// A sidecar that accepts no connections any more: its socket, and those that fill its queue.
    fn full_queue(folder: &Path) -> (OwnedFd, Vec<UnixStream>) {
        let listener = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        socket::bind(listener.as_raw_fd(), &UnixAddr::new(&folder.join(SOCKET)).unwrap()).unwrap();
        socket::listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let mut held = Vec::new();
        let full = (0..10).find_map(|_| connect(folder).map(|stream| held.push(stream)).err());
        assert_eq!(full.map(|err| err.kind()), Some(io::ErrorKind::WouldBlock));
        (listener, held)
    }

    #[test]
    fn a_sidecar_with_a_full_queue_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        full_queue(folder.path());
    }

    #[test]
    fn a_stopped_sidecar_with_a_full_queue_is_killed_by_force() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("registry/cpu-abcdef");
        owned_folder::make(&folder).unwrap();
        let lock = new_lock(&folder).unwrap();
        // Stands for the sidecar: it holds the lock.
        let mut sidecar = std::process::Command::new("sleep").arg("60").stdin(lock).spawn().unwrap();
        let _queue = full_queue(&folder);
        let found = WarmSidecar { id: id_of(&folder), folder: folder.clone(), status: Err("silent".to_owned()) };
        assert!(matches!(found.stop(false), Ok(Stopped::Silent(_))));
        found.kill().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&sidecar.wait().unwrap()), Some(9));
        assert!(clear_if_dead(&folder) && !folder.exists());
    }

    #[test]
    fn lock_that_cannot_be_opened_is_not_taken_for_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| open_own_file(&folder.path().join(name), File::options().read(true)).unwrap_err();
        fs::create_dir(folder.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("folder", folder.path().join("link")).unwrap();
        let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(["missing", "folder", "link", "socket"].map(open).iter().all(is_no_lock));
        let unknown = [libc::EMFILE, libc::ENFILE, libc::EACCES, libc::EIO, libc::ENOMEM];
        assert!(!unknown.map(io::Error::from_raw_os_error).iter().any(is_no_lock));
    }
}
