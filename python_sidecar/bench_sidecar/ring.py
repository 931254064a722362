"""The shared-memory ring and the tap, as the compiled extension `bench_ring` offers them.

The extension is part of libbench_ring.so, the library whose C ABI the harness links too, so both processes run the
same memory-ordering code.
"""

import importlib.machinery
import importlib.util
import time
from types import ModuleType
from typing import Any

from . import protocol

# How long a record that has to arrive waits for room.
ROOM_LIMIT_S = 30


class RingError(RuntimeError):
    """The ring's library or memory is not what this package was made for."""


def load_library(path: str) -> ModuleType:
    """Loads libbench_ring.so as the extension module; refuses any other ABI than the protocol's."""
    loader = importlib.machinery.ExtensionFileLoader("bench_ring", path)
    spec = importlib.util.spec_from_loader("bench_ring", loader)
    if spec is None:
        raise RingError(f"{path}: cannot be loaded as an extension module")
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as err:
        raise RingError(f"{path}: {err}") from err
    found = module.abi_version()
    if found != protocol.ABI_VERSION:
        raise RingError(f"{path}: ABI version {found}, this sidecar needs {protocol.ABI_VERSION}")
    return module


class EventRing:
    """The engine's side of the event ring: the producer, and the tap that feeds it."""

    def __init__(self, library: ModuleType, fd: int, wake_fd: int) -> None:
        self.library = library
        self.handle: Any = library.attach(fd, wake_fd, protocol.EVENT_STREAM, 1)

    def push(self, records: bytes) -> bool:
        """Pushes whole records together; False if they found no room, which the ring counts."""
        return bool(self.library.push(self.handle, records))

    def push_in_the_end(self, records: bytes) -> None:
        """Pushes records that a run cannot end without, waiting for room. That they found none is counted; RingError if
        none comes.
        """
        limit_s = time.monotonic() + ROOM_LIMIT_S
        while not self.push(records):
            if time.monotonic() > limit_s:
                raise RingError("the event ring is full, and the harness takes nothing out of it")
            time.sleep(0.001)

    def begin(self) -> None:
        """The next tap is step 0 of a new run."""
        self.library.begin(self.handle)

    def tapped(self) -> tuple[int, int, int, int]:
        """Steps tapped in this run, nanoseconds that the last tap took, its token events, and how often this thread was
        taken off its core since it began."""
        state: tuple[int, int, int, int] = self.library.tapped(self.handle)
        return state

    def describe(self) -> dict[str, int | bool]:
        """Capacity in records, and whether the memory is locked."""
        capacity, locked = self.library.describe(self.handle)
        return {"capacity": capacity, "locked": bool(locked)}


class RequestRing:
    """The engine's side of the request ring: the consumer."""

    def __init__(self, library: ModuleType, fd: int, wake_fd: int) -> None:
        self.library = library
        self.handle: Any = library.attach(fd, wake_fd, protocol.REQUEST_STREAM, 0)

    def pop(self) -> bytes:
        """The records that are there, at most 64; ValueError if the harness wrote an impossible index."""
        records: bytes = self.library.pop(self.handle)
        return records

    def wait(self, timeout_ms: int) -> None:
        """Sleeps until a record is there or the time has passed."""
        self.library.wait(self.handle, timeout_ms)
