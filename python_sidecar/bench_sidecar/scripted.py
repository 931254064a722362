"""The scripted engine: tokens on a schedule in place of vLLM's, through the same tap, rings and records.

The schedule is kept by compiled code, a whole run in one call; here the script is packed for it, and faults take their
course.
"""

import array
import csv
import io
import itertools
import math
import os
import random
import signal
import struct
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

from . import protocol
from .control import Message
from .driver import Driver, Lease
from .records import ABORT, ERROR, LENGTH, STOP, EngineError
from .ring import EventRing, RequestRing
from .tap import Tap, library_push

_NONE = protocol.UNKNOWN_COUNT  # kNone in ffi/scripted.hpp
_REQUEST = struct.Struct("=QQIIIIIxxxx")  # ScriptedRequest in ffi/scripted.hpp
_FAULT = struct.Struct("=II")
_REASONS = {"stop": STOP, "length": LENGTH, "abort": ABORT, "error": ERROR}
_FAULTS = ("raise", "exit", "hang", "silent", "lose", "wrong_length")
# How a run ended: ScriptedEngine::End.
_ASKED, _BROKEN_RING, _RAISE, _EXIT, _HANG, _SILENT = range(6)
EXIT_STATUS = 70
# What a run keeps of the noise that it shares with the one before.
_KEPT = 0.6
# More than the caches of a core hold.
WALK_BYTES = 8 << 20


class ScriptedEngine:
    """One scripted engine, with what the driver needs of an engine."""

    def __init__(self, library: ModuleType, script: Message) -> None:
        self.warnings: list[str] = []
        self.library = library
        self._script = script
        self._handle: Any = library.scripted_new(*pack(script))
        self._pace = pace(script["growth_ppm"], script["noise"])
        self._longer_ppm = 0
        self._truth = -1
        self._lengths = array.array("I")
        self._run = ""

    def facts(self) -> Message:
        """What the report says of this engine."""
        return {
            "vllm_version": None,
            "prefix_block_size": 16,
            "max_model_len": _NONE,
            "vocab_size": 1 << 15,
            "num_kv_blocks": None,
            "async_scheduling": False,
            "prefix_caching": True,
            "max_num_seqs": _NONE,
            "max_num_batched_tokens": _NONE,
            "weights": None,
            "other": {"engine_cores": sorted(os.sched_getaffinity(0))},
        }

    def open_truth(self, path: str) -> None:
        """Opens the file to which it is appended what the engine really did."""
        if self._truth >= 0:
            os.close(self._truth)
        self._truth = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        drop_half_row(self._truth)

    def begin(self, run: str, limits: dict[str, int | None]) -> None:
        """Names the run. EngineError for limits, which a script does not have."""
        if any(value is not None for value in limits.values()):
            raise EngineError("`limits` mean nothing to a scripted engine: take them out")
        name = io.StringIO()
        csv.writer(name, lineterminator="").writerow([run])
        self._run = name.getvalue()

    def stage(self, lengths: Sequence[tuple[int, int]]) -> None:
        """Takes the lengths of a run's requests, prompt and output, by handle."""
        if (longer_ppm := next(self._pace)) != self._longer_ppm:
            self._handle = self.library.scripted_new(*pack(stretched(self._script, longer_ppm)))
            self._longer_ppm = longer_ppm
        packed = array.array("I", [length for pair in lengths for length in pair])
        self.library.scripted_stage(self._handle, packed.tobytes())

    def run(self, events: EventRing, requests: RequestRing, stepped: bool) -> tuple[int, list[int]]:
        """One run; nanoseconds spent in steps, and the handles that were refused."""
        end, stepping_ns, refused = self.library.scripted_run(
            self._handle, events.handle, requests.handle, int(stepped), self._truth, self._run
        )
        if end == _BROKEN_RING:
            raise EngineError("the request ring is broken: the harness is broken")
        if end != _ASKED:
            self._fail(end, events)
        handles = array.array("I")
        handles.frombytes(refused)
        return stepping_ns, handles.tolist()

    def _fail(self, end: int, events: EventRing) -> NoReturn:
        """What the script's fault does."""
        step = events.tapped()[0]
        if end == _EXIT:
            os._exit(EXIT_STATUS)
        if end == _HANG:
            os.kill(os.getpid(), signal.SIGSTOP)
        while end == _SILENT:  # answers nothing; the harness's death still ends the process
            time.sleep(1)
        raise EngineError(f"the script raises at step {step}")


class ScriptedDriver(Driver):
    """Carries out runs on a scripted engine."""

    def __init__(self, lease: Lease) -> None:
        self.engine = ScriptedEngine(lease.events.library, lease.message["script"])
        self.stepped = False
        super().__init__(lease)

    def take(self, lease: Lease) -> None:
        """Works for this holder from now on, and puts down in its file what it really did."""
        super().take(lease)
        self.engine.open_truth(lease.message["truth"])

    def describe(self) -> tuple[Message, list[str]]:
        """What the report says of this engine; there is nothing to notice."""
        return self.engine.facts(), []

    def stage(self, message: Message, fds: list[int]) -> None:
        """Takes the lengths; nobody reads the prompts."""
        self.engine.stage(list(zip(message["prompt_tokens"], message["output_tokens"], strict=True)))

    def begin(self, message: Message) -> None:
        """Gets ready for requests."""
        self.engine.begin(message["run"], message["limits"])
        self.stepped = message["drive"] == "stepped"

    def run(self) -> Message:
        """One run, by the script."""
        stepping_ns, refused = self.engine.run(self.events, self.requests, self.stepped)
        return {"steps": self.events.tapped()[0], "stepping_ns": stepping_ns, "refused": refused}

    def reset(self) -> bool:
        """There is no cache."""
        return True

    def forget(self) -> bool:
        """The script begins anew with every run."""
        return True

    def answer_other(self, operation: str, message: Message) -> Message:
        """Measures the tap."""
        if operation != "measure_tap":
            return super().answer_other(operation, message)
        return {"tap_push_ns": measure_tap(self.events, message["batch"], message["steps"])}


class StepOutput:
    """What a step of vLLM's gives to the tap: new objects in every step."""

    def __init__(self, batch: int, step: int) -> None:
        self.req_ids = [f"{handle}-0123456789abcdef" for handle in range(batch)]
        self.sampled_token_ids = [[step + handle] for handle in range(batch)]


def measure_tap(events: EventRing, batch: int, steps: int) -> list[int]:
    """Nanoseconds that tap and push take in made-up steps, each after a walk through memory that empties the caches."""
    tap = Tap()
    tap.push = library_push(events.library, events.handle)
    others = bytes(WALK_BYTES)
    samples = []
    for step in range(steps):
        output = StepOutput(batch, step)
        others.count(1)
        tap.see(step, output)
        samples.append(events.tapped()[1])
    return samples


def drop_half_row(fd: int) -> None:
    """Cuts off the row that a killed engine has not written to its end."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, 4096, max(0, size - 4096))
    os.ftruncate(fd, size - len(tail) + tail.rfind(b"\n") + 1)


def pace(growth_ppm: int, noise: Message | None) -> Iterator[int]:
    """By how many millionths the times of an engine's runs are longer than the script says, run by run."""
    noise = noise or {"run_ppm": 0, "session_ppm": 0, "seed": 0}
    chance = random.Random(noise["seed"])
    shared = chance.gauss()
    for number in itertools.count():
        log = (noise["run_ppm"] * chance.gauss() + noise["session_ppm"] * shared) / 1_000_000
        yield growth_ppm * number + round(math.expm1(log) * 1_000_000)
        shared = _KEPT * shared + math.sqrt(1 - _KEPT**2) * chance.gauss()


def stretched(script: Message, longer_ppm: int) -> Message:
    """The script with all its times longer by so many millionths."""

    def longer(time_ns: int) -> int:
        return time_ns + time_ns * longer_ppm // 1_000_000

    def request(one: Message) -> Message:
        gaps_ns = one["gaps_ns"] and [longer(gap_ns) for gap_ns in one["gaps_ns"]]
        return {**one, "first_ns": longer(one["first_ns"]), "gap_ns": longer(one["gap_ns"]), "gaps_ns": gaps_ns}

    return {**script, "requests": [request(one) for one in script["requests"]]}


def pack(script: Message) -> tuple[bytes, bytes, bytes, bytes]:
    """A script as `scripted_new` takes it: requests, their gaps, their counts, and the faults."""
    requests: list[bytes] = []
    gaps = array.array("Q")
    counts = array.array("H")
    for request in script["requests"]:
        first_gap = first_count = _NONE
        if request["gaps_ns"] is not None:
            first_gap = len(gaps)
            gaps.extend(request["gaps_ns"])
        if request["counts"] is not None:
            first_count = len(counts)
            counts.extend(request["counts"])
        numbers = (request["events"] or 0, first_gap, first_count, request["cached"], _REASONS[request["finish"]])
        requests.append(_REQUEST.pack(request["first_ns"], request["gap_ns"], *numbers))
    faults = [_FAULT.pack(fault["at_step"], _FAULTS.index(fault["kind"])) for fault in script["faults"]]
    return b"".join(requests), gaps.tobytes(), counts.tobytes(), b"".join(faults)
