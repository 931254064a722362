"""What is known of the worker processes of an engine of several ranks, with real processes in their place."""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import Any

import pytest
from bench_sidecar.workers import Workers, deaf_to_a_job


@pytest.fixture
def processes() -> Iterator[list[BaseProcess]]:
    context = multiprocessing.get_context("spawn")
    begun: list[BaseProcess] = [
        context.Process(target=time.sleep, args=(600,), name="rank 0"),
        context.Process(target=sys.exit, args=(3,), name="rank 1"),
    ]
    begun[0].start()
    yield begun
    for process in begun:
        if process.pid is not None:
            process.kill()
            process.join()


def workers_of(*processes: object) -> Workers:
    executor: Any = SimpleNamespace(workers=[SimpleNamespace(proc=process) for process in processes])
    return Workers(executor)


def test_killed_worker_is_told_of_once_and_by_name(processes: list[BaseProcess]) -> None:
    victim = processes[0]
    workers, told = workers_of(victim), queue.SimpleQueue[str]()
    workers.watch(told.put)
    assert workers.death() is None
    assert told.empty()
    victim.kill()
    said = told.get(timeout=5)
    assert said == f"worker process rank 0 (pid {victim.pid}) was killed by SIGKILL"
    assert workers.death() == said
    time.sleep(0.05)
    assert told.empty()


def test_exit_status_of_a_worker_is_said(processes: list[BaseProcess]) -> None:
    processes[1].start()
    workers, told = workers_of(*processes), queue.SimpleQueue[str]()
    workers.watch(told.put)
    assert told.get(timeout=30) == f"worker process rank 1 (pid {processes[1].pid}) ended with exit status 3"


def test_status_that_another_has_heard_is_not_made_up(processes: list[BaseProcess]) -> None:
    victim = processes[0]
    assert victim.pid is not None
    workers = workers_of(victim)
    victim.kill()
    os.waitpid(victim.pid, 0)
    assert workers.death() == f"worker process rank 0 (pid {victim.pid}) has ended"


def be_a_worker(ready: Connection) -> None:
    """As vLLM's workers: ends by SIGTERM, and when the other end of the pipe is closed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ready.send("ready")
    with contextlib.suppress(EOFError):
        ready.recv()


def test_worker_that_handles_sigterm_ends_with_its_engine_alone() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with deaf_to_a_job():
        _lock = context.Lock()  # starts the resource tracker, as vLLM does
        worker = context.Process(target=be_a_worker, args=(theirs,))
        worker.start()
    theirs.close()
    assert ours.recv() == "ready"
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for _ in range(3):
        worker.terminate()
    worker.join(0.2)
    assert worker.is_alive()
    ours.close()
    worker.join(30)
    assert worker.exitcode == 0


def test_first_death_stays_the_one_that_is_named(processes: list[BaseProcess]) -> None:
    processes[1].start()
    processes[1].join()
    workers = workers_of(*processes)
    said = workers.death()
    processes[0].kill()
    processes[0].join()
    assert workers.death() == said == f"worker process rank 1 (pid {processes[1].pid}) ended with exit status 3"


@pytest.mark.parametrize(
    "executor", [None, SimpleNamespace(), SimpleNamespace(workers=None), SimpleNamespace(workers=[SimpleNamespace()])]
)
def test_executor_without_processes_is_not_watched(executor: object) -> None:
    workers = Workers(executor)
    workers.watch(lambda death: pytest.fail(death))
    assert workers.death() is None
