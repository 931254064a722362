"""What the Rust side does, in Python: makes rings, starts a sidecar, stages and runs. For tests of the sidecar alone."""

import array
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from bench_sidecar import protocol
from bench_sidecar.control import Channel, Message

CAPACITY = 4096
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def make_ring(stream: int, capacity: int = CAPACITY) -> int:
    """A sealed memfd with an empty ring in it, laid out by hand as the header of the C ABI says."""
    fd = os.memfd_create("ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096 + capacity * protocol.RECORD_SIZE)
    head = protocol_header(stream, capacity)
    os.pwrite(fd, head, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


def protocol_header(stream: int, capacity: int) -> bytes:
    """Magic, ABI version, record size, capacity, stream."""
    words = b"BNCHRNG1" + b"".join(
        value.to_bytes(4, "little") for value in (protocol.ABI_VERSION, protocol.RECORD_SIZE, capacity, stream)
    )
    return words


def send_with_fds(connection: socket.socket, message: bytes, fds: list[int]) -> None:
    """One line with descriptors."""
    socket.send_fds(connection, [message + b"\n"], fds)


class Sidecar:
    """A sidecar process, and one loaded engine in it."""

    def __init__(self, folder: Path, library: ModuleType, library_path: str, env: dict[str, str] | None = None) -> None:
        self.library = library
        os.chmod(folder, 0o700)
        path = folder / "s"
        self.log = (folder / "sidecar.log").open("wb")
        arguments = ["-m", "bench_sidecar", "--socket", str(path), "--ring-library", library_path]
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", **(env or {})},
        )
        self.server = Channel(connect(path))
        self.hello = self.expect(self.server, "event", "hello")

    def load(self, argv: list[str], step_api: str = "engine_core") -> Message:
        """Loads an engine; returns its first word: ready or failed."""
        ours, theirs = socket.socketpair()
        event, request = make_ring(protocol.EVENT_STREAM), make_ring(protocol.REQUEST_STREAM)
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        import json

        line = json.dumps({"op": "load", "argv": argv, "step_api": step_api}).encode()
        send_with_fds(self.server.connection, line, [theirs.fileno(), event, request, wake])
        theirs.close()
        self.pid = self.expect(self.server, "to", "load")["pid"]
        self.events: Any = self.library.attach(event, -1, protocol.EVENT_STREAM, 0)
        self.requests: Any = self.library.attach(request, wake, protocol.REQUEST_STREAM, 1)
        self.engine = Channel(ours)
        received = self.engine.receive()
        assert received is not None
        return received[0]

    def ask(self, message: Message, fds: list[int] | None = None) -> Message:
        """One operation of the engine, and its reply."""
        import json

        send_with_fds(self.engine.connection, json.dumps(message).encode(), fds or [])
        return self.expect(self.engine, "to", message["op"])

    def stage(self, prompts: list[list[int]], output_tokens: list[int], salt: str) -> Message:
        """Stages the requests of a run."""
        fd = os.memfd_create("prompts", os.MFD_ALLOW_SEALING)
        os.write(fd, array.array("I", [token for prompt in prompts for token in prompt]).tobytes())
        lengths = [len(prompt) for prompt in prompts]
        return self.ask(
            {"op": "stage", "prompt_tokens": lengths, "output_tokens": output_tokens, "salt": salt}, [fd]
        )

    def begin(self, **limits: int) -> Message:
        """Opens the window."""
        return self.ask({"op": "begin", "limits": limits, "drive": "free"})

    def push(self, kind: int, value: int = 0) -> None:
        """One record into the request ring."""
        assert self.library.push(self.requests, protocol.SUBMIT.pack(kind, 0, 0, 0, 0, value, *[0] * 11))

    def records(self, until: int, count: int = 1, limit_s: float = 60) -> list[tuple[int, ...]]:
        """All records up to the `count`-th of kind `until`."""
        kinds = {
            protocol.KIND_TOKENS: protocol.TOKENS,
            protocol.KIND_STEP: protocol.STEP,
            protocol.KIND_FINISH: protocol.FINISH,
            protocol.KIND_ENDED: protocol.ENDED,
        }
        got: list[tuple[int, ...]] = []
        deadline = time.monotonic() + limit_s
        while count:
            assert time.monotonic() < deadline, f"no more records; have {got[-3:]}"
            popped = self.library.pop(self.events)
            for at in range(0, len(popped), protocol.RECORD_SIZE):
                got.append(kinds[popped[at]].unpack_from(popped, at))
                count -= popped[at] == until
        return got

    def end(self) -> Message:
        """Ends the run."""
        self.push(protocol.KIND_END)
        return self.expect(self.engine, "event", "ended")

    def expect(self, channel: Channel, key: str, value: str) -> Message:
        """The next message, which must be this one."""
        received = channel.receive()
        assert received is not None, "the sidecar has closed its end; see sidecar.log"
        assert received[0].get(key) == value, received[0]
        return received[0]

    def close(self) -> int:
        """Closes our ends, and waits for the sidecar to leave."""
        self.server.connection.close()
        if hasattr(self, "engine"):
            self.engine.connection.close()
        self.log.close()
        return self.process.wait(timeout=20)


def connect(path: Path, limit_s: float = 20) -> socket.socket:
    """Connects as soon as the sidecar listens."""
    deadline = time.monotonic() + limit_s
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            assert time.monotonic() < deadline, "the sidecar does not listen"
            time.sleep(0.01)
