"""The engine process: loads one engine, and carries out runs until the harness closes its end.

Between runs it answers the control channel. Inside a run it looks only at the request ring: submits come as handles,
and the run ends with a record, so that nothing but the engine's own work stands between two steps.
"""

import contextlib
import os
import queue
import socket
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from types import ModuleType
from typing import NoReturn

from .control import Channel, ControlError, Message
from .records import EngineError
from .ring import EventRing, RequestRing


class Control:
    """The harness's channel, read by a thread of its own, so that the harness's death is noticed at any time."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._received: queue.SimpleQueue[tuple[Message, list[int]]] = queue.SimpleQueue()
        self._sending = threading.Lock()
        threading.Thread(target=self._read, name="control", daemon=True).start()

    def receive(self) -> tuple[Message, list[int]]:
        """Waits for the next message."""
        return self._received.get()

    def send(self, message: Message) -> None:
        """Sends one message. Leaves the process if the harness is gone."""
        try:
            with self._sending:
                self.channel.send(message)
        except OSError:
            self._leave(0)

    def _read(self) -> NoReturn:
        try:
            while (received := self.channel.receive()) is not None:
                self._received.put(received)
        except ControlError as err:
            print(f"bench: the control channel is broken: {err}", file=sys.stderr)
            self.send({"event": "failed", "stage": "control", "kind": type(err).__name__, "message": str(err)})
            self._leave(1)
        except OSError:
            pass  # a reset connection: the harness died with words of ours unread
        self._leave(0)

    def _leave(self, status: int) -> NoReturn:
        """Ends the process from any thread, whatever the engine is doing: nobody is left to work for."""
        os._exit(status)


class Driver(ABC):
    """Carries out runs on one engine."""

    def __init__(self, control: Control, events: EventRing, requests: RequestRing) -> None:
        self.control = control
        self.events = events
        self.requests = requests

    def serve(self) -> None:
        """Answers until told to shut down."""
        while True:
            message, fds = self.control.receive()
            operation = message["op"]
            if operation == "shutdown":
                return
            try:
                reply = self._answer(operation, message, fds)
            except EngineError as err:
                reply = {"error": {"message": str(err)}}
            finally:
                for fd in fds:
                    os.close(fd)
            self.control.send({"event": "reply", "to": operation, **reply})
            if operation == "begin" and "error" not in reply:
                self.control.send({"event": "ended", **self.run()})

    def _answer(self, operation: str, message: Message, fds: list[int]) -> Message:
        if operation == "stage":
            self.stage(message, fds)
            return {"staged": len(message["prompt_tokens"])}
        if operation == "begin":
            self.begin(message)
            # Before the reply: from then on requests come.
            self.events.begin()
            return {}
        if operation == "reset":
            return {"reset": self.reset()}
        return self.answer_other(operation, message)

    def answer_other(self, operation: str, message: Message) -> Message:
        """What only one kind of engine is asked."""
        raise EngineError(f"unknown operation {operation!r}")

    @abstractmethod
    def describe(self) -> tuple[Message, list[str]]:
        """What the report says of this engine, and what was noticed as it was loaded."""

    @abstractmethod
    def stage(self, message: Message, fds: list[int]) -> None:
        """Takes the requests of a run; their prompts come in a sealed memfd."""

    @abstractmethod
    def begin(self, message: Message) -> None:
        """Gets ready for requests."""

    @abstractmethod
    def run(self) -> Message:
        """One run: from the first submit to the record that ends it. Says how it went."""

    @abstractmethod
    def reset(self) -> bool:
        """Empties the caches; False if the engine would not."""


def run_engine_process(message: Message, fds: list[int], library: ModuleType) -> int:
    """The life of an engine process: load, self-test, runs. Returns the exit status.

    `fds` are the channel, the event ring, the request ring, the wake-up of the request ring, and that of the event ring
    where the recorder may sleep.
    """
    channel_fd, event_fd, request_fd, request_wake_fd, *event_wake = fds
    control = Control(Channel(socket.socket(fileno=channel_fd)))
    progress = Progress()
    try:
        if message.get("cores"):
            os.sched_setaffinity(0, message["cores"])
        _renice(message.get("nice"))
        os.environ.update(message.get("env", {}))
        started = time.monotonic()
        events = EventRing(library, event_fd, event_wake[0] if event_wake else -1)
        requests = RequestRing(library, request_fd, request_wake_fd)
        driver = _load(message, control, events, requests, progress)
        facts, warnings = driver.describe()
        facts["other"]["event_ring"] = events.describe()
        facts["other"]["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
        ready = {"event": "ready", "facts": facts, "warnings": warnings, "load_s": time.monotonic() - started}
        control.send(ready)
        progress.stage = "run"
        driver.serve()
    except BaseException as err:
        with contextlib.suppress(OSError):  # the log's disk may be full
            traceback.print_exc()
        failed = {"event": "failed", "stage": progress.stage, "kind": type(err).__name__, "message": _in_words(err)}
        control.send(failed)
        return 1
    return 0


def _renice(nice: int | None) -> None:
    """Raises the calling thread, and with it all that it starts from now on.

    What is not permitted is left: the harness has tried the same and says so, and `nice` of the facts is what it is.
    """
    if nice is not None:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)


class Progress:
    """How far an engine process has come."""

    stage = "load"


def _load(message: Message, control: Control, events: EventRing, requests: RequestRing, progress: Progress) -> Driver:
    """The driver of the engine that the message asks for; only the one that is needed is imported."""
    if "script" in message:
        from .scripted import ScriptedDriver

        return ScriptedDriver(message, control, events, requests)
    from .vllm_driver import VllmDriver

    return VllmDriver(message, control, events, requests, progress)


def _in_words(err: BaseException) -> str:
    """The first paragraph of what was raised, or its kind."""
    return str(err).strip().split("\n\n")[0] or type(err).__name__
