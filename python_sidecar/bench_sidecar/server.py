"""The fork server: imports vLLM once, where it is asked for, and forks an engine process for every load."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import ModuleType

from . import __version__, control, protocol
from .control import Channel, ControlError, Message
from .ring import RingError, load_library


class ForkServer:
    """Serves one harness until it asks for the end or goes away. No engine process outlives it."""

    def __init__(self, channel: Channel, listener: socket.socket, library: ModuleType, with_vllm: bool) -> None:
        self.with_vllm = with_vllm
        self.channel = channel
        self.listener = listener
        self.library = library
        self.children: set[int] = set()
        self.vllm_version: str | None = None
        self.import_s = 0.0

    def serve(self) -> None:
        """Imports vLLM if it is to, says hello, and answers until the harness closes its end."""
        if self.with_vllm:
            self._import_vllm()
        self.channel.send({"event": "hello", **self.hello()})
        wake = self._wake_on_child()
        while True:
            ready, _, _ = select.select([self.channel.connection, wake], [], [])
            if wake in ready:
                wake.recv(4096)
                self._reap()
            if self.channel.connection in ready:
                received = self.channel.receive()
                if received is None or not self._answer(*received):
                    return

    def _import_vllm(self) -> None:
        started = time.monotonic()
        with leaving_with(self.channel.connection):
            from . import engine

            engine.preload()
        self.vllm_version = engine.vllm_version()
        self.import_s = time.monotonic() - started

    def hello(self) -> Message:
        """What the harness has to know before it relies on this process."""
        return {
            "abi_version": protocol.ABI_VERSION,
            "sidecar_version": __version__,
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "vllm_version": self.vllm_version,
            "import_s": self.import_s,
        }

    def stop_engines(self) -> None:
        """Kills what is left of the engine processes, and waits for them."""
        for pid in list(self.children):
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        """Kills an engine process and waits for its end; one that has been waited for is no child any more."""
        if pid in self.children:
            os.kill(pid, signal.SIGKILL)  # a child that has ended stays until it is waited for
            os.waitpid(pid, 0)
            self.children.discard(pid)

    def _answer(self, message: Message, fds: list[int]) -> bool:
        """Carries out one message; False when it was the last."""
        operation = message.get("op")
        if operation == "shutdown":
            return False
        if operation == "check":
            from . import engine

            self.channel.send({"event": "reply", "to": "check", "error": engine.check_arguments(message["argv"])})
        elif operation == "load":
            self._load(message, fds)
        elif operation == "kill":
            self._kill(message["pid"])
            self.channel.send({"event": "reply", "to": "kill"})
        else:
            error = {"message": f"unknown operation {operation!r}"}
            self.channel.send({"event": "reply", "to": str(operation), "error": error})
        return True

    def _load(self, message: Message, fds: list[int]) -> None:
        """Forks an engine process that owns `fds`: its channel, two rings, two wake-ups."""
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_engine(message, fds, parent)
        for fd in fds:
            os.close(fd)
        self.children.add(pid)
        self.channel.send({"event": "reply", "to": "load", "pid": pid})

    def _become_engine(self, message: Message, fds: list[int], parent: int) -> None:
        """In the child: never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.library.die_with_parent(signal.SIGKILL)
            if os.getppid() != parent:  # the server went away before the line above took effect
                os._exit(1)
            self.channel.connection.close()
            self.listener.close()
            from .driver import run_engine_process

            status = run_engine_process(message, fds, self.library)
        except BaseException:
            traceback.print_exc()  # nothing is above to do it
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

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
        for pid in list(self.children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done == 0:
                continue
            self.children.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            died = {"event": "exited", "pid": pid, "code": max(code, 0), "signal": max(-code, 0)}
            self.channel.send(died)


@contextlib.contextmanager
def leaving_with(connection: socket.socket) -> Iterator[None]:
    """Ends the process as soon as the other end closes, while the body, which takes long, does not look."""
    done = threading.Event()

    def watch() -> None:
        poll = select.poll()
        poll.register(connection, select.POLLRDHUP)
        while not done.is_set():
            if poll.poll(100):
                os._exit(0)

    watcher = threading.Thread(target=watch, name="watcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()  # a fork copies no other thread


def main(socket_path: str, library_path: str, with_vllm: bool = True) -> int:
    """Listens, serves one harness, and leaves nothing behind."""
    try:
        library = load_library(library_path)
        return _serve_one(control.listen(socket_path), library, with_vllm)
    except (ControlError, RingError) as err:
        print(f"bench: {err}", file=sys.stderr)
        return 1
    finally:
        # The folder too, where the socket is all it held: a harness that was killed cannot remove it.
        with contextlib.suppress(OSError):
            os.unlink(socket_path)
            os.rmdir(os.path.dirname(socket_path))


def _serve_one(listener: socket.socket, library: ModuleType, with_vllm: bool) -> int:
    server = ForkServer(control.accept(listener), listener, library, with_vllm)
    try:
        server.serve()
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the harness is gone; it has its own way of saying why
    finally:
        server.stop_engines()
    return 0
