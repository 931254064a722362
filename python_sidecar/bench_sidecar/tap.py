"""The tap: the place in vLLM's executor where token ids first reach the host."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import ModuleType
from typing import Any

Push = Callable[[int, list[str], list[list[int]]], None]


class Tap:
    """Where token ids are seen first. `push` is called with (entered_ns, req_ids, sampled_token_ids) in every step."""

    def __init__(self) -> None:
        self.push: Push = no_push
        # The SchedulerOutput handed to the model last, and the one whose tokens came out last: under async scheduling
        # the second is a step behind the first.
        self.scheduled: Any = None
        self.executed: Any = None
        # Batches whose tokens are to come out of a future.
        self.under_way = 0

    def see(self, scheduled: Any, output: Any) -> None:
        """Pushes the tokens of `output`. None stands for a step that failed: the engine raises its error itself."""
        entered_ns = time.monotonic_ns()
        if output is not None:
            self.push(entered_ns, output.req_ids, output.sampled_token_ids)
            self.executed = scheduled


def no_push(_entered_ns: int, _req_ids: list[str], _sampled: list[list[int]]) -> None:
    """Where nothing is to be pushed: before a ring is attached, and while a run is drained."""


def tapped(base: type[Any], tap: Tap) -> type[Any]:
    """The executor class `base` with the tap in `sample_tokens`."""
    # Looked up once: `super()` would do it in every step.
    execute_model, sample_tokens = base.execute_model, base.sample_tokens

    class TappedExecutor(base):  # type: ignore[misc]  # which executor it is, is known when the engine is built
        def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
            tap.scheduled = scheduler_output
            return execute_model(self, scheduler_output, non_block)

        def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
            scheduled = tap.scheduled
            output = sample_tokens(self, grammar_output, non_block)
            if isinstance(output, Future):
                return tap_result(output, tap, scheduled)
            tap.see(scheduled, output)
            return output

    TappedExecutor.__name__ = f"Tapped{base.__name__}"
    return TappedExecutor


def tap_result(future: "Future[Any]", tap: Tap, scheduled: Any) -> "Future[Any]":
    """Under async scheduling the tokens of the batch `scheduled` come out of a future: taps its first result."""
    result = future.result
    is_seen = False
    tap.under_way += 1

    def tapped_result(timeout: float | None = None) -> Any:
        nonlocal is_seen
        output = result(timeout)
        if not is_seen:
            is_seen = True
            tap.under_way -= 1
            tap.see(scheduled, output)
        return output

    future.result = tapped_result  # type: ignore[method-assign]
    return future


def library_push(library: ModuleType, ring: Any) -> Push:
    """Pushes into `ring`, without a frame of Python's between."""
    return partial(library.tap, ring)
