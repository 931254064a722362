"""The engine process: loads one engine, and carries out runs until the harness closes its end.

Between runs it answers the control channel. Inside a run it looks only at the request ring: submits come as handles,
and the run ends with a record, so that nothing but the engine's own work stands between two steps.
"""

import array
import gc
import mmap
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import ModuleType

from . import protocol
from .control import Channel, Message
from .engine import Engine, EngineError, Finish, StepStats, library_tap
from .ring import EventRing, RequestRing

# How long an idle engine looks at the ring before it sleeps, and how long it sleeps at most before it looks again.
SPIN_NS = 2_000_000
SLEEP_MS = 100


class Control:
    """The harness's channel, read by a thread of its own, so that the harness's death is noticed at any time."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._received: queue.SimpleQueue[tuple[Message, list[int]]] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="control", daemon=True).start()

    def receive(self) -> tuple[Message, list[int]]:
        """Waits for the next message."""
        return self._received.get()

    def send(self, message: Message) -> None:
        """Sends one message."""
        self.channel.send(message)

    def _read(self) -> None:
        try:
            while (received := self.channel.receive()) is not None:
                self._received.put(received)
        except OSError as err:
            print(f"bench: the control channel failed: {err}", file=sys.stderr)
        os._exit(0)  # nobody is left to work for


class Driver:
    """Carries out runs on one engine."""

    def __init__(self, control: Control, engine: Engine, events: EventRing, requests: RequestRing) -> None:
        self.control = control
        self.engine = engine
        self.events = events
        self.requests = requests
        self.stepped = False
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
        prompts = _prompts(fds[0], lengths) if fds else iter(())
        for handle, (prompt, output_tokens) in enumerate(zip(prompts, message["output_tokens"], strict=True)):
            self.engine.stage(handle, prompt, output_tokens, message["salt"])
        return {"staged": len(lengths)}

    def _begin(self, message: Message) -> Message:
        self.engine.lower_limits(message["limits"])
        self.stepped = message["drive"] == "stepped"
        self.stepping_ns = 0
        self.refused = []
        self.events.begin()
        return {}

    def run(self) -> None:
        """One run: from the first submit to the record that ends it. Reports how it went on the channel."""
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            steps = self._window()
            self._push_finished(self.engine.drain(), steps)
        finally:
            gc.enable()
            gc.unfreeze()
        ended = protocol.ENDED.pack(protocol.KIND_ENDED, 0, 0, 0, 0, steps, 0, 0, 0, 0, 0)
        self.events.push(ended)
        self.control.send({"event": "ended", "steps": steps, "stepping_ns": self.stepping_ns, "refused": self.refused})

    def _window(self) -> int:
        """Submits and steps until the run is ended; returns the number of steps."""
        steps = granted = 0
        idle_since = time.monotonic_ns()
        while True:
            for kind, value in _records(self.requests.pop()):
                if kind == protocol.KIND_SUBMIT:
                    if not self.engine.submit(value):
                        self.refused.append(value)
                elif kind == protocol.KIND_GRANT:
                    granted += value
                elif kind == protocol.KIND_END:
                    return steps
            if self.engine.has_work() and (granted or not self.stepped):
                steps += self._step()
                granted -= self.stepped
                idle_since = time.monotonic_ns()
            elif time.monotonic_ns() - idle_since > SPIN_NS:
                self.requests.wait(SLEEP_MS)

    def _step(self) -> int:
        """One engine step with its record; 1 if the model ran. Under async scheduling a step may return nothing."""
        before = self.events.tapped()[0]
        started_ns = time.monotonic_ns()
        stats = self.engine.step()
        ended_ns = time.monotonic_ns()
        self.stepping_ns += ended_ns - started_ns
        tapped, tap_push_ns, token_events = self.events.tapped()
        if tapped == before and not stats.finished:
            return 0
        if self.engine.is_failed():
            raise EngineError("a worker process of the engine has died")
        if tapped == before:
            tap_push_ns, token_events = protocol.UNKNOWN_COUNT, 0
        step = max(tapped - 1, 0)
        record = _step_record(step, stats, started_ns, ended_ns, tap_push_ns, token_events)
        self.events.push(record + b"".join(_finish_record(finish, step) for finish in stats.finished))
        return tapped - before

    def _push_finished(self, finished: list[Finish], step: int) -> None:
        for finish in finished:
            self.events.push(_finish_record(finish, step))


def run_engine_process(message: Message, fds: list[int], library: ModuleType) -> int:
    """The life of an engine process: load, self-test, runs. Returns the exit status.

    `fds` are the channel, the event ring and its wake-up, the request ring and its wake-up; a wake-up that is not
    there is -1 in `message["wake"]`.
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
        engine.tap.push = library_tap(library, events.handle)
        facts = engine.facts()
        facts["other"] |= {"self_test": checked, "event_ring": events.describe()}
        control.send(
            {"event": "ready", "facts": facts, "warnings": engine.warnings, "load_s": time.monotonic() - started}
        )
        stage = "run"
        Driver(control, engine, events, requests).serve()
    except BrokenPipeError:
        return 0  # the harness is gone
    except BaseException as err:
        traceback.print_exc()
        failed = {"event": "failed", "stage": stage, "kind": type(err).__name__, "message": _in_words(err)}
        control.send(failed)
        return 1
    return 0


def _in_words(err: BaseException) -> str:
    """The first paragraph of what was raised, or its kind."""
    return str(err).strip().split("\n\n")[0] or type(err).__name__


def _prompts(fd: int, lengths: list[int]) -> Iterator[list[int]]:
    """The prompts that stand one after the other in a memfd of 32-bit token ids."""
    total = sum(lengths)
    if os.fstat(fd).st_size < 4 * total:
        raise EngineError(f"the staged memory holds {os.fstat(fd).st_size} bytes, {4 * total} are needed")
    with mmap.mmap(fd, 4 * total, prot=mmap.PROT_READ) as memory:
        tokens = array.array("I")
        tokens.frombytes(memory[:])
    at = 0
    for length in lengths:
        yield tokens[at : at + length].tolist()
        at += length


def _records(popped: bytes) -> Iterator[tuple[int, int]]:
    """Kind and value (handle or count) of each request record; ValueError for a kind that is none."""
    for at in range(0, len(popped), protocol.RECORD_SIZE):
        kind, _count, _flags, _step, _emitted_ns, value, *_ = protocol.SUBMIT.unpack_from(popped, at)
        if kind not in (protocol.KIND_SUBMIT, protocol.KIND_GRANT, protocol.KIND_END):
            raise ValueError(f"the request ring holds a record of unknown kind {kind}")
        yield kind, value


def _step_record(
    step: int, stats: StepStats, started_ns: int, ended_ns: int, tap_push_ns: int, token_events: int
) -> bytes:
    return protocol.STEP.pack(
        protocol.KIND_STEP,
        0,
        0,
        step,
        0,
        started_ns,
        ended_ns,
        stats.prefill_tokens,
        stats.decode_tokens,
        stats.waiting,
        round(stats.kv_cache_usage * 1e6),
        tap_push_ns,
        token_events,
        stats.prefill_requests,
        stats.decode_requests,
        stats.running,
        stats.preemptions,
    )


def _finish_record(finish: Finish, step: int) -> bytes:
    return protocol.FINISH.pack(
        protocol.KIND_FINISH,
        finish.reason,
        min(finish.preemptions, 0xFFFF),
        step,
        0,
        finish.queued_ns,
        finish.scheduled_ns,
        finish.first_token_ns,
        finish.last_token_ns,
        finish.handle,
        finish.prompt_tokens,
        finish.output_tokens,
        finish.cached_tokens,
    )
