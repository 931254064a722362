"""The engine process: loads one engine, and carries out runs until the harness closes its end.

Between runs it answers the control channel. Inside a run it looks only at the request ring: submits come as handles,
and the run ends with a record, so that nothing but the engine's own work stands between two steps.
"""

import array
import contextlib
import gc
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import NoReturn

from . import protocol
from .control import Channel, ControlError, Message
from .engine import Engine, EngineError
from .records import unpack_requests
from .ring import EventRing, RequestRing
from .tap import library_push

# How long an idle engine looks at the ring before it sleeps, and how long it sleeps at most before it looks again.
SPIN_NS = 2_000_000
SLEEP_MS = 100
# Steps in a row in which the engine has work and no model runs. An engine that has failed inside may go on so for ever;
# a full pipeline and the clearing away of finished requests take one or two.
MAX_EMPTY_STEPS = 100_000


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


class Driver:
    """Carries out runs on one engine."""

    def __init__(self, control: Control, engine: Engine, events: EventRing, requests: RequestRing) -> None:
        self.control = control
        self.engine = engine
        self.events = events
        self.requests = requests
        self.stepped = False
        self.granted = 0
        self.empty_steps = 0
        self.stepping_ns = 0
        self.refused: list[int] = []

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
                self.run()

    def _answer(self, operation: str, message: Message, fds: list[int]) -> Message:
        if operation == "stage":
            return self._stage(message, fds)
        if operation == "begin":
            return self._begin(message)
        if operation == "reset":
            return {"reset": self.engine.reset()}
        raise EngineError(f"unknown operation {operation!r}")

    def _stage(self, message: Message, fds: list[int]) -> Message:
        """Builds the requests of a run from the prompts in a sealed memfd."""
        self.engine.unstage()
        lengths = message["prompt_tokens"]
        if len(fds) != 1:
            raise EngineError(f"the prompts come in one memfd; {len(fds)} descriptors came with the message")
        prompts = _prompts(fds[0], lengths)
        for handle, (prompt, output_tokens) in enumerate(zip(prompts, message["output_tokens"], strict=True)):
            self.engine.stage(handle, prompt, output_tokens, message["salt"])
        return {"staged": len(lengths)}

    def _begin(self, message: Message) -> Message:
        self.engine.lower_limits(message["limits"])
        self.stepped = message["drive"] == "stepped"
        self.stepping_ns = 0
        self.refused = []
        self.events.begin()
        # Before the reply: from then on requests come, and they must not wait for a collection.
        gc.collect()
        gc.disable()
        return {}

    def run(self) -> None:
        """One run: from the first submit to the record that ends it. Reports how it went on the channel."""
        try:
            self._window()
            steps = self.events.tapped()[0]
            aborted = self.engine.drain()
        finally:
            gc.enable()
        for finish in aborted:
            self.events.push(finish.pack(steps))
        self.events.push(protocol.ENDED.pack(protocol.KIND_ENDED, 0, 0, 0, 0, steps, 0, 0, 0, 0, 0))
        self.control.send({"event": "ended", "steps": steps, "stepping_ns": self.stepping_ns, "refused": self.refused})

    def _window(self) -> None:
        """Submits and steps until the run is ended."""
        self.granted = self.empty_steps = 0
        idle_since_ns = time.monotonic_ns()
        while self._take_requests():
            if self.engine.has_work() and (self.granted or not self.stepped):
                self._step()
                idle_since_ns = time.monotonic_ns()
            elif time.monotonic_ns() - idle_since_ns > SPIN_NS:
                self.requests.wait(SLEEP_MS)

    def _take_requests(self) -> bool:
        """Carries out all that is in the request ring; False if the run is over."""
        while popped := self.requests.pop():
            for kind, value in unpack_requests(popped):
                if kind == protocol.KIND_END:
                    return False
                if kind == protocol.KIND_GRANT:
                    self.granted += value
                elif not self.engine.submit(value):
                    self.refused.append(value)
        return True

    def _step(self) -> None:
        """One engine step with its record. A step in which no model ran has none, and uses up no grant."""
        before = self.events.tapped()[0]
        started_ns = time.monotonic_ns()
        stats = self.engine.step()
        ended_ns = time.monotonic_ns()
        self.stepping_ns += ended_ns - started_ns
        if self.engine.is_failed():
            raise EngineError("a worker process of the engine has died")
        tapped, tap_push_ns, token_events = self.events.tapped()
        if tapped == before:
            tap_push_ns, token_events = protocol.UNKNOWN_COUNT, 0
            if not stats.finished:
                self.empty_steps += 1
                if self.empty_steps > MAX_EMPTY_STEPS:
                    raise EngineError(f"the engine has work, and ran no model in {MAX_EMPTY_STEPS} steps in a row")
                return
        self.empty_steps = 0
        self.granted = max(self.granted - 1, 0)
        step = max(tapped - 1, 0)
        record = stats.pack(step, started_ns, ended_ns, tap_push_ns, token_events)
        self.events.push(record + b"".join(finish.pack(step) for finish in stats.finished))


def run_engine_process(message: Message, fds: list[int], library: ModuleType) -> int:
    """The life of an engine process: load, self-test, runs. Returns the exit status.

    `fds` are the channel, the event ring, the request ring, the wake-up of the request ring, and that of the event ring
    where the recorder may sleep.
    """
    channel_fd, event_fd, request_fd, request_wake_fd, *event_wake = fds
    control = Control(Channel(socket.socket(fileno=channel_fd)))
    stage = "load"
    try:
        if message.get("cores"):
            os.sched_setaffinity(0, message["cores"])
        os.environ.update(message.get("env", {}))
        started = time.monotonic()
        engine = Engine(message["argv"], message["step_api"])
        stage = "self-test"
        checked = engine.self_test()
        events = EventRing(library, event_fd, event_wake[0] if event_wake else -1)
        requests = RequestRing(library, request_fd, request_wake_fd)
        engine.tap.push = library_push(library, events.handle)
        facts = engine.facts()
        facts["other"] |= {"self_test": checked, "event_ring": events.describe()}
        # All that vLLM's modules hold, millions of objects, is never collected: walking it took 0.4 s before each run.
        gc.collect()
        gc.freeze()
        control.send(
            {"event": "ready", "facts": facts, "warnings": engine.warnings, "load_s": time.monotonic() - started}
        )
        stage = "run"
        Driver(control, engine, events, requests).serve()
    except BaseException as err:
        with contextlib.suppress(OSError):  # the log's disk may be full
            traceback.print_exc()
        control.send({"event": "failed", "stage": stage, "kind": type(err).__name__, "message": _in_words(err)})
        return 1
    return 0


def _in_words(err: BaseException) -> str:
    """The first paragraph of what was raised, or its kind."""
    return str(err).strip().split("\n\n")[0] or type(err).__name__


def _prompts(fd: int, lengths: list[int]) -> Iterator[list[int]]:
    """The prompts that stand one after the other in a memfd of 32-bit token ids."""
    total = sum(lengths)
    tokens = array.array("I")
    with open(fd, "rb", closefd=False) as memory:
        memory.seek(0)
        try:
            tokens.fromfile(memory, total)
        except EOFError:
            raise EngineError(f"the staged memory holds {len(tokens)} token ids, {total} are needed") from None
    at = 0
    for length in lengths:
        yield tokens[at : at + length].tolist()
        at += length
