"""What observing changes: the same engine, stepped with and without what bench adds, step by step in random order."""

import gc
import random
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .control import Message
from .records import EngineError

if TYPE_CHECKING:
    from .vllm_driver import VllmDriver

PROMPT_TOKENS = 64
# Steps after which a new batch may be measured: prefill, and what its first decodes warm up.
SETTLING_STEPS = 8
# The order of the ways in each round is drawn from it.
SEED = 7


class Observer:
    """Steps one loaded engine in several ways, and takes the time of each step.

    `on`: the driver's own step, as in a run. `off`: the same with the tap taken out of the executor, and so without a
    step record. `engine_core`: a bare loop over EngineCore's step function. `llm_engine`: a bare loop over
    LLMEngine.step().
    """

    def __init__(self, driver: "VllmDriver") -> None:
        self.driver = driver
        self.order = random.Random(SEED)
        self.engine = driver.engine
        self.executor = self.engine.core.model_executor
        self.tapped: type[Any] = type(self.executor)
        self.bare: type[Any] = self.tapped.__bases__[0]
        self.ways: dict[str, Callable[[], object]] = {
            "on": driver.look_and_step,
            "off": driver.look_and_step,
            "engine_core": self._core_step,
            "llm_engine": self.engine.llm.step,
        }

    def measure(self, batch: int, rounds: int, ways: list[str]) -> Message:
        """Times of `rounds` steps of each of `ways`, in nanoseconds, round by round; instructions beside them where the
        machine counts them. EngineError under async scheduling, where the tap sees the tokens of a step within the next
        one, whose way may be another.
        """
        if self.engine.config.scheduler_config.async_scheduling:
            raise EngineError("what observing changes is measured step by step: add --no-async-scheduling to args")
        times: dict[str, list[int]] = {way: [] for way in ways}
        instructions: dict[str, list[int]] = {way: [] for way in ways}
        count = instruction_counter(self.driver.events.library)
        per_fill = (self._room() - SETTLING_STEPS) // len(ways)
        gc.collect()
        gc.disable()
        try:
            while (missing := rounds - len(times[ways[0]])) > 0:
                self._fill(batch)
                for _ in range(min(missing, per_fill)):
                    for way in self.order.sample(ways, len(ways)):
                        began, began_ns = count(), time.perf_counter_ns()
                        self._step(way)
                        times[way].append(time.perf_counter_ns() - began_ns)
                        instructions[way].append(count() - began)
                self._clear()
        finally:
            gc.enable()
            self.executor.__class__ = self.tapped
        has_instructions = any(instructions[ways[0]])
        return {"times_ns": times, "instructions": instructions if has_instructions else None}

    def _room(self) -> int:
        """Output tokens of a request that fills the model."""
        return int(self.engine.config.model_config.max_model_len) - PROMPT_TOKENS

    def _step(self, way: str) -> None:
        self.executor.__class__ = self.tapped if way == "on" else self.bare
        self.ways[way]()

    def _core_step(self) -> None:
        _outputs, executed = self.engine.core.step_fn()
        self.engine.core.post_step(executed)

    def _fill(self, batch: int) -> None:
        """Takes a batch through its prefill and its first steps."""
        self.engine.unstage()
        self.driver.events.begin()
        self.executor.__class__ = self.tapped
        vocabulary = self.engine.facts()["vocab_size"]
        for handle in range(batch):
            prompt = [(handle * 7 + position) % vocabulary for position in range(PROMPT_TOKENS)]
            self.engine.stage(handle, prompt, self._room(), salt="observer")
            self.engine.submit_to_both(handle)
        for _ in range(SETTLING_STEPS):
            self.driver.look_and_step()
        running = len(self.engine.scheduler.running)
        if running != batch:
            raise EngineError(f"{running} of {batch} requests run together: the engine was built for smaller batches")

    def _clear(self) -> None:
        self.executor.__class__ = self.tapped
        self.engine.forget_outputs()
        self.engine.drain()
        self.engine.reset()


def instruction_counter(library: ModuleType) -> Callable[[], int]:
    """Counts the instructions that this thread has retired; always 0 where the machine does not count them."""
    return library.instructions if library.instructions() >= 0 else (lambda: 0)
