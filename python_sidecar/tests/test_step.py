"""The record of a step, read from what vLLM hands out, which is stood in for here."""

import threading
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from bench_sidecar import protocol
from bench_sidecar.records import LENGTH, Finish
from bench_sidecar.ring import EventRing
from harness import Step, make_ring


class Ring:
    """An event ring with both its sides."""

    def __init__(self, library: ModuleType, capacity: int = 64) -> None:
        fd = make_ring(protocol.EVENT_STREAM, capacity)
        self.library = library
        self.events = EventRing(library, fd, -1)
        self.reader = library.attach(fd, -1, protocol.EVENT_STREAM, 0)
        self.events.begin()

    def tap(self, requests: int) -> None:
        """A step in which each request gets a token; its token records are taken out."""
        self.library.tap(self.events.handle, 0, [f"{handle}-salt" for handle in range(requests)], [[5]] * requests)
        self.library.pop(self.reader)

    def records(self) -> list[bytes]:
        """What is in the ring."""
        popped = self.library.pop(self.reader)
        return [popped[at : at + protocol.RECORD_SIZE] for at in range(0, len(popped), protocol.RECORD_SIZE)]

    def step(self, scheduled: Any = None, stats: Any = None) -> Step:
        """The record of a step with one token."""
        self.tap(1)
        assert self.events.step(10, 20, scheduled, stats, b"")
        (record,) = self.records()
        return read(record)


def read(record: bytes) -> Step:
    values = protocol.STEP.unpack(record)
    assert (values[0], values[1]) == (protocol.KIND_STEP, 0)
    return Step(values[3], *values[5:])


@pytest.fixture
def ring(library: ModuleType) -> Ring:
    return Ring(library)


def batch(new: list[str], cached: dict[str, int], resumed: set[str], tokens: dict[str, int], **more: Any) -> Any:
    """A SchedulerOutput."""
    return SimpleNamespace(
        num_scheduled_tokens=tokens,
        total_num_scheduled_tokens=sum(tokens.values()),
        scheduled_new_reqs=[SimpleNamespace(req_id=name) for name in new],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=list(cached), num_output_tokens=list(cached.values()), resumed_req_ids=resumed
        ),
        **more,
    )


def test_batch_is_split_into_prefill_and_decode(ring: Ring) -> None:
    made = {"chunk": 0, "decode": 4, "again": 9}
    tokens = {"new": 100, "chunk": 50, "decode": 1, "again": 60}
    step = ring.step(batch(["new"], made, {"again"}, tokens, preempted_req_ids={"gone"}))
    assert (step.prefill_requests, step.prefill_tokens) == (3, 210)
    assert (step.decode_requests, step.decode_tokens) == (1, 1)
    assert (step.preemptions, step.started_ns, step.ended_ns) == (1, 10, 20)


def test_decodes_with_several_tokens_each_are_no_prefill(ring: Ring) -> None:
    step = ring.step(batch([], {"a": 3, "b": 300}, set(), {"a": 4, "b": 2}, preempted_req_ids=None))
    assert (step.prefill_requests, step.prefill_tokens, step.preemptions) == (0, 0, 0)
    assert (step.decode_requests, step.decode_tokens) == (2, 6)


def test_queues_and_cache_are_those_after_the_step(ring: Ring) -> None:
    stats = SimpleNamespace(num_running_reqs=3, num_waiting_reqs=4, num_skipped_waiting_reqs=2, kv_cache_usage=0.25)
    step = ring.step(None, stats)
    assert (step.running, step.waiting, step.kv_cache_usage_ppm) == (3, 6, 250_000)
    del stats.num_skipped_waiting_reqs  # as older versions have it
    assert ring.step(None, stats).waiting == 4


def test_what_this_vllm_does_not_have_is_named(ring: Ring) -> None:
    ring.tap(1)
    scheduled = batch([], {"a": 3}, set(), {"a": 1})
    del scheduled.scheduled_cached_reqs.resumed_req_ids
    with pytest.raises(AttributeError, match="resumed_req_ids"):
        ring.events.step(10, 20, scheduled, None, b"")


def test_large_counts_fill_their_field_instead_of_wrapping(ring: Ring) -> None:
    stats = SimpleNamespace(num_running_reqs=70_000, num_waiting_reqs=1 << 40, kv_cache_usage=-0.1)
    step = ring.step(None, stats)
    assert (step.running, step.waiting, step.kv_cache_usage_ppm) == (0xFFFF, protocol.UNKNOWN_COUNT, 0)


def test_step_without_tokens_or_ends_has_no_record(ring: Ring) -> None:
    assert not ring.events.step(10, 20, None, None, b"")
    assert ring.step().step == 0
    assert not ring.events.step(30, 40, None, None, b"")
    assert ring.records() == []


def test_part_of_a_record_and_the_wrong_side_are_refused(ring: Ring) -> None:
    with pytest.raises(ValueError, match="65 bytes are not whole records"):
        ring.events.step(10, 20, None, None, bytes(65))
    with pytest.raises(ValueError, match="other side"):
        ring.library.push_in_the_end(ring.reader, bytes(64))


def finish(handle: int) -> bytes:
    return Finish(handle, LENGTH, 5, 2, 0, 1, 2, 3, 4, 0).pack()


def test_requests_that_end_come_with_the_step_and_carry_its_number(ring: Ring) -> None:
    for _ in range(3):
        ring.step()
    ring.tap(2)
    assert ring.events.step(10, 20, None, None, finish(7) + finish(8))
    step, *finishes = ring.records()
    assert protocol.STEP.unpack(step)[3] == 3
    assert [(values[3], values[9]) for values in map(protocol.FINISH.unpack, finishes)] == [(3, 7), (3, 8)]


def test_end_without_a_tap_is_recorded_as_such(ring: Ring) -> None:
    assert ring.events.step(10, 20, None, None, finish(1))
    step = read(ring.records()[0])
    assert (step.step, step.tap_push_ns, step.token_events) == (0, protocol.UNKNOWN_COUNT, 0)


def test_a_ring_without_room_is_waited_for(library: ModuleType) -> None:
    ring = Ring(library, capacity=2)
    ring.events.push_in_the_end(bytes(2 * protocol.RECORD_SIZE))

    def read_later() -> None:
        time.sleep(0.05)
        assert len(ring.records()) == 2

    reader = threading.Thread(target=read_later)
    reader.start()
    assert ring.events.step(10, 20, None, None, finish(1))
    reader.join()
    assert len(ring.records()) == 2
