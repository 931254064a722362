"""Runs on the real vLLM."""

import array
import itertools
import os
import time

import pytest
from bench_sidecar import protocol
from bench_sidecar.records import ABORT, LENGTH
from harness import Engine, Run, Sidecar, ask

BLOCK = 128
salts = (f"salt-{number}" for number in itertools.count())


def prompt(tokens: int, seed: int = 0) -> list[int]:
    return [1 + (seed * 7919 + 31 * at) % 250 for at in range(tokens)]


def test_load_says_what_it_is(engine: Engine) -> None:
    facts = engine.first["facts"]
    assert facts["prefix_block_size"] == BLOCK
    assert (facts["max_model_len"], facts["max_num_seqs"], facts["max_num_batched_tokens"]) == (2048, 64, 2048)
    assert engine.first["warnings"] == []


def test_every_token_is_tapped_and_counted(engine: Engine) -> None:
    wanted = [1, 2, 7, 16, 33]
    run = engine.run([prompt(10 * (n + 1), n) for n in range(5)], wanted, next(salts))
    for handle, tokens in enumerate(wanted):
        finish = run.finishes[handle]
        assert run.tokens[handle] == finish.output_tokens == tokens
        assert finish.reason == LENGTH
        assert finish.prompt_tokens == 10 * (handle + 1)
        assert 0 < finish.queued_ns <= finish.scheduled_ns <= finish.first_token_ns <= finish.last_token_ns
    assert run.ended["refused"] == []


def test_steps_describe_the_batch_that_ran(engine: Engine) -> None:
    run = engine.run([prompt(20, 1), prompt(30, 2)], [4, 4], next(salts))
    assert [step.step for step in run.steps] == list(range(4))
    assert run.ended["steps"] == 4
    first, *decode = run.steps
    assert (first.prefill_requests, first.prefill_tokens, first.decode_tokens) == (2, 50, 0)
    assert {(step.prefill_tokens, step.decode_requests, step.decode_tokens) for step in decode} == {(0, 2, 2)}
    assert sum(step.token_events for step in run.steps) == 8
    assert all(step.started_ns < step.ended_ns and step.tap_push_ns < 10_000_000 for step in run.steps)
    assert run.ended["stepping_ns"] >= sum(step.ended_ns - step.started_ns for step in run.steps)


def test_prefix_is_cached_in_whole_blocks_under_the_same_salt_only(engine: Engine) -> None:
    shared, salt = prompt(300, 3), next(salts)
    assert engine.run([shared], [1], salt).finishes[0].cached_tokens == 0
    assert engine.run([[*shared, 5, 6]], [1], salt).finishes[0].cached_tokens == 2 * BLOCK
    assert engine.run([shared], [1], next(salts)).finishes[0].cached_tokens == 0


def test_reset_empties_the_prefix_cache(engine: Engine) -> None:
    shared, salt = prompt(300, 4), next(salts)
    engine.run([shared], [1], salt)
    assert engine.reset()["reset"] is True
    assert engine.run([shared], [1], salt).finishes[0].cached_tokens == 0


def test_lowered_request_limit_holds_and_is_taken_back(engine: Engine) -> None:
    prompts = [prompt(8, seed) for seed in range(6)]
    run = engine.run(prompts, [5] * 6, next(salts), max_num_seqs=2)
    assert max(step.running for step in run.steps) == 2
    assert max(step.prefill_requests + step.decode_requests for step in run.steps) == 2
    assert max(step.waiting for step in run.steps) == 4
    run = engine.run(prompts, [5] * 6, next(salts))
    assert max(step.decode_requests for step in run.steps) == 6


def test_lowered_token_limit_cuts_the_prefill_into_chunks(engine: Engine) -> None:
    run = engine.run([prompt(1000, 5)], [2], next(salts), max_num_batched_tokens=256)
    assert [step.prefill_tokens for step in run.steps] == [256, 256, 256, 232, 0]
    assert [step.decode_tokens for step in run.steps] == [0, 0, 0, 0, 1]
    assert [step.token_events for step in run.steps] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("value", [0, 65])
def test_impossible_limit_is_refused(engine: Engine, value: int) -> None:
    error = engine.begin({"max_num_seqs": value})["error"]["message"]
    assert f"max_num_seqs {value} is not between 1 and the 64" in error


def test_one_look_takes_more_submits_than_one_pop(engine: Engine) -> None:
    """The ring's extension hands out 64 records at a time; the scheduler must see all that were there."""
    count = 100
    run = engine.run([prompt(4, seed) for seed in range(count)], [2] * count, next(salts))
    assert len(run.finishes) == count
    assert max(step.running + step.waiting for step in run.steps) > 64


@pytest.mark.parametrize(
    ("tokens", "output", "says"), [(2048, 1, "2048"), (0, 1, "empty"), (2000, 100, "48 of 100 output tokens")]
)
def test_request_that_cannot_be_delivered_is_refused_at_stage(
    engine: Engine, tokens: int, output: int, says: str
) -> None:
    error = engine.stage([prompt(8), prompt(tokens)], [1, output])["error"]["message"]
    assert "request 1" in error
    assert says in error


def test_token_id_outside_the_vocabulary_is_refused_at_stage(engine: Engine) -> None:
    size = engine.first["facts"]["vocab_size"]
    error = engine.stage([prompt(8), [1, size, 2]], [1, 1])["error"]["message"]
    assert error == f"request 1 has token id {size}, outside the vocabulary of {size} ids (0 to {size - 1})"
    assert engine.run([[0, size - 1]], [2], next(salts)).tokens[0] == 2


def test_prompts_shorter_than_announced_are_refused(engine: Engine) -> None:
    fd = os.memfd_create("prompts")
    os.write(fd, array.array("I", [1] * 5).tobytes())
    message = {"op": "stage", "salt": "short", "prompt_tokens": [8], "output_tokens": [1]}
    reply = ask(engine.channel, message, [fd])
    os.close(fd)
    assert "holds 5 token ids, 8 are needed" in reply["error"]["message"]


def test_unknown_and_repeated_handles_are_named(engine: Engine) -> None:
    engine.stage([prompt(8)], [2], next(salts))
    engine.begin()
    engine.push(protocol.KIND_SUBMIT, 7, 0, 0)
    run = Run()
    engine.collect(run, 1)
    assert engine.end(run).ended["refused"] == [7, 0]


def test_stepped_engine_takes_one_step_a_grant(engine: Engine) -> None:
    engine.stage([prompt(8, 6), prompt(8, 7)], [3, 1], next(salts))
    engine.begin(drive="stepped")
    run = Run()
    engine.push(protocol.KIND_SUBMIT, 1)
    time.sleep(0.05)
    run.take(engine.library.pop(engine.events))
    assert run.steps == []
    engine.push(protocol.KIND_GRANT, 1)
    engine.collect(run, 1)
    # The first request's clearing away runs no model, and must not use up the grant of the second's first step.
    engine.push(protocol.KIND_GRANT, 1)
    time.sleep(0.05)
    engine.push(protocol.KIND_SUBMIT, 0)
    engine.push(protocol.KIND_GRANT, 1, 1)
    engine.collect(run, 2)
    assert len(engine.end(run).steps) == 4


def test_end_aborts_what_is_unfinished_and_leaves_a_clean_engine(engine: Engine) -> None:
    engine.stage([prompt(8, 8), prompt(8, 9)], [1000, 2], next(salts))
    engine.begin()
    engine.push(protocol.KIND_SUBMIT, 0, 1)
    run = Run()
    engine.collect(run, 1)
    engine.end(run)
    aborted = run.finishes[0]
    assert aborted.reason == ABORT
    assert 1 < aborted.output_tokens < 1000
    assert run.tokens[0] == aborted.output_tokens
    assert aborted.last_token_ns == protocol.ABSENT_NS
    assert engine.reset()["reset"] is True
    after = engine.run([prompt(8, 8)], [3], next(salts))
    assert (after.steps[0].running, after.tokens[0], len(after.steps)) == (1, 3, 3)


def test_unknown_operation_is_answered(engine: Engine) -> None:
    assert "unknown operation 'dance'" in ask(engine.channel, {"op": "dance"})["error"]["message"]


def test_both_step_functions_give_the_same_run(sidecar: Sidecar, engine: Engine) -> None:
    prompts, wanted = [prompt(40, seed) for seed in range(3)], [5, 9, 2]
    other = sidecar.load(step_api="llm_engine")
    first, second = (each.run(prompts, wanted, "same") for each in (engine, other))
    assert first.tokens == second.tokens == dict(enumerate(wanted))
    batches = [
        [(step.prefill_tokens, step.decode_tokens, step.token_events) for step in run.steps] for run in (first, second)
    ]
    assert batches[0] == batches[1]
    other.stage([prompt(8)], [1000], "abort")
    other.begin()
    other.push(protocol.KIND_SUBMIT, 0)
    time.sleep(0.1)
    assert other.end(Run()).finishes[0].reason == ABORT
    assert other.run([prompt(8)], [3], "after").tokens[0] == 3
    assert sidecar.stop(other) == (0, 0)


def test_preemption_is_reported_and_every_token_comes(sidecar: Sidecar) -> None:
    small = sidecar.load("--max-model-len", "512", "--num-gpu-blocks-override", "6", "--no-enable-prefix-caching")
    assert small.first["event"] == "ready", small.first
    run = small.run([prompt(120, seed) for seed in range(4)], [200] * 4)
    assert [run.tokens[handle] for handle in range(4)] == [200] * 4
    preempted = sum(finish.preemptions for finish in run.finishes.values())
    assert preempted > 0
    assert sum(step.preemptions for step in run.steps) == preempted
    assert max(step.decode_tokens for step in run.steps) <= 4, "what a preemption makes anew is prefill"
    assert sidecar.stop(small) == (0, 0)
