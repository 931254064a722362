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

    def pack(self, step: int) -> bytes:
        """The finish record."""
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
class StepStats:
    """What one engine step did. Queue lengths and cache use are those after it."""

    finished: list[Finish]
    prefill_requests: int = 0
    prefill_tokens: int = 0
    decode_requests: int = 0
    decode_tokens: int = 0
    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    preemptions: int = 0
    involuntary_switches: int = 0

    def count_batch(self, scheduled: Any) -> None:
        """Takes the batch from a SchedulerOutput, split into prefill and decode.

        A request is in prefill while it has no output token, and in the step that takes it up again after a preemption.
        """
        tokens: dict[str, int] = scheduled.num_scheduled_tokens
        prefill = [request.req_id for request in scheduled.scheduled_new_reqs]
        cached = scheduled.scheduled_cached_reqs
        resumed = cached.resumed_req_ids
        if resumed or 0 in cached.num_output_tokens:
            made = zip(cached.req_ids, cached.num_output_tokens, strict=True)
            prefill += [name for name, count in made if count == 0 or name in resumed]
        self.prefill_requests = len(prefill)
        self.prefill_tokens = sum(tokens.get(name, 0) for name in prefill)
        self.decode_requests = len(tokens) - len(prefill)
        self.decode_tokens = scheduled.total_num_scheduled_tokens - self.prefill_tokens
        self.preemptions = len(getattr(scheduled, "preempted_req_ids", None) or ())

    def pack(self, step: int, started_ns: int, ended_ns: int, tap_push_ns: int, token_events: int) -> bytes:
        """The step record."""
        return protocol.STEP.pack(
            protocol.KIND_STEP,
            0,
            min(self.involuntary_switches, _LARGEST_U16),
            step,
            0,
            started_ns,
            ended_ns,
            self.prefill_tokens,
            self.decode_tokens,
            self.waiting,
            round(self.kv_cache_usage * 1e6),
            tap_push_ns,
            token_events,
            min(self.prefill_requests, _LARGEST_U16),
            min(self.decode_requests, _LARGEST_U16),
            min(self.running, _LARGEST_U16),
            min(self.preemptions, _LARGEST_U16),
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
