"""The worker processes of an engine of several ranks, which vLLM starts.

vLLM notices the end of one as well, and then first gives the others seconds to leave; where these wait for the dead
one, the step under way comes to no end until they are killed. Here it is known at once, and by name.
"""

import multiprocessing.connection
import signal
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

# How long a process that has closed its files may take to be gone.
REAP_LIMIT_S = 1.0


class Workers:
    """Those of one engine: none where the model runs in the engine process itself, or where vLLM's executor keeps no
    processes that can be looked at.
    """

    def __init__(self, executor: Any) -> None:
        handles = getattr(executor, "workers", None) or ()
        processes = [getattr(handle, "proc", None) for handle in handles]
        self._processes = [process for process in processes if isinstance(process, BaseProcess)]

    def watch(self, tell: Callable[[str], None]) -> None:
        """Calls `tell` with how it went as soon as one of them has ended, from a thread that sleeps until then."""
        if self._processes:
            threading.Thread(target=self._wait, args=(tell,), name="workers", daemon=True).start()

    def death(self) -> str | None:
        """Which of them has ended, and how; None while all live."""
        return self._first_death(0)

    def _wait(self, tell: Callable[[str], None]) -> None:
        if (death := self._first_death(None)) is not None:
            tell(death)

    def _first_death(self, limit_s: float | None) -> str | None:
        sentinels = {process.sentinel: process for process in self._processes}
        for sentinel in multiprocessing.connection.wait(list(sentinels), limit_s):
            process = sentinels[sentinel]  # type: ignore[index]  # a sentinel is a descriptor, and no connection
            # Its files close before it is gone; vLLM's own watch waits for it as well, and only one hears the status.
            process.join(REAP_LIMIT_S)
            return f"worker process {process.name} (pid {process.pid}) {_how(process.exitcode)}"
        return None


def _how(exitcode: int | None) -> str:
    if exitcode is None:
        return "has ended"
    if exitcode < 0:
        names = {number.value: number.name for number in signal.Signals}  # real-time signals have none
        return f"was killed by {names.get(-exitcode, f'signal {-exitcode}')}"
    return f"ended with exit status {exitcode}"
