"""The door of a sidecar: one holder at a time. A second process that wants to hold the sidecar is told who holds it.
Every process of this user may ask for the sidecar's status, or have the sidecar leave.

The door waits for no visitor. A visitor that sends no message, a part of one or an invalid one is sent away, and no
other visitor is delayed.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import control, messages
from .control import Channel, ControlError, Message, close_all

# How often a sidecar without a first holder checks that the process that started it lives, and a sidecar that imports
# vLLM checks that it still has to.
LOOK_MS = 100
# Visitors that have not sent all of their message, or not read all of the answer. The first visitor makes room.
MAX_VISITORS = 32


@dataclass
class Holder:
    """The harness that has this sidecar."""

    channel: Channel
    pid: int
    command: list[str]
    since: float  # time.monotonic()

    def describe(self) -> Message:
        """The holder, for a visitor that finds the sidecar held."""
        return {"pid": self.pid, "command": self.command, "held_s": time.monotonic() - self.since}


@dataclass
class Visitor:
    """A process of this user that has connected, to send one message."""

    channel: Channel
    pid: int
    deadline: float  # time.monotonic()
    is_answered: bool = False


class Door:
    """Answers every connection. `describe` gives the sidecar's part of `status`. `harness` is the process that has
    started the sidecar, by itself or through another process.
    """

    def __init__(self, listener: socket.socket, describe: Callable[[], Message], harness: int) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.visitors: list[Visitor] = []
        self.harness = harness
        self.started_by = os.getppid()
        self.describe = describe
        self.holder: Holder | None = None
        self.told_to_leave = False
        # How long the sidecar stays without a holder; None: it leaves with its holder.
        self.idle_limit_s: float | None = None
        # What the harness that started the sidecar says of it: passed on in `status`, and not read here.
        self.about: Message = {}
        self._idle_since = time.monotonic()

    def wait_for_holder(self) -> None:
        """Waits for the harness that has started this sidecar. ControlError if it does not come, or has ended."""
        deadline = time.monotonic() + control.ACCEPT_LIMIT_S
        while not self._is_called():
            poll = select.poll()
            self.register(poll)
            self.take({fd for fd, _ in poll.poll(LOOK_MS)})
            if self._is_called():
                return
            if not self._is_harness_there():
                raise ControlError("the harness that started this sidecar has ended before it connected")
            if time.monotonic() > deadline:
                raise ControlError(f"no harness has connected within {control.ACCEPT_LIMIT_S} s")

    def _is_called(self) -> bool:
        return self.holder is not None or self.told_to_leave

    def register(self, poll: select.poll) -> None:
        """Has `poll` wait for all at the door."""
        poll.register(self.listener, select.POLLIN)
        for visitor in self.visitors:
            poll.register(visitor.channel.connection, select.POLLOUT if visitor.is_answered else select.POLLIN)

    def patience_s(self) -> float | None:
        """How long the first of the visitors may still take; None without any."""
        left_s = (visitor.deadline - time.monotonic() for visitor in self.visitors)
        return max(min(left_s), 0) if self.visitors else None

    def take(self, ready: set[int]) -> None:
        """Accepts connections, answers visitors, and sends away every visitor whose time is over."""
        for visitor in list(self.visitors):
            if time.monotonic() > visitor.deadline:
                self._send_away(visitor)
            elif visitor.channel.connection.fileno() in ready:
                self._serve(visitor)
        if self.listener.fileno() in ready:
            self._let_in()

    def close(self) -> None:
        """The holder has gone."""
        if self.holder is not None:
            self.holder.channel.close()
            self.holder = None
        self._idle_since = time.monotonic()

    def leave_behind(self) -> None:
        """In a forked process: closes all that is the door's."""
        self.close()
        self.listener.close()
        for visitor in self.visitors:
            visitor.channel.close()

    def is_to_leave(self) -> bool:
        """Whether the sidecar has been told to leave, or has had no holder for its idle limit."""
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
        holder_fd = self.holder.channel.connection.fileno()

        def watch() -> None:
            while not done.is_set():
                poll = select.poll()
                poll.register(holder_fd, select.POLLRDHUP)
                self.register(poll)
                ready = {fd for fd, _ in poll.poll(LOOK_MS)}
                self.take(ready)
                if holder_fd in ready or self.told_to_leave:
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

    def _let_in(self) -> None:
        """Accepts waiting connections, at most MAX_ACCEPTED of them."""
        for _ in range(control.MAX_ACCEPTED):
            try:
                peer = control.accept(self.listener)
            except BlockingIOError:
                return
            except OSError:  # no descriptors are left, perhaps because visitors have them
                if not self.visitors:
                    time.sleep(LOOK_MS / 1000)
                    return
                self._send_away(self.visitors[0])
                continue
            if peer is None:
                continue
            peer.channel.connection.setblocking(False)
            peer.channel.max_line_bytes = control.MAX_VISITOR_BYTES
            visitor = Visitor(peer.channel, peer.pid, time.monotonic() + control.MESSAGE_LIMIT_S)
            self.visitors.append(visitor)
            self._serve(visitor)  # most visitors send their message as they connect
            if len(self.visitors) > MAX_VISITORS:
                self._send_away(self.visitors[0])

    def _serve(self, visitor: Visitor) -> None:
        """Reads and writes what can be read and written at once."""
        stays = False
        try:
            if visitor.is_answered:
                visitor.channel.flush()
                stays = visitor.channel.has_more_to_send()
            else:
                stays = self._listen(visitor)
        except (OSError, ControlError):
            pass  # the visitor has closed its end, or its message breaks the protocol
        if not stays:
            self._send_away(visitor)

    def _send_away(self, visitor: Visitor) -> None:
        if visitor in self.visitors:
            self.visitors.remove(visitor)
            visitor.channel.close()

    def _listen(self, visitor: Visitor) -> bool:
        """Answers the visitor's message, if all of it has come; False if nothing more is expected of the visitor."""
        received, is_open = visitor.channel.read_ready()
        if not received:
            return is_open
        message, fds = received[0]
        close_all([fd for _, of_message in received for fd in of_message])
        visitor.is_answered = True
        try:
            messages.check(message, len(fds), messages.VISITOR)
            answer = self._answer(visitor, message)
        except ControlError as err:
            answer = {"event": "reply", "to": str(message.get("op"))[:80], "error": {"message": str(err)}}
        if answer is not None:
            visitor.channel.queue(answer)
        return answer is None or visitor.channel.has_more_to_send()

    def _answer(self, visitor: Visitor, message: Message) -> Message | None:
        """Carries out one message; None if the visitor is the holder now, who is answered when vLLM is there."""
        operation = message["op"]
        if operation == "hold" and self.holder is None:
            self._hold(visitor, message)
            return None
        if operation == "hold":
            assert self.holder is not None
            return {"event": "busy", **self.holder.describe()}
        if operation == "status":
            return self._status()
        if operation == "leave" and self.holder is not None and not message.get("force"):
            return {"event": "busy", **self.holder.describe()}
        if operation == "leave":
            self.told_to_leave = True
            return {"event": "leaving", "pid": os.getpid()}
        raise ControlError(messages.unknown(operation))

    def _hold(self, visitor: Visitor, message: Message) -> None:
        self.visitors.remove(visitor)
        visitor.channel.max_line_bytes = None
        self.holder = Holder(visitor.channel, visitor.pid, message.get("command") or [], time.monotonic())
        self.about = self.about or message.get("about") or {}
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
