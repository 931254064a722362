"""The worker processes of an engine of several ranks, which vLLM starts.

vLLM notices the end of one as well, and then first gives the others seconds to leave; where these wait for the dead
one, the step under way comes to no end until they are killed. Here it is known at once, and by name.
"""

import contextlib
import multiprocessing.connection
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

# How long a process that has closed its files is waited for, to be able to say how it ended.
REAP_LIMIT_S = 1.0
# The signals of a terminal or a job, which a run does not end for.
OF_A_JOB = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def deaf_to_a_job() -> Iterator[None]:
    """Blocks OF_A_JOB in this thread and in every process that the body starts. vLLM's workers have handlers that end
    them, and ignoring a signal here would not keep them from it. A worker still ends by SIGKILL, and with its engine
    process, whose end of a pipe it reads.
    """
    resource_tracker.ensure_running()  # Python 3.11 unblocks SIGTERM and SIGINT when it starts this process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_A_JOB)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Workers:
    """Those of one engine: none where the model runs in the engine process itself, or where vLLM's executor keeps no
    processes that can be looked at.
    """

    def __init__(self, executor: Any) -> None:
        handles = getattr(executor, "workers", None) or ()
        processes = [getattr(handle, "proc", None) for handle in handles]
        self._processes = [process for process in processes if isinstance(process, BaseProcess)]
        self._looking = threading.Lock()
        self._death: str | None = None

    def watch(self, tell: Callable[[str], None]) -> None:
        """Calls `tell` with how it went as soon as one of them has ended, from a thread that sleeps until then."""
        if self._processes:
            threading.Thread(target=self._wait, args=(tell,), name="workers", daemon=True).start()

    def death(self) -> str | None:
        """Which of them ended first, and how; None while all live. The others are ended on account of it."""
        with self._looking:
            if self._death is None and (ended := self._ended(0)):
                self._death = _how(ended[0])
            return self._death

    def _wait(self, tell: Callable[[str], None]) -> None:
        self._ended(None)
        if (death := self.death()) is not None:
            tell(death)

    def _ended(self, limit_s: float | None) -> list[BaseProcess]:
        """Those whose files are closed, which the process itself may outlive for a while."""
        sentinels = {process.sentinel: process for process in self._processes}
        ready = multiprocessing.connection.wait(list(sentinels), limit_s)
        return [sentinels[sentinel] for sentinel in ready if isinstance(sentinel, int)]


def _how(process: BaseProcess) -> str:
    name = f"worker process {process.name} (pid {process.pid})"
    exitcode = _exitcode(process)
    if exitcode is None:
        return f"{name} has ended"
    if exitcode < 0:
        names = {number.value: number.name for number in signal.Signals}  # real-time signals have none
        return f"{name} was killed by {names.get(-exitcode, f'signal {-exitcode}')}"
    return f"{name} ended with exit status {exitcode}"


def _exitcode(process: BaseProcess) -> int | None:
    """None if it does not come in time, or somebody else has heard it. `join` would wait without a limit once the files
    are closed.
    """
    deadline = time.monotonic() + REAP_LIMIT_S
    while (exitcode := process.exitcode) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    return exitcode
