"""The engine process: loads one engine, and carries out runs until its holder, the harness, closes its end. An engine
that its holder gives back waits for the next one.

Between runs it answers the control channel. Inside a run it looks only at the request ring: submits come as handles,
and the run ends with a record, so that nothing but the engine's own work stands between two steps.
"""

import contextlib
import os
import queue
import socket
import threading
import time
from abc import ABC, abstractmethod
from types import ModuleType
from typing import NoReturn

from . import log, messages
from .control import Channel, ControlError, Message
from .records import EngineError
from .ring import EventRing, RequestRing

# The holder's last word to an engine that is to wait for the next one.
GIVE_BACK = "give_back"


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

    def close(self) -> None:
        """Closes a channel on which the holder has given the engine back."""
        self.channel.connection.close()

    def _read(self) -> None:
        try:
            while (received := self.channel.receive()) is not None:
                messages.check(received[0], len(received[1]), messages.ENGINE)
                self._received.put(received)
                if received[0].get("op") == GIVE_BACK:
                    return  # its last word: what becomes of the channel now does not matter
        except ControlError as err:
            log.say(f"the control channel is broken: {err}")
            self.send({"event": "failed", "stage": "control", "kind": type(err).__name__, "message": str(err)})
            self._leave(1)
        except OSError:
            pass  # a reset connection: the harness died with words of ours unread
        self._leave(0)

    def _leave(self, status: int) -> NoReturn:
        """Ends the process from any thread, whatever the engine is doing: nobody is left to work for."""
        os._exit(status)


class Lease:
    """What a holder has of an engine: a channel and two rings, which begin empty and end with it."""

    def __init__(self, message: Message, fds: list[int], library: ModuleType) -> None:
        self.message = message
        channel_fd, event_fd, request_fd, request_wake_fd, *event_wake = fds
        self._fds = fds[1:]
        self.control = Control(Channel(socket.socket(fileno=channel_fd)))
        try:
            self.events = EventRing(library, event_fd, event_wake[0] if event_wake else -1)
            self.requests = RequestRing(library, request_fd, request_wake_fd)
        except Exception as err:
            self.control.send(failure("load", err))
            raise

    def close(self) -> None:
        """The holder has given the engine back. The rings themselves go with the last who refers to them."""
        self.control.close()
        for fd in self._fds:
            os.close(fd)


class Driver(ABC):
    """Carries out runs on one engine, for one holder after the other."""

    def __init__(self, lease: Lease) -> None:
        self.take(lease)

    def take(self, lease: Lease) -> None:
        """Works for this holder from now on."""
        self.control, self.events, self.requests = lease.control, lease.events, lease.requests

    def serve(self) -> bool:
        """Answers until told to shut down, which gives False, or to wait for another holder."""
        while True:
            message, fds = self.control.receive()
            operation = message["op"]
            if operation == "shutdown":
                return False
            if operation == GIVE_BACK:
                return self.forget()
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

    @abstractmethod
    def forget(self) -> bool:
        """Leaves nothing of a holder in the engine; False if the engine would not, and is of no use to another."""


def run_engine_process(line: Channel, library: ModuleType) -> int:
    """The life of an engine process: load, self-test, runs, for one holder after the other. Returns the exit status.

    On `line` the server sends what is to be loaded, and then each holder: with the message come the descriptors of the
    channel, the event ring, the request ring, the wake-up of the request ring, and that of the event ring where the
    recorder may sleep.
    """
    engine: Engine | None = None
    while (received := line.receive()) is not None:
        message, fds = received
        if engine is None and message.get("cores"):
            # Before a thread begins: one on the recorder's core could not even end while the recorder looks, and a
            # killed process is gone with its last thread. What is not permitted is reported as the engine is loaded.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, message["cores"])
        lease = Lease(message, fds, library)
        progress = Progress()
        try:
            if engine is None:
                engine = Engine(lease, progress)
            else:
                engine.driver.take(lease)
            lease.control.send(engine.ready(lease.events))
            progress.stage = "run"
            is_given_back = engine.driver.serve()
        except BaseException as err:
            log.say_traceback()
            lease.control.send(failure(progress.stage, err))
            return 1
        if not is_given_back:
            return 0
        line.send({"event": "free"})
        lease.control.send({"event": "reply", "to": GIVE_BACK})
        lease.close()
    return 0


class Engine:
    """A loaded engine, and what it said of itself when it was loaded."""

    def __init__(self, lease: Lease, progress: "Progress") -> None:
        message = lease.message
        if message.get("cwd"):
            os.chdir(message["cwd"])
        if message.get("cores"):
            os.sched_setaffinity(0, message["cores"])
        _renice(message.get("nice"))
        os.environ.update(message.get("env", {}))
        started = time.monotonic()
        self.driver = _load(lease, progress)
        self.facts, self.warnings = self.driver.describe()
        self.facts["other"]["process"] = message.get("process")
        self.facts["other"]["process_reason"] = message.get("process_reason")
        self.loaded = time.monotonic()
        self.load_s: float = self.loaded - started
        self.holders = 0

    def ready(self, events: EventRing) -> Message:
        """The first word to a holder. An engine that was loaded for another one takes it no time, and says its age."""
        other = {**self.facts["other"]}
        other["event_ring"] = events.describe()
        other["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
        load_s = self.load_s
        if self.holders > 0:
            load_s = 0.0
            other["reused"] = {"age_s": time.monotonic() - self.loaded, "commands_before": self.holders}
        self.holders += 1
        return {"event": "ready", "facts": {**self.facts, "other": other}, "warnings": self.warnings, "load_s": load_s}


def failure(stage: str, err: BaseException) -> Message:
    """The last word of an engine that has failed in this stage."""
    return {"event": "failed", "stage": stage, "kind": type(err).__name__, "message": _in_words(err)}


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


def _load(lease: Lease, progress: Progress) -> Driver:
    """The driver of the engine that the message asks for; only the one that is needed is imported."""
    if "script" in lease.message:
        from .scripted import ScriptedDriver

        return ScriptedDriver(lease)
    from .vllm_driver import VllmDriver

    return VllmDriver(lease, progress)


def _in_words(err: BaseException) -> str:
    """The first paragraph of what was raised, or its kind."""
    return str(err).strip().split("\n\n")[0] or type(err).__name__
