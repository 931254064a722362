"""Drives vLLM: between two steps it looks at the request ring, and at nothing else."""

import array
import gc
import time
from collections.abc import Iterator
from functools import cached_property

from . import failures, protocol
from .control import Message
from .driver import Driver, Lease, Progress, failure
from .engine import Engine
from .observer import Observer
from .records import EngineError, unpack_requests
from .tap import library_push, no_push

# How long an idle engine looks at the ring before it sleeps, and how long it sleeps at most before it looks again.
SPIN_NS = 2_000_000
SLEEP_MS = 100
# Steps in a row in which the engine has work and no model runs. An engine that has failed inside may go on so for ever;
# a full pipeline and the clearing away of finished requests take one or two.
MAX_EMPTY_STEPS = 100_000


class VllmDriver(Driver):
    """Carries out runs on one vLLM engine."""

    def __init__(self, lease: Lease, progress: Progress) -> None:
        message = lease.message
        with failures.explained():
            self.engine = Engine(message["argv"], message["step_api"], message.get("device"))
            progress.stage = "self-test"
            self.checked = self.engine.self_test()
        super().__init__(lease)
        self.stepped = False
        self.granted = 0
        self.empty_steps = 0
        self.stepping_ns = 0
        self.dispatched_ns: int | None = None
        # By step: its number, drafts, tokens drafted, tokens accepted. None if the engine does not speculate.
        self.drafts: list[tuple[int, int, int, int]] | None = [] if self.engine.speculates else None
        self.refused: list[int] = []
        # All that vLLM's modules hold, millions of objects, is never collected: walking it took 0.4 s before each run.
        gc.collect()
        gc.freeze()
        self.engine.workers.watch(self._tell_of_dead_worker)

    def take(self, lease: Lease) -> None:
        """Works for this holder from now on: the tap pushes into its ring."""
        super().take(lease)
        self.engine.tap.push = library_push(lease.events.library, lease.events.handle)

    def serve(self) -> bool:
        """Answers until told to shut down, which gives False, or to wait for another holder."""
        try:
            return super().serve()
        except Exception as err:
            if (death := self.engine.workers.death()) is not None:
                raise EngineError(death) from err
            raise

    def describe(self) -> tuple[Message, list[str]]:
        """What the report says of this engine, and what was noticed as it was loaded."""
        facts = self.engine.facts()
        facts["other"]["self_test"] = self.checked
        return facts, self.engine.warnings

    def stage(self, message: Message, fds: list[int]) -> None:
        """Builds the requests of a run."""
        self.engine.unstage()
        if len(fds) != 1:
            raise EngineError(f"the prompts come in one memfd; {len(fds)} descriptors came with the message")
        prompts = _prompts(fds[0], message["prompt_tokens"])
        for handle, (prompt, output_tokens) in enumerate(zip(prompts, message["output_tokens"], strict=True)):
            self.engine.stage(handle, prompt, output_tokens, message["salt"])

    def begin(self, message: Message) -> None:
        """Gets ready for requests, which must not wait for a collection."""
        self.engine.lower_limits(message["limits"])
        self.stepped = message["drive"] == "stepped"
        self.stepping_ns = 0
        self.refused = []
        if self.drafts is not None:
            self.drafts = []
        if self.engine.compilations is not None:
            self.engine.compilations.forget()
        gc.collect()
        gc.disable()

    def reset(self) -> bool:
        """Empties the prefix cache; False if the engine would not."""
        return self.engine.reset()

    def forget(self) -> bool:
        """Drains and empties the engine; False if it would not."""
        is_empty = self.engine.reset()
        self.engine.unstage()
        self.engine.tap.push = no_push
        return is_empty and self.engine.workers.death() is None

    def answer_other(self, operation: str, message: Message) -> Message:
        """Measures what observing changes."""
        if operation != "observe":
            return super().answer_other(operation, message)
        self.stepped = False
        return self.observer.measure(message["batch"], message["rounds"], message["ways"])

    @cached_property
    def observer(self) -> Observer:
        """Made when it is first asked for."""
        return Observer(self)

    def look_and_step(self) -> None:
        """What a run does between one step and the next, and the step."""
        self._take_requests()
        self._step()

    def run(self) -> Message:
        """One run: from the first submit to the record that ends it. Says how it went."""
        try:
            self._window()
            steps = self.events.tapped()[0]
            aborted = self.engine.drain()
        finally:
            gc.enable()
        for finish in aborted:
            self.events.push_in_the_end(finish.pack(steps))
        self.events.push_in_the_end(protocol.ENDED.pack(protocol.KIND_ENDED, 0, 0, 0, 0, steps, 0, 0, 0, 0, 0))
        ended: Message = {"steps": steps, "stepping_ns": self.stepping_ns, "refused": self.refused}
        if self.drafts is not None:
            ended["drafts"] = self.drafts
        if self.engine.compilations is not None:
            ended["compilations"] = self.engine.compilations.seen()
        return ended

    def _tell_of_dead_worker(self, death: str) -> None:
        """From a thread of its own: the step under way may wait for that worker for long."""
        self.control.send(failure("run", EngineError(death)))

    def _window(self) -> None:
        """Submits and steps until the run is ended."""
        self.granted = self.empty_steps = 0
        self.dispatched_ns = None
        idle_since_ns = time.monotonic_ns()
        while self._take_requests():
            if self.engine.has_work() and (self.granted or not self.stepped):
                self._step()
                idle_since_ns = time.monotonic_ns()
            elif time.monotonic_ns() - idle_since_ns > SPIN_NS:
                self.requests.wait(SLEEP_MS)

    def _take_requests(self) -> bool:
        """Carries out all that is in the request ring; False if the run is over."""
        while popped := self.requests.pop():
            for kind, value in unpack_requests(popped):
                if kind == protocol.KIND_END:
                    return False
                if kind == protocol.KIND_GRANT:
                    self.granted += value
                elif not self.engine.submit(value):
                    self.refused.append(value)
        return True

    def _step(self) -> None:
        """One engine step with its record. A step in which no model ran has none, and uses up no grant.

        Under async scheduling a step that finds no batch under way hands one to the model and returns without tokens:
        the step in which they come out is recorded from there.
        """
        started_ns = time.monotonic_ns()
        engine = self.engine
        finished = engine.step()
        ended_ns = time.monotonic_ns()
        self.stepping_ns += ended_ns - started_ns
        finishes = b"".join([finish.pack() for finish in finished]) if finished else b""
        began_ns = started_ns if self.dispatched_ns is None else self.dispatched_ns
        if not self.events.step(began_ns, ended_ns, engine.executed(), engine.statistics(), finishes):
            self._note_empty_step(started_ns)
            return
        if self.drafts is not None and (drafted := engine.drafted()) is not None:
            self.drafts.append((self.events.tapped()[0] - 1, *drafted))
        self.dispatched_ns = None
        self.empty_steps = 0
        self.granted = max(self.granted - 1, 0)

    def _note_empty_step(self, started_ns: int) -> None:
        """A step without tokens: a batch may have been handed to the model in it."""
        if self.dispatched_ns is None and self.engine.is_under_way():
            self.dispatched_ns = started_ns
        self.empty_steps += 1
        if self.empty_steps > MAX_EMPTY_STEPS:
            raise EngineError(f"the engine has work, and ran no model in {MAX_EMPTY_STEPS} steps in a row")


def _prompts(fd: int, lengths: list[int]) -> Iterator[list[int]]:
    """The prompts that stand one after the other in a memfd of 32-bit token ids."""
    total = sum(lengths)
    tokens = array.array("I")
    with open(fd, "rb", closefd=False) as memory:
        memory.seek(0)
        try:
            tokens.fromfile(memory, total)
        except EOFError:
            raise EngineError(f"the staged memory holds {len(tokens)} token ids, {total} are needed") from None
    at = 0
    for length in lengths:
        yield tokens[at : at + length].tolist()
        at += length
