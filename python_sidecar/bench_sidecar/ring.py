"""The shared-memory ring and the tap, as the compiled extension `bench_ring` offers them.

The extension is part of libbench_ring.so, the library whose C ABI the harness links too, so both processes run the
same memory-ordering code.
"""

import importlib.machinery
import importlib.util
from types import ModuleType
from typing import Any

from . import protocol


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

    def push_in_the_end(self, records: bytes) -> None:
        """Pushes records that a run cannot end without, waiting for room. That they found none is counted; OSError if
        none comes in 30 seconds.
        """
        self.library.push_in_the_end(self.handle, records)

    def begin(self) -> None:
        """The next tap is step 0 of a new run."""
        self.library.begin(self.handle)

    def step(self, started_ns: int, ended_ns: int, scheduled: Any, stats: Any, finishes: bytes) -> bool:
        """Pushes the record of a step, with those of the requests that ended in it; False if the tap saw none and no
        request ended: then there is nothing to record.

        `scheduled` is vLLM's SchedulerOutput of the batch whose tokens came out, `stats` its SchedulerStats after the
        step; None where there is none. Waits for room as `push_in_the_end` does.
        """
        return bool(self.library.step(self.handle, started_ns, ended_ns, scheduled, stats, finishes))

    def tapped(self) -> tuple[int, int, int]:
        """Steps tapped in this run, nanoseconds that the last tap took, and its token events."""
        state: tuple[int, int, int] = self.library.tapped(self.handle)
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
