"""What an engine says of its steps and requests, and the records that carry it over the rings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import protocol

STOP, LENGTH, ABORT, ERROR, OTHER = 1, 2, 3, 4, 5
_REASONS = {"stop": STOP, "length": LENGTH, "abort": ABORT, "error": ERROR}
_LARGEST_U16 = 0xFFFF


class EngineError(RuntimeError):
    """The engine cannot do what is asked; the message is for the user."""


@dataclass(slots=True)
class Finish:
    """How a request ended, in the engine's words. Times are CLOCK_MONOTONIC nanoseconds."""

    handle: int
    reason: int
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    queued_ns: int
    scheduled_ns: int
    first_token_ns: int
    last_token_ns: int
    preemptions: int

    def pack(self, step: int = 0) -> bytes:
        """The finish record. What is pushed with a step's record gets the number of that step."""
        return protocol.FINISH.pack(
            protocol.KIND_FINISH,
            self.reason,
            min(self.preemptions, _LARGEST_U16),
            step,
            0,
            self.queued_ns,
            self.scheduled_ns,
            self.first_token_ns,
            self.last_token_ns,
            self.handle,
            self.prompt_tokens,
            self.output_tokens,
            self.cached_tokens,
        )


@dataclass(slots=True)
class Staged:
    """A request that is ready to be handed to the engine, and what is known of it since."""

    handle: int
    core_request: Any  # EngineCoreRequest
    request: Any  # Request
    cached_tokens: int = protocol.UNKNOWN_COUNT
    queued_ns: int = protocol.ABSENT_NS
    scheduled_ns: int = protocol.ABSENT_NS
    first_token_ns: int = protocol.ABSENT_NS
    is_submitted: bool = False

    def take(self, output: Any, output_ns: int) -> Finish | None:
        """Takes the stamps from an EngineCoreOutput made at `output_ns`; how the request ended, if it has."""
        for event in output.events or ():
            self._keep_first_stamp(event)
        if output.prefill_stats is not None:
            self.cached_tokens = output.prefill_stats.num_cached_tokens
            self.first_token_ns = output_ns
        if output.finish_reason is None:
            return None
        return self.finish(_REASONS.get(str(output.finish_reason), OTHER), output_ns)

    def finish(self, reason: int, last_token_ns: int) -> Finish:
        """How the request ended."""
        return Finish(
            handle=self.handle,
            reason=reason,
            prompt_tokens=self.request.num_prompt_tokens,
            output_tokens=self.request.num_output_tokens,
            cached_tokens=self.cached_tokens,
            queued_ns=self.queued_ns,
            scheduled_ns=self.scheduled_ns,
            first_token_ns=self.first_token_ns,
            last_token_ns=last_token_ns if self.request.num_output_tokens else protocol.ABSENT_NS,
            preemptions=self.request.num_preemptions,
        )

    def _keep_first_stamp(self, event: Any) -> None:
        name = event.type.name
        if name == "QUEUED":
            self.queued_ns = to_ns(event.timestamp)
        elif name == "SCHEDULED" and self.scheduled_ns == protocol.ABSENT_NS:
            self.scheduled_ns = to_ns(event.timestamp)


def to_ns(seconds: float) -> int:
    """Seconds of `time.monotonic` in nanoseconds."""
    return round(seconds * 1e9)


def handle_of(request_id: str) -> int:
    """The handle that a request id starts with."""
    return int(request_id.partition("-")[0])


def unpack_requests(popped: bytes) -> Iterator[tuple[int, int]]:
    """Kind and value (handle or count) of each request record; ValueError for a kind that is none."""
    for at in range(0, len(popped), protocol.RECORD_SIZE):
        kind, _count, _flags, _step, _emitted_ns, value, *_ = protocol.SUBMIT.unpack_from(popped, at)
        if kind not in (protocol.KIND_SUBMIT, protocol.KIND_GRANT, protocol.KIND_END):
            raise ValueError(f"the request ring holds a record of unknown kind {kind}: the harness is broken")
        yield kind, value
