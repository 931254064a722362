"""The real TPU backend, tpu-inference, under the real sidecar, on JAX's CPU platform."""

import itertools
import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tpu_on_cpu
from bench_sidecar import protocol
from bench_sidecar.records import ABORT, LENGTH
from harness import ARGV, Engine, Run, Sidecar, ask
from llama import write_config, write_weights

HERE = Path(__file__).parent
BLOCK = 64
FP8 = "float8_e4m3fn"
QWIX = {"qwix": {"rules": [{"module_path": ".*", "weight_qtype": FP8, "act_qtype": FP8}]}}
# A checkpoint of FP8 weights with a scale per channel, as compressed-tensors describes it.
COMPRESSED_TENSORS_FP8 = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False},
            "input_activations": {
                "num_bits": 8,
                "type": "float",
                "strategy": "token",
                "symmetric": True,
                "dynamic": True,
            },
        }
    },
}
# What the shapes of a step are compiled for grows with the limits.
LIMITS = ["--skip-tokenizer-init", "--max-model-len", "1024", "--max-num-seqs", "8", "--max-num-batched-tokens", "256"]
# Compiles nothing beforehand: enough to look at what was loaded.
UNPREPARED = {"SKIP_JAX_PRECOMPILE": "1", "VLLM_XLA_CHECK_RECOMPILATION": "0"}

salts = (f"salt{number}" for number in itertools.count())


def prompt(tokens: int, seed: int = 0) -> list[int]:
    return [1 + (seed * 7919 + 31 * at) % 2000 for at in range(tokens)]


def arguments(model: Path, *argv: str, **additional: Any) -> list[str]:
    config = json.dumps({**tpu_on_cpu.DEVICE_INDEXES, **additional})
    return ["--model", str(model), *LIMITS, "--additional-config", config, *argv]


@dataclass
class Model:
    folder: Path
    weights: int


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Float32 weights on the disk, for this backend and for the class cpu."""
    folder = tmp_path_factory.mktemp("models") / "float32"
    return Model(folder, write_weights(folder, write_config(folder)))


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the backend's own transfers from the device are written down."""
    return tmp_path_factory.mktemp("witness") / "transfers.jsonl"


@pytest.fixture(scope="module")
def sidecar(library: ModuleType, witness: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    folder = tmp_path_factory.mktemp("sidecar")
    environment = {
        **tpu_on_cpu.ENVIRONMENT,
        tpu_on_cpu.WITNESS: str(witness),
        "VLLM_XLA_CACHE_PATH": str(tmp_path_factory.mktemp("xla")),
        "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(HERE)]),
    }
    sidecar = Sidecar(folder, library, (str(HERE / "tpu_on_cpu.py"),), environment)
    sidecar.wait_for_hello()
    yield sidecar
    assert sidecar.close() == 0


@pytest.fixture(scope="module")
def engine(sidecar: Sidecar, model: Model) -> Engine:
    """An engine with all that a measured one has: what it needs is compiled, and compiling in a step is forbidden."""
    engine = sidecar.load_exactly(arguments(model.folder, "--dtype", "float32", "--num-gpu-blocks-override", "24"))
    assert engine.first["event"] == "ready", engine.first
    return engine


def transfers(witness: Path, salt: str) -> list[dict[str, Any]]:
    """What came from the device in the run with this salt."""
    lines = [json.loads(line) for line in witness.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["requests"] and line["requests"][0].split("-")[1] == salt]


def tokens_of(witness: Path, salt: str) -> dict[int, list[int]]:
    """The token ids of each request of a run."""
    tokens: dict[int, list[int]] = {}
    for line in transfers(witness, salt):
        for request, row in zip(line["requests"], line["tokens"], strict=True):
            tokens.setdefault(int(request.split("-")[0]), []).extend(row)
    return tokens


def dtypes_of_layers(engine: Engine) -> set[str]:
    """Of the matrices that an engine multiplies by, as it found them after loading."""
    return {layer["dtype"] for layer in engine.first["facts"]["weights"]["layers"]}


def test_load_says_what_it_is(engine: Engine, model: Model) -> None:
    facts = engine.first["facts"]
    assert facts["async_scheduling"] is True
    assert facts["prefix_block_size"] == BLOCK
    assert facts["other"]["executor"] == "UniProcExecutor"
    assert facts["other"]["jax_platform"] == "cpu"
    assert facts["other"]["forbids_compiling"] is True
    elements = {entry["dtype"]: entry["elements"] for entry in facts["weights"]["dtypes"]}
    assert elements["float32"] == model.weights
    assert dtypes_of_layers(engine) == {"float32"}
    assert engine.first["warnings"] == []


def test_every_token_is_tapped_once_under_async_scheduling(engine: Engine, witness: Path) -> None:
    wanted, salt = [1, 2, 7, 16, 33], next(salts)
    run = engine.run([prompt(10 * (n + 1), n) for n in range(5)], wanted, salt)
    assert [run.tokens[handle] for handle in range(5)] == wanted
    assert {handle: len(tokens) for handle, tokens in tokens_of(witness, salt).items()} == dict(enumerate(wanted))
    for handle, tokens in enumerate(wanted):
        finish = run.finishes[handle]
        assert (finish.reason, finish.output_tokens, finish.prompt_tokens) == (LENGTH, tokens, 10 * (handle + 1))
        assert 0 < finish.queued_ns <= finish.scheduled_ns <= finish.first_token_ns <= finish.last_token_ns


def test_tokens_are_stamped_when_they_have_reached_the_host(engine: Engine, witness: Path) -> None:
    salt = next(salts)
    run = engine.run([prompt(20, 1)], [12], salt)
    seen = transfers(witness, salt)
    assert len(seen) == len(run.emitted_ns) == 12
    for step, transfer in enumerate(seen):
        assert transfer["there_ns"] <= run.emitted_ns[step] <= run.steps[step].ended_ns
    finish = run.finishes[0]
    assert run.emitted_ns[0] <= finish.first_token_ns
    assert run.emitted_ns[11] <= finish.last_token_ns
    # The engine has asked for the next batch before it waits for these tokens.
    assert all(transfer["asked_ns"] > step.started_ns for transfer, step in zip(seen, run.steps, strict=True))


def test_steps_describe_the_batch_whose_tokens_came(engine: Engine) -> None:
    run = engine.run([prompt(20, 1), prompt(30, 2)], [4, 4], next(salts))
    assert [step.step for step in run.steps] == list(range(4))
    first, *decode = run.steps
    assert (first.prefill_requests, first.prefill_tokens, first.decode_tokens) == (2, 50, 0)
    assert {(step.prefill_tokens, step.decode_requests, step.decode_tokens) for step in decode} == {(0, 2, 2)}
    assert [step.token_events for step in run.steps] == [2] * 4
    # The step that only hands the batch to the model belongs to the one in which its tokens came.
    assert all(first.started_ns <= finish.scheduled_ns for finish in run.finishes.values())


def test_long_prompt_is_prefilled_in_chunks(engine: Engine) -> None:
    run = engine.run([prompt(600, 5)], [2], next(salts))
    assert [step.prefill_tokens for step in run.steps] == [256, 256, 88, 0]
    assert [step.token_events for step in run.steps] == [0, 0, 1, 1]


def test_prefix_hits_are_counted_in_whole_blocks(engine: Engine) -> None:
    shared, salt = prompt(300, 3), next(salts)
    assert engine.run([shared], [1], salt).finishes[0].cached_tokens == 0
    assert engine.run([[*shared, 5, 6]], [1], salt).finishes[0].cached_tokens == 300 // BLOCK * BLOCK
    assert engine.run([shared], [1], next(salts)).finishes[0].cached_tokens == 0
    assert engine.reset()["reset"] is True
    assert engine.run([shared], [1], salt).finishes[0].cached_tokens == 0


def test_preempted_requests_deliver_every_token_once(engine: Engine, witness: Path) -> None:
    salt = next(salts)
    assert engine.reset()["reset"] is True
    run = engine.run([prompt(185, seed) for seed in range(7)], [40] * 7, salt)
    assert sum(finish.preemptions for finish in run.finishes.values()) > 0
    assert [run.tokens[handle] for handle in range(7)] == [40] * 7
    assert sum(step.preemptions for step in run.steps) == sum(finish.preemptions for finish in run.finishes.values())


def test_end_aborts_what_is_under_way_and_counts_what_was_delivered(engine: Engine) -> None:
    engine.stage([prompt(8, 8), prompt(8, 9)], [500, 2], next(salts))
    engine.begin()
    engine.push(protocol.KIND_SUBMIT, 0, 1)
    run = Run()
    engine.collect(run, 1)
    engine.end(run)
    aborted = run.finishes[0]
    assert aborted.reason == ABORT
    assert 1 < aborted.output_tokens < 500
    assert run.tokens[0] == aborted.output_tokens
    assert engine.run([prompt(8, 8)], [3], next(salts)).tokens[0] == 3


def test_stepped_engine_gives_one_step_of_tokens_a_grant(engine: Engine) -> None:
    engine.stage([prompt(8, 6)], [5], next(salts))
    engine.begin(drive="stepped")
    run = Run()
    engine.push(protocol.KIND_SUBMIT, 0)
    for granted in range(1, 6):
        engine.push(protocol.KIND_GRANT, 1)
        engine.collect_steps(run, granted)
        assert run.tokens[0] == granted
    engine.collect(run, 1)
    engine.end(run)


def test_what_was_compiled_in_a_run_is_named_and_a_repeated_run_compiles_nothing(engine: Engine) -> None:
    prompts = [prompt(64, seed) for seed in range(3)]
    engine.run(prompts, [4] * 3, next(salts))
    assert engine.run(prompts, [4] * 3, next(salts)).ended["compilations"] == []


def test_what_observing_changes_is_not_measured_under_async_scheduling(engine: Engine) -> None:
    reply = ask(engine.channel, {"op": "observe", "batch": 1, "rounds": 1, "ways": ["tap"]})
    assert "--no-async-scheduling" in reply["error"]["message"]


def test_greedy_tokens_equal_those_of_the_class_cpu(engine: Engine, model: Model, witness: Path) -> None:
    """Again and again, on an engine that was used before: nothing of an earlier step may reach a later one."""
    prompts = [prompt(length, length) for length in (5, 64, 200, 333)]
    cpu = greedy_on_cpu(model.folder, prompts, 24)
    for _ in range(5):
        salt = next(salts)
        engine.run(prompts, [24] * 4, salt)
        tokens = tokens_of(witness, salt)
        assert [tokens[handle] for handle in range(4)] == cpu
    assert min(len(Counter(row)) for row in cpu) > 12, "tokens that repeat would equal each other by chance"


def greedy_on_cpu(model: Path, prompts: list[list[int]], output_tokens: int) -> list[list[int]]:
    argv = [*ARGV, "--model", str(model), "--load-format", "auto", "--max-model-len", "1024"]
    asked = json.dumps({"argv": argv, "prompts": prompts, "output_tokens": output_tokens})
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [os.environ["BENCH_CPU_PYTHON"], str(HERE / "greedy.py")],
        input=asked,
        capture_output=True,
        text=True,
        env={**os.environ, **settings, "VLLM_NO_USAGE_STATS": "1"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    tokens: list[list[int]] = json.loads(ended.stdout.splitlines()[-1])
    return tokens


def test_fp8_through_qwix_is_seen_in_the_parameters(sidecar: Sidecar, tmp_path: Path) -> None:
    write_config(tmp_path / "model")
    argv = arguments(tmp_path / "model", "--load-format", "dummy", "--dtype", "bfloat16", quantization=QWIX)
    engine = sidecar.load_exactly(argv, env=UNPREPARED)
    assert engine.first["event"] == "ready", engine.first
    assert dtypes_of_layers(engine) == {FP8}
    assert engine.run([prompt(8)], [3], next(salts)).tokens[0] == 3
    assert sidecar.stop(engine) == (0, 0)


def test_fp8_checkpoint_that_becomes_bfloat16_in_silence_is_seen_as_such(sidecar: Sidecar, tmp_path: Path) -> None:
    write_config(tmp_path / "model", quantization_config=COMPRESSED_TENSORS_FP8)
    argv = arguments(tmp_path / "model", "--load-format", "dummy", "--dtype", "bfloat16")
    engine = sidecar.load_exactly(argv, env=UNPREPARED)
    assert engine.first["event"] == "ready", engine.first
    assert dtypes_of_layers(engine) == {"bfloat16"}
    assert sidecar.stop(engine) == (0, 0)


def test_compiling_in_a_step_is_refused(sidecar: Sidecar, tmp_path: Path) -> None:
    """Nothing is compiled beforehand, so the first step would have to."""
    write_config(tmp_path / "model")
    argv = arguments(tmp_path / "model", "--load-format", "dummy", "--dtype", "float32")
    engine = sidecar.load_exactly(argv, env={"SKIP_JAX_PRECOMPILE": "1"})
    assert (engine.first["event"], engine.first["stage"]) == ("failed", "self-test")
    assert "compil" in engine.first["message"].lower()


def test_sidecar_without_a_tpu_refuses(library: ModuleType, model: Model, tmp_path: Path) -> None:
    """JAX falls back to the CPU in silence, and vLLM says "tpu" all the same."""
    environment = {name: value for name, value in tpu_on_cpu.ENVIRONMENT.items() if name != "JAX_PLATFORMS"}
    environment["TPU_SKIP_MDS_QUERY"] = "1"  # JAX would wait for minutes for a metadata server
    sidecar = Sidecar(tmp_path, library, environment=environment)
    sidecar.wait_for_hello()
    engine = sidecar.load_exactly(arguments(model.folder))
    assert (engine.first["event"], engine.first["kind"]) == ("failed", "EngineError")
    assert engine.first["message"].startswith("JAX runs on cpu, not on a TPU (JAX_PLATFORMS is not set)")
    assert sidecar.close() == 0
