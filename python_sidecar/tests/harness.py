"""What the Rust side does, in Python: makes rings, starts a sidecar, stages and runs. For tests of it alone."""

import array
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from bench_sidecar import protocol
from bench_sidecar.control import Channel, Message

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "configs" / "models" / "tiny-llama"
CAPACITY = 1 << 15
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
ARGV = (
    f"--model {MODEL} --load-format dummy --skip-tokenizer-init --enforce-eager --max-model-len 2048 --max-num-seqs 64 "
    "--max-num-batched-tokens 2048 --kv-cache-memory-bytes 1073741824 --dtype float32"
).split()


class Step(NamedTuple):
    """A step record without its head."""

    step: int
    started_ns: int
    ended_ns: int
    prefill_tokens: int
    decode_tokens: int
    waiting: int
    kv_cache_usage_ppm: int
    tap_push_ns: int
    token_events: int
    prefill_requests: int
    decode_requests: int
    running: int
    preemptions: int


class Finish(NamedTuple):
    """A finish record without its head."""

    reason: int
    preemptions: int
    queued_ns: int
    scheduled_ns: int
    first_token_ns: int
    last_token_ns: int
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int


def _finish(record: bytes) -> Finish:
    values = protocol.FINISH.unpack(record)
    queued_ns, scheduled_ns, first_token_ns, last_token_ns = values[5:9]
    prompt, output, cached = values[10:13]
    return Finish(values[1], values[2], queued_ns, scheduled_ns, first_token_ns, last_token_ns, prompt, output, cached)


@dataclass
class Run:
    """All that came back of a run."""

    tokens: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    # When the tokens of each step were emitted.
    emitted_ns: dict[int, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    finishes: dict[int, Finish] = field(default_factory=dict)
    ended: Message = field(default_factory=dict)
    is_over: bool = False

    def take(self, popped: bytes) -> None:
        """Adds the records."""
        for at in range(0, len(popped), protocol.RECORD_SIZE):
            record = popped[at : at + protocol.RECORD_SIZE]
            assert not self.is_over, "a record after the one that ends the run"
            if record[0] == protocol.KIND_TOKENS:
                values = protocol.TOKENS.unpack(record)
                self.emitted_ns[values[3]] = values[4]
                for slot in range(values[1]):
                    self.tokens[values[5 + slot]] += values[13 + slot]
            elif record[0] == protocol.KIND_STEP:
                values = protocol.STEP.unpack(record)
                self.steps.append(Step(values[3], *values[5:]))
            elif record[0] == protocol.KIND_FINISH:
                handle = protocol.FINISH.unpack(record)[9]
                assert handle not in self.finishes, f"request {handle} ended twice"
                self.finishes[handle] = _finish(record)
            else:
                assert record[0] == protocol.KIND_ENDED
                self.is_over = True


def ring_header(stream: int, capacity: int, abi_version: int = protocol.ABI_VERSION) -> bytes:
    """Magic, ABI version, record size, capacity, stream, laid out by hand as the C ABI says."""
    words = (abi_version, protocol.RECORD_SIZE, capacity, stream)
    return b"BNCHRNG1" + b"".join(word.to_bytes(4, "little") for word in words)


def make_ring(stream: int, capacity: int = CAPACITY, header: bytes = b"", seals: int = SEALS) -> int:
    """A sealed memfd with an empty ring in it."""
    fd = os.memfd_create("ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096 + capacity * protocol.RECORD_SIZE)
    os.pwrite(fd, header or ring_header(stream, capacity), 0)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def expect(channel: Channel, key: str, value: str) -> Message:
    """The next message, which must be this one."""
    received = channel.receive()
    assert received is not None, "the sidecar has closed its end; see sidecar.log"
    assert received[0].get(key) == value, received[0]
    return received[0]


def ask(channel: Channel, message: Message, fds: list[int] | None = None) -> Message:
    """One operation and its reply; events of engines that have ended are passed over."""
    socket.send_fds(channel.connection, [json.dumps(message).encode() + b"\n"], fds or [])
    while (received := channel.receive()) is not None:
        if received[0]["event"] != "exited":
            assert received[0].get("to") == message["op"], received[0]
            return received[0]
    raise AssertionError("the sidecar has closed its end; see sidecar.log")


class Engine:
    """One loaded engine: `first` is its first word, ready or failed."""

    def __init__(
        self, library: ModuleType, server: Channel, argv: list[str], step_api: str, env: dict[str, str] | None = None
    ) -> None:
        self.library = library
        ours, theirs = socket.socketpair()
        event, request = make_ring(protocol.EVENT_STREAM), make_ring(protocol.REQUEST_STREAM)
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.events: Any = library.attach(event, -1, protocol.EVENT_STREAM, 0)
        self.requests: Any = library.attach(request, wake, protocol.REQUEST_STREAM, 1)
        message = {"op": "load", "argv": argv, "step_api": step_api, "env": env or {}}
        self.pid: int = ask(server, message, [theirs.fileno(), event, request, wake])["pid"]
        theirs.close()
        for fd in (event, request):
            os.close(fd)
        self.channel = Channel(ours)
        received = self.channel.receive()
        assert received is not None, "the engine closed its channel without a word"
        self.first = received[0]

    def stage(self, prompts: list[list[int]], output_tokens: list[int], salt: str = "salt") -> Message:
        """Stages the requests of a run."""
        fd = os.memfd_create("prompts", os.MFD_ALLOW_SEALING)
        os.write(fd, array.array("I", [token for prompt in prompts for token in prompt]).tobytes())
        lengths = [len(prompt) for prompt in prompts]
        message = {"op": "stage", "prompt_tokens": lengths, "output_tokens": output_tokens, "salt": salt}
        reply = ask(self.channel, message, [fd])
        os.close(fd)
        return reply

    def begin(self, limits: dict[str, int] | None = None, drive: str = "free") -> Message:
        """Opens the window."""
        return ask(self.channel, {"op": "begin", "limits": limits or {}, "drive": drive})

    def reset(self) -> Message:
        """Empties the caches."""
        return ask(self.channel, {"op": "reset"})

    def push(self, kind: int, *values: int) -> None:
        """One record for each value into the request ring, together."""
        records = [protocol.SUBMIT.pack(kind, 0, 0, 0, 0, value, *[0] * 11) for value in values]
        assert self.library.push(self.requests, b"".join(records))

    def collect(self, run: Run, finishes: int, limit_s: float = 120) -> None:
        """Takes records until so many requests have ended."""
        deadline = time.monotonic() + limit_s
        while len(run.finishes) < finishes:
            assert time.monotonic() < deadline, f"{len(run.finishes)} of {finishes} requests ended"
            run.take(self.library.pop(self.events))

    def collect_steps(self, run: Run, steps: int, limit_s: float = 120) -> None:
        """Takes records until there are so many step records."""
        deadline = time.monotonic() + limit_s
        while len(run.steps) < steps:
            assert time.monotonic() < deadline, f"{len(run.steps)} of {steps} steps"
            run.take(self.library.pop(self.events))

    def end(self, run: Run) -> Run:
        """Ends the run and takes the rest of it."""
        self.push(protocol.KIND_END, 0)
        run.ended = expect(self.channel, "event", "ended")
        while popped := self.library.pop(self.events):
            run.take(popped)
        assert run.is_over
        return run

    def run(self, prompts: list[list[int]], output_tokens: list[int], salt: str = "salt", **limits: int) -> Run:
        """Stages, submits all at once, waits for all, ends."""
        staged = self.stage(prompts, output_tokens, salt)
        assert staged.get("staged") == len(prompts), staged
        assert "error" not in self.begin(limits)
        self.push(protocol.KIND_SUBMIT, *range(len(prompts)))
        run = Run()
        self.collect(run, len(prompts))
        return self.end(run)

    def failure(self) -> Message:
        """The failure that it reports next."""
        return expect(self.channel, "event", "failed")


class Sidecar:
    """A sidecar process that has imported vLLM."""

    def __init__(
        self,
        folder: Path,
        library: ModuleType,
        program: tuple[str, ...] = ("-m", "bench_sidecar"),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.library = library
        folder.chmod(0o700)
        self.log_path = folder / "sidecar.log"
        arguments = ["--socket", str(folder / "s"), "--ring-library", os.environ["BENCH_RING_LIBRARY"]]
        # What vLLM is told to load by name stands beside the tests.
        path = os.pathsep.join([*os.environ["PYTHONPATH"].split(os.pathsep), str(Path(__file__).parent)])
        settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, "VLLM_NO_USAGE_STATS": "1", **settings, **(environment or {})},
            )
        self.server = hold(folder / "s")

    def wait_for_hello(self) -> Message:
        """Waits until vLLM is imported."""
        return expect(self.server, "event", "hello")

    def load(self, *argv: str, step_api: str = "engine_core") -> Engine:
        """Loads an engine with the usual arguments and these."""
        return self.load_exactly([*ARGV, *argv], step_api=step_api)

    def load_exactly(self, argv: list[str], step_api: str = "engine_core", env: dict[str, str] | None = None) -> Engine:
        """Loads an engine with these arguments and no others, and variables of its own."""
        return Engine(self.library, self.server, argv, step_api, env)

    def exit_of(self, engine: Engine) -> tuple[int, int]:
        """Exit status and signal of an engine process that ends now."""
        while (died := expect(self.server, "event", "exited"))["pid"] != engine.pid:
            pass  # one of a test that has failed
        return died["code"], died["signal"]

    def stop(self, engine: Engine) -> tuple[int, int]:
        """Shuts an engine down."""
        engine.channel.send({"op": "shutdown"})
        return self.exit_of(engine)

    def close(self) -> int:
        """Closes our end, and waits for the sidecar to leave."""
        self.server.connection.close()
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            raise


def hold(path: Path, **message: Any) -> Channel:
    """Becomes the holder of the sidecar that listens there."""
    channel = Channel(connect(path))
    channel.send({"op": "hold", "command": ["a test"], **message})
    return channel


def connect(path: Path, limit_s: float = 600) -> socket.socket:
    """Connects as soon as the sidecar listens."""
    deadline = time.monotonic() + limit_s
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            assert time.monotonic() < deadline, "the sidecar does not listen"
            time.sleep(0.01)
        else:
            return connection


def are_gone(*pids: int, limit_s: float = 2) -> bool:
    """Whether all these processes end (or are zombies of another parent) within the time."""
    deadline = time.monotonic() + limit_s
    while any(_is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
