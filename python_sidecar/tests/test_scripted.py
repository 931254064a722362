"""How a scripted engine waits, and how its runs differ from its script."""

import array
import itertools
import os
import statistics
import tempfile
import threading
import time
from types import ModuleType

from bench_sidecar import protocol
from bench_sidecar.scripted import drop_half_row, pace, pack
from harness import Run, make_ring


def runs(growth_ppm: int, noise: dict[str, int] | None, number: int) -> list[int]:
    return list(itertools.islice(pace(growth_ppm, noise), number))


def test_without_noise_the_runs_grow_evenly() -> None:
    assert runs(0, None, 3) == [0, 0, 0]
    assert runs(20_000, None, 3) == [0, 20_000, 40_000]


def test_noise_has_the_spread_and_the_memory_that_were_asked_for() -> None:
    own = runs(0, {"run_ppm": 4_000, "session_ppm": 0, "seed": 1}, 4_000)
    assert abs(statistics.mean(own)) < 250
    assert 3_800 < statistics.stdev(own) < 4_200
    assert abs(statistics.correlation(own[1:], own[:-1])) < 0.05
    shared = runs(0, {"run_ppm": 0, "session_ppm": 10_000, "seed": 1}, 4_000)
    assert 9_300 < statistics.stdev(shared) < 10_700
    assert 0.55 < statistics.correlation(shared[1:], shared[:-1]) < 0.65


def test_the_same_seed_gives_the_same_runs_and_another_one_others() -> None:
    noise = {"run_ppm": 4_000, "session_ppm": 10_000, "seed": 1}
    assert runs(0, noise, 5) == runs(0, noise, 5)
    assert runs(0, noise, 5) != runs(0, noise | {"seed": 2}, 5)


def test_half_a_row_of_a_killed_engine_is_cut_off() -> None:
    for text, kept in ((b"head\n1,2\n3,", b"head\n1,2\n"), (b"head\n1,2\n", b"head\n1,2\n"), (b"", b""), (b"he", b"")):
        with tempfile.TemporaryFile() as file:
            file.write(text)
            file.flush()
            drop_half_row(file.fileno())
            assert os.pread(file.fileno(), 100, 0) == kept


def test_in_a_long_gap_the_engine_sleeps_and_its_token_is_in_time(library: ModuleType) -> None:
    request = {"first_ns": 1_000_000, "gap_ns": 600_000_000, "gaps_ns": None, "events": None, "counts": None}
    script = {"requests": [request | {"cached": 0, "finish": "length"}], "faults": []}
    event_fd, request_fd, wake = make_ring(protocol.EVENT_STREAM), make_ring(protocol.REQUEST_STREAM), os.eventfd(0)
    events, taken = (library.attach(event_fd, -1, protocol.EVENT_STREAM, side) for side in (1, 0))
    requests, sent = (library.attach(request_fd, wake, protocol.REQUEST_STREAM, side) for side in (0, 1))
    engine = library.scripted_new(*pack(script))
    library.scripted_stage(engine, array.array("I", [8, 3]).tobytes())
    used_s: list[float] = []
    truth, written = os.pipe()

    def run() -> None:
        library.scripted_run(engine, events, requests, 0, written, "run")
        used_s.append(time.thread_time())

    thread = threading.Thread(target=run)
    thread.start()
    found = Run()
    for kind in (protocol.KIND_SUBMIT, protocol.KIND_END):
        library.push(sent, protocol.SUBMIT.pack(kind, *[0] * 16))
        deadline = time.monotonic() + 60
        while not (found.finishes if kind == protocol.KIND_SUBMIT else found.is_over):
            assert time.monotonic() < deadline
            time.sleep(0.01)
            found.take(library.pop(taken))
    thread.join()
    rows = [line.split(",") for line in os.read(truth, 4096).decode().splitlines()]
    assert len(rows) == 3
    assert all(int(emitted) >= int(intended) for *_, intended, emitted in rows)
    assert used_s[0] < 0.6  # of 1.2 s, all of which an engine that spun would have used
    for fd in (event_fd, request_fd, wake, truth, written):
        os.close(fd)
