"""The door of a sidecar: one holder at a time. A second one is told who that is; anyone of this user may ask how the
sidecar stands, or have it leave.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import control
from .control import Channel, ControlError, Message, Peer

# How often a sidecar that nobody has connected to yet looks whether the process that started it still lives.
PARENT_LOOK_S = 0.1


@dataclass
class Holder:
    """The harness that has this sidecar."""

    channel: Channel
    pid: int
    command: list[str]
    since: float  # time.monotonic()

    def describe(self) -> Message:
        """For those who find the sidecar held."""
        return {"pid": self.pid, "command": self.command, "held_s": time.monotonic() - self.since}


class Door:
    """Answers whoever connects. `describe` gives what a sidecar says of itself besides; `harness` is the process that
    has started the sidecar, by itself or through another.
    """

    def __init__(self, listener: socket.socket, describe: Callable[[], Message], harness: int) -> None:
        self.listener = listener
        self.harness = harness
        self.started_by = os.getppid()
        self.describe = describe
        self.holder: Holder | None = None
        self.told_to_leave = False
        # How long the sidecar stays without a holder; None: it leaves with its holder.
        self.idle_limit_s: float | None = None
        # What the harness that started the sidecar had to say of it: told to others, and not understood here.
        self.about: Message = {}
        self._idle_since = time.monotonic()

    def wait_for_holder(self) -> None:
        """Waits for the harness that has started this sidecar. ControlError if it does not come, or has ended."""
        deadline = time.monotonic() + control.ACCEPT_LIMIT_S
        self.listener.settimeout(PARENT_LOOK_S)
        while self.holder is None and not self.told_to_leave:
            try:
                self.answer()
            except TimeoutError:
                if not self._is_harness_there():
                    raise ControlError("the harness that started this sidecar has ended before it connected") from None
                if time.monotonic() > deadline:
                    raise ControlError(f"no harness has connected within {control.ACCEPT_LIMIT_S} s") from None
        self.listener.settimeout(0)

    def answer(self) -> None:
        """Accepts one connection, and answers what it asks."""
        try:
            peer = control.accept(self.listener)
        except BlockingIOError:  # it has gone again
            return
        if peer is None:
            return
        peer.channel.connection.settimeout(control.MESSAGE_LIMIT_S)
        stays = False
        try:
            received = peer.channel.receive()
            stays = received is not None and self._answer(peer, received[0])
        except (OSError, ControlError):
            pass  # whoever it was is gone, or speaks another language
        finally:
            if not stays:
                peer.channel.connection.close()

    def close(self) -> None:
        """The holder has gone."""
        if self.holder is not None:
            self.holder.channel.connection.close()
            self.holder = None
        self._idle_since = time.monotonic()

    def is_to_leave(self) -> bool:
        """Whether nobody holds the sidecar and nobody is waited for any more."""
        left_s = self.idle_s_left()
        return self.told_to_leave or (left_s == 0)

    def idle_s_left(self) -> float | None:
        """For how long the sidecar still waits for the next holder; None while it has one."""
        if self.holder is not None:
            return None
        return max((self.idle_limit_s or 0) - (time.monotonic() - self._idle_since), 0)

    @contextlib.contextmanager
    def kept_by_a_thread(self, leave: Callable[[], None]) -> Iterator[None]:
        """Answers in a thread while the body, which takes long, does not look. Calls `leave` there as soon as the
        holder has gone, or somebody has the sidecar leave.
        """
        assert self.holder is not None
        done = threading.Event()
        poll = select.poll()
        poll.register(self.holder.channel.connection, select.POLLRDHUP)
        poll.register(self.listener, select.POLLIN)
        holder_fd = self.holder.channel.connection.fileno()

        def watch() -> None:
            while not done.is_set():
                for fd, _ in poll.poll(100):
                    if fd != holder_fd:
                        self.answer()
                    if fd == holder_fd or self.told_to_leave:
                        leave()

        watcher = threading.Thread(target=watch, name="watcher", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()  # a fork copies no other thread

    def _is_harness_there(self) -> bool:
        """Whether the harness lives. What stands between it and this process, a profiler perhaps, has to live, too."""
        try:
            os.kill(self.harness, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # of another user by now, but there
        return os.getppid() == self.started_by

    def _answer(self, peer: Peer, message: Message) -> bool:
        """Carries out one message; True if the peer is the new holder."""
        operation = message.get("op")
        if operation == "hold" and self.holder is None:
            self._hold(peer, message)
            return True
        if operation == "hold":
            assert self.holder is not None
            peer.channel.send({"event": "busy", **self.holder.describe()})
        elif operation == "status":
            peer.channel.send(self._status())
        elif operation == "leave" and self.holder is not None and not message.get("force"):
            peer.channel.send({"event": "busy", **self.holder.describe()})
        elif operation == "leave":
            self.told_to_leave = True
            peer.channel.send({"event": "leaving", "pid": os.getpid()})
        else:
            error = {"message": f"unknown operation {operation!r}"}
            peer.channel.send({"event": "reply", "to": str(operation), "error": error})
        return False

    def _hold(self, peer: Peer, message: Message) -> None:
        peer.channel.connection.settimeout(None)
        self.holder = Holder(peer.channel, peer.pid, message.get("command", []), time.monotonic())
        self.about = self.about or message.get("about", {})
        if message.get("keep_s") is not None:
            self.idle_limit_s = message["keep_s"]

    def _status(self) -> Message:
        return {
            "event": "status",
            "pid": os.getpid(),
            "about": self.about,
            "holder": self.holder.describe() if self.holder is not None else None,
            "idle_s": time.monotonic() - self._idle_since if self.holder is None else None,
            "idle_limit_s": self.idle_limit_s,
            **self.describe(),
        }
