"""The tap and the records, with what vLLM hands out stood in for."""

import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from bench_sidecar import protocol
from bench_sidecar.records import OTHER, Staged, handle_of, unpack_requests
from bench_sidecar.tap import Tap, tap_result, tapped


class Recorded(Tap):
    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[Any] = []
        self.push = lambda _ns, ids, sampled: self.pushed.append((ids, sampled))


def output(name: str) -> Any:
    return SimpleNamespace(req_ids=[name], sampled_token_ids=[[1]])


def test_future_is_tapped_at_its_first_result_only() -> None:
    tap, future = Recorded(), Future[Any]()
    wrapped = tap_result(future, tap, "batch")
    future.set_result(output("0"))
    assert tap.pushed == []
    assert wrapped.result() is wrapped.result()
    assert tap.pushed == [(["0"], [[1]])]
    assert tap.executed == "batch"


def test_future_that_failed_raises_its_error_and_pushes_nothing() -> None:
    tap, failed, empty = Recorded(), Future[Any](), Future[Any]()
    failed.set_exception(KeyError("inside"))
    empty.set_result(None)
    with pytest.raises(KeyError, match="inside"):
        tap_result(failed, tap, None).result()
    assert tap_result(empty, tap, "batch").result() is None
    assert (tap.pushed, tap.executed) == ([], None)


class FakeExecutor:
    """Hands out what it was given: at once, or as futures."""

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async
        self.name = ""

    def execute_model(self, scheduler_output: str, non_block: bool = False) -> None:
        self.name = scheduler_output

    def sample_tokens(self, grammar_output: None, non_block: bool = False) -> Any:
        if not self.is_async:
            return output(self.name)
        future = Future[Any]()
        future.set_result(output(self.name))
        return future


def test_tap_names_the_batch_whose_tokens_came_out() -> None:
    tap = Recorded()
    ahead = tapped(FakeExecutor, tap)(is_async=True)
    ahead.execute_model("first")
    first = ahead.sample_tokens(None)
    ahead.execute_model("second")
    ahead.sample_tokens(None)
    first.result()
    assert (tap.scheduled, tap.executed) == ("second", "first")
    at_once = tapped(FakeExecutor, tap)(is_async=False)
    at_once.execute_model("third")
    assert at_once.sample_tokens(None).req_ids == ["third"]
    assert tap.executed == "third"


def event(name: str, timestamp: float) -> Any:
    return SimpleNamespace(type=SimpleNamespace(name=name), timestamp=timestamp)


def test_first_stamps_are_kept() -> None:
    request = SimpleNamespace(num_prompt_tokens=5, num_output_tokens=0, num_preemptions=1)
    staged = Staged(3, None, request)
    events = [event("QUEUED", 1.0), event("SCHEDULED", 2.0), event("PREEMPTED", 3.0), event("SCHEDULED", 4.0)]
    quiet = SimpleNamespace(events=events, prefill_stats=None, finish_reason=None)
    assert staged.take(quiet, 5) is None
    last = SimpleNamespace(events=None, prefill_stats=None, finish_reason="new reason")
    finish = staged.take(last, time.monotonic_ns())
    assert finish is not None
    assert (finish.queued_ns, finish.scheduled_ns) == (1_000_000_000, 2_000_000_000)
    assert (finish.reason, finish.preemptions) == (OTHER, 1)
    assert finish.first_token_ns == finish.last_token_ns == protocol.ABSENT_NS, "no token, no stamp"


def test_request_records_and_ids() -> None:
    submit = protocol.SUBMIT.pack(protocol.KIND_SUBMIT, 0, 0, 0, 0, 7, *[0] * 11)
    assert list(unpack_requests(submit)) == [(protocol.KIND_SUBMIT, 7)]
    with pytest.raises(ValueError, match="unknown kind 0"):
        list(unpack_requests(bytes(64)))
    assert handle_of("12-salt-3") == 12
