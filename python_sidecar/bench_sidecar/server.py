"""The fork server: imports vLLM once, where it is asked for, and has an engine process begin for every load.

It serves one holder at a time. One that is to be kept stays when its holder leaves, with the engine that was given back
to it.
"""

import contextlib
import fcntl
import math
import os
import select
import shutil
import signal
import site
import socket
import sys
import time
from types import ModuleType

from . import __version__, control, engines, log, messages, protocol
from .control import ControlError, Message, close_all
from .door import Door
from .engines import EngineProcess
from .ring import RingError, load_library

# The lock, beside the socket, that a sidecar holds while it lives.
LOCK_NAME = "lock"
# It looks whether it is to leave at least so often.
LONGEST_SLEEP_S = 3600


class ForkServer:
    """Serves one holder after the other. No engine process outlives it."""

    def __init__(
        self, socket_path: str, library: ModuleType, parent: int, with_vllm: bool, temporary: str | None = None
    ) -> None:
        self.socket_path = socket_path
        self.temporary = temporary
        self.with_vllm = with_vllm
        self.library = library
        self.lock = _lock(os.path.dirname(socket_path))
        self.door = Door(control.listen(socket_path), self.describe, parent)
        self.engines: dict[int, EngineProcess] = {}
        self.began = time.monotonic()
        self.vllm_version: str | None = None
        self.vllm_file: str | None = None
        self.import_s: float | None = None
        self.packages = _package_times()

    def serve(self) -> None:
        """Waits for the first holder, imports vLLM if it is to, and serves until nobody is to be served any more."""
        self._heed_signals()
        self.door.wait_for_holder()
        if self.with_vllm and not self.door.told_to_leave:
            self._import_vllm()
        self._say_hello()
        wake = self._wake_on_child()
        while not self.door.is_to_leave():
            self._take_turn(wake)

    def stop_engines(self) -> None:
        """Kills what is left of the engine processes, and waits for them."""
        for engine in self.engines.values():
            engine.kill()
        for engine in self.engines.values():
            engine.reap(is_awaited=True)
        self.engines.clear()

    def leave_nothing(self) -> None:
        """Takes away the socket and the temporary files, and their folders where nothing else is in them: a harness
        that was killed cannot do it.
        """
        folder = os.path.dirname(self.socket_path)
        with contextlib.suppress(OSError):
            os.unlink(self.socket_path)
            os.unlink(os.path.join(folder, LOCK_NAME))
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)  # follows no link
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(self.temporary))
        with contextlib.suppress(OSError):
            os.rmdir(folder)

    def hello(self) -> Message:
        """What the harness has to know before it relies on this process."""
        return {
            "abi_version": protocol.ABI_VERSION,
            "sidecar_version": __version__,
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "vllm_version": self.vllm_version,
            "vllm_file": self.vllm_file,
            "import_s": self.import_s or 0.0,
        }

    def describe(self) -> Message:
        """What of its state others may want to know."""
        engine = next(iter(self.engines.values()), None)
        is_ready = not self.with_vllm or self.import_s is not None
        return {
            "hello": self.hello() if is_ready else None,
            "with_vllm": self.with_vllm,
            "packages": self.packages,
            "age_s": time.monotonic() - self.began,
            "engine": engine.describe() if engine is not None else None,
        }

    def _heed_signals(self) -> None:
        """What reaches a whole session, job or control group is for the harness, which ends its sidecar: a run that
        goes on is finished. Without a holder SIGTERM means this process.
        """

        def terminate(*_: object) -> None:
            if self.door.holder is None:
                self.door.told_to_leave = True

        signal.signal(signal.SIGTERM, terminate)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _import_vllm(self) -> None:
        started = time.monotonic()
        with self.door.kept_by_a_thread(self._leave_now):
            from . import engine

            engine.preload()
        self.vllm_version, self.vllm_file = engine.vllm_version(), engine.vllm_file()
        self.import_s = time.monotonic() - started
        self.packages = _package_times()

    def _leave_now(self) -> None:
        """Ends the process in the middle of an import, from any thread."""
        self.leave_nothing()
        os._exit(0)

    def _say_hello(self) -> None:
        self._tell({"event": "hello", **self.hello()})

    def _tell(self, message: Message) -> None:
        """Says something to the holder, if there is one. One that has gone shows when its channel is read, and one that
        reads nothing loses what is said.
        """
        if self.door.holder is not None:
            with contextlib.suppress(OSError, ControlError):
                self.door.holder.channel.queue(message)

    def _take_turn(self, wake: socket.socket) -> None:
        """Waits until there is something to do, and does it."""
        lines = {engine.line.connection.fileno(): engine for engine in self.engines.values()}
        holder = self.door.holder
        holder_fd = holder.channel.connection.fileno() if holder is not None else -1
        poll = select.poll()
        self.door.register(poll)
        for fd in (wake.fileno(), *lines):
            poll.register(fd, select.POLLIN)
        if holder is not None:
            poll.register(holder_fd, select.POLLIN | (select.POLLOUT if holder.channel.has_more_to_send() else 0))
        limits_s = [limit for limit in (self.door.idle_s_left(), self.door.patience_s()) if limit is not None]
        limit_ms = math.ceil(min([*limits_s, LONGEST_SLEEP_S]) * 1000)  # `poll` takes no more than 24 days
        ready = {fd for fd, _ in poll.poll(limit_ms)}
        for fd in lines.keys() & ready:
            lines[fd].take_word()
        if wake.fileno() in ready:
            wake.recv(4096)
            self._reap()
        if holder_fd in ready:
            self._serve_holder()
        was_free = self.door.holder is None
        self.door.take(ready)
        if was_free and self.door.holder is not None:
            self._say_hello()

    def _serve_holder(self) -> None:
        """Carries out what the holder asks, who may have gone instead, or speak nonsense: then it has lost the sidecar,
        which goes on for the next one.
        """
        assert self.door.holder is not None
        channel = self.door.holder.channel
        try:
            channel.flush()
            received, is_open = channel.read_ready()
            for at, (message, fds) in enumerate(received):
                try:
                    messages.check(message, len(fds), messages.HOLDER)
                    self._answer_or_say_why_not(message, fds)
                except ControlError:
                    close_all([fd for _, of_message in received[at + 1 :] for fd in of_message])
                    raise
                finally:
                    close_all(fds)
        except ControlError as err:
            log.say(f"the holder is sent away: {err}")
            self._tell({"event": "reply", "to": "", "error": {"message": str(err)}})
            is_open = False
        except OSError:
            is_open = False
        if not is_open:
            self._let_holder_go()

    def _let_holder_go(self) -> None:
        # What it did not give back is of no use to anybody: nobody knows what is left in it.
        for engine in [engine for engine in self.engines.values() if not engine.is_free]:
            engine.kill()
            self._forget(engine)
        self.door.close()

    def _answer_or_say_why_not(self, message: Message, fds: list[int]) -> None:
        """A failure of any kind is the answer, and no reason for the sidecar to end."""
        try:
            self._answer(message, fds)
        except Exception as err:
            log.say_traceback()
            error = {"message": f"{type(err).__name__}: {err}"}
            self._tell({"event": "reply", "to": message["op"][:80], "error": error})

    def _answer(self, message: Message, fds: list[int]) -> None:
        operation = message["op"]
        if operation == "shutdown":
            self.door.told_to_leave = True
        elif operation == "check":
            self._tell({"event": "reply", "to": "check", **self._check(message["argv"])})
        elif operation == "load":
            self._tell({"event": "reply", "to": "load", **self._load(message, fds)})
        elif operation == "kill":
            self._kill(message["pid"])
            self._tell({"event": "reply", "to": "kill"})
        else:
            error = {"message": messages.unknown(operation)}
            self._tell({"event": "reply", "to": operation[:80], "error": error})

    def _check(self, argv: list[str]) -> Message:
        if not self.with_vllm:
            return {"error": {"message": "this sidecar has no vLLM to read the arguments: it loads scripted engines"}}
        try:
            from . import engine

            return engine.check_arguments(argv)
        except (Exception, SystemExit) as err:  # a parser that ends the program is no reason for this one to end
            return {"error": {"message": f"{type(err).__name__}: {err}"}}

    def _load(self, message: Message, fds: list[int]) -> Message:
        """Gives the holder the engine that it asks for: `fds` are its channel, two rings, two wake-ups. The reply."""
        free = next((engine for engine in self.engines.values() if engine.is_free), None)
        if free is not None and free.key == engines.key_of(message) and free.hand_over(message, fds):
            return {"pid": free.pid, "age_s": time.monotonic() - free.loaded}
        reply: Message = {}
        if free is not None:
            reply["replaced"] = free.key
            free.end()
            self._forget(free)
        try:
            engine, why_fresh = engines.begin(message, self.library, lambda: self._leave_behind(fds))
        except OSError as err:  # too many processes or descriptors
            return {"error": {"message": f"no engine process could be started: {err}"}}
        self.engines[engine.pid] = engine
        how = "forked" if why_fresh is None else "fresh"
        # One that is gone already shows as a child that has ended.
        engine.hand_over({**message, "process": how, "process_reason": why_fresh}, fds)
        return reply | {"pid": engine.pid}

    def _kill(self, pid: int) -> None:
        """Ends an engine process, whatever it does, and waits for that; one that has ended before is none any more."""
        if pid in self.engines:
            self.engines[pid].kill()
            self._forget(self.engines[pid])

    def _leave_behind(self, fds: list[int]) -> None:
        """In a forked engine process: closes the server's descriptors, and `fds` of the load, which come once more with
        the first holder.
        """
        self.door.leave_behind()
        os.close(self.lock)
        close_all(fds)
        for end in self._wake:
            end.close()
        for engine in self.engines.values():
            engine.line.connection.close()

    def _forget(self, engine: EngineProcess) -> None:
        engine.reap(is_awaited=True)
        engine.line.connection.close()
        del self.engines[engine.pid]

    def _wake_on_child(self) -> socket.socket:
        """A socket that becomes readable when a child has ended."""
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wake = (reader, writer)  # kept open: engines end after `serve` has returned, too
        return reader

    def _reap(self) -> None:
        for engine in list(self.engines.values()):
            status = engine.reap(is_awaited=False)
            if status is None:
                continue
            engine.line.connection.close()
            del self.engines[engine.pid]
            code = os.waitstatus_to_exitcode(status)
            self._tell({"event": "exited", "pid": engine.pid, "code": max(code, 0), "signal": max(-code, 0)})


def _lock(folder: str) -> int:
    """Says, for as long as this process lives, that the folder is in use. Shared: the harness that has made the folder
    holds it as well until it has heard from here; who wants to clear it away asks for it alone.
    """
    lock = os.open(os.path.join(folder, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def _package_times() -> dict[str, int]:
    """When something was last installed into or removed from the folders of Python's packages, in nanoseconds."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return {folder: os.stat(folder).st_mtime_ns for folder in folders if os.path.isdir(folder)}


def _wake_with_parent(library: ModuleType) -> None:
    """Has the kernel continue this process when the one that has started it ends: a stopped sidecar would never notice,
    and stay. It is not killed, so that it takes its folder away.
    """
    parent = os.getppid()
    library.die_with_parent(signal.SIGCONT)
    if os.getppid() != parent:  # it ended before the line above took effect
        os._exit(1)


def main(
    socket_path: str,
    library_path: str,
    parent: int,
    with_vllm: bool = True,
    is_kept: bool = False,
    temporary: str | None = None,
) -> int:
    """Listens, serves, and leaves nothing behind. One that `is_kept` may outlive the process that has started it;
    `temporary` is the folder of temporary files, which is removed.
    """
    try:
        library = load_library(library_path)
        if not is_kept:
            _wake_with_parent(library)
        server = ForkServer(socket_path, library, parent, with_vllm, temporary)
    except (ControlError, RingError, OSError) as err:
        log.say(str(err))
        return 1
    try:
        server.serve()
    except ControlError as err:
        log.say(str(err))
        return 1
    finally:
        server.stop_engines()
        server.leave_nothing()
    return 0
