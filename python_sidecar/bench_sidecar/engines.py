"""The engine processes of a fork server: how each begins, is handed over from holder to holder, and ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from . import log
from .control import MESSAGE_LIMIT_S, Channel, ControlError, Message

# What of a load belongs to the holder, and not to the engine.
OF_HOLDER = ("op", "truth")
# How long an engine that nobody holds may take to leave before it is killed.
LEAVE_LIMIT_S = 10
# Device nodes that a process opens when it begins to use the device: not those of NVIDIA's management library.
DEVICE_NODES = ("/dev/nvidia-uvm", "/dev/accel", "/dev/vfio/")


class EngineProcess:
    """A process with one engine, and the line on which it is given its holders."""

    def __init__(self, pid: int, line: Channel, message: Message) -> None:
        self.pid = pid
        self.line = line
        self.key = key_of(message)
        self.loaded = time.monotonic()
        self.is_free = False

    def hand_over(self, message: Message, fds: Sequence[int]) -> bool:
        """Gives the engine to a holder, who owns the other ends of `fds`. False if the process is gone."""
        self.is_free = False
        try:
            self.line.send(message, fds)
        except OSError:
            return False
        return True

    def take_word(self) -> None:
        """The engine says that its holder has given it back; or it has ended, which the server hears in another way."""
        with contextlib.suppress(OSError, ControlError):
            received = self.line.receive()
            self.is_free = received is not None and received[0].get("event") == "free"

    def end(self) -> None:
        """Has a free engine leave, and kills it if it does not. Whatever it holds of the device is free then."""
        self.line.connection.close()
        deadline = time.monotonic() + LEAVE_LIMIT_S
        while self.reap(is_awaited=False) is None:
            if time.monotonic() > deadline:
                self.kill()
                self.reap(is_awaited=True)
                return
            time.sleep(0.005)

    def kill(self) -> None:
        """Kills the process, whatever it does. It is a child that was not waited for, so its number is its own."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def reap(self, is_awaited: bool) -> int | None:
        """The status with which the process has ended; None while it lives. What it has left behind ends with it: the
        worker of a rank that waits for another one, which was killed, never hears of its parent's end, and would take
        a core for ever.
        """
        options = os.WEXITED | os.WNOWAIT | (0 if is_awaited else os.WNOHANG)
        try:
            if os.waitid(os.P_PID, self.pid, options) is None:
                return None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # not waited for yet, so that the group's number is its own
            return os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            return 0

    def describe(self) -> Message:
        """For those who ask what is loaded."""
        return {"pid": self.pid, "key": self.key, "loaded_s": time.monotonic() - self.loaded, "is_free": self.is_free}


def key_of(message: Message) -> Message:
    """What an engine is loaded with: two loads with the same are the same engine."""
    return {name: value for name, value in message.items() if name not in OF_HOLDER}


def begin(message: Message, library: ModuleType, leave_behind: Callable[[], None]) -> tuple[EngineProcess, str | None]:
    """A new engine process: forked, or a fresh one with the reason why not. `leave_behind` closes in a forked process
    every descriptor that belongs to the server.
    """
    ours, theirs = socket.socketpair()
    ours.settimeout(MESSAGE_LIMIT_S)
    log.flush()
    why = why_not_fork()
    if why is not None:
        pid = _start_fresh(theirs)
    else:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:

            def leave() -> None:
                leave_behind()
                ours.close()

            become_engine(theirs, library, parent, leave)
    theirs.close()
    return EngineProcess(pid, Channel(ours), message), why


def why_not_fork() -> str | None:
    """What this process has that a fork would not survive; None if it may be forked."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "importing vLLM has initialised CUDA, and a forked process cannot use it"
    bridge: Any = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        return "importing vLLM has initialised JAX, whose threads a forked process does not have"
    node = _open_device_node()
    if node is not None:
        return f"importing vLLM has opened {node}, and a device belongs to one process"
    if (threads := _threads_after_a_fork()) > 1:
        return f"importing vLLM has left {threads - 1} threads running that a forked process would not have"
    return None


def _threads_after_a_fork() -> int:
    """Threads that this process still has when it has forked: pools of numerical libraries, which heed forks, have
    ended theirs then, and begin them anew when they are used.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        threads = len(os.listdir("/proc/self/task"))
    return threads


def _open_device_node() -> str | None:
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            path = os.readlink(link)
            if path.startswith(DEVICE_NODES):
                return path
    return None


def _start_fresh(line: socket.socket) -> int:
    """The program that this process runs, once more, as an engine process."""
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    fd = line.fileno()
    engine = ["--engine", str(fd), "--parent", str(os.getpid())]
    process = subprocess.Popen([sys.executable, *program, *sys.argv[1:], *engine], pass_fds=[fd])
    process.returncode = 0  # the server itself waits for its children
    return process.pid


def become_engine(
    line: socket.socket, library: ModuleType, parent: int, leave_behind: Callable[[], None] = lambda: None
) -> NoReturn:
    """Runs an engine process, forked or fresh, to its end. A forked process calls `leave_behind` first."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        leave_behind()
        os.setpgid(0, 0)  # a group with all that it starts, see EngineProcess.reap
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # As in the server. What this process starts ignores them, too, unless it says otherwise.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        library.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:  # the server went away before the line above took effect
            os._exit(1)
        from .driver import run_engine_process

        status = run_engine_process(Channel(line), library)
    except BaseException:
        log.say_traceback()  # nothing is above to do it
    finally:
        log.flush()
        os._exit(status)
