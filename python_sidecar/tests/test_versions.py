"""How the engine module meets a vLLM that it does not know. Stand-ins take vLLM's place, so that any can be played."""

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from bench_sidecar import tpu
from bench_sidecar.records import EngineError

STAND_INS: dict[str, dict[str, Any]] = {
    "vllm": {"__version__": "9.9.0+cpu", "EngineArgs": object, "SamplingParams": object},
    "vllm.platforms": {"current_platform": SimpleNamespace(device_type="tpu")},
    "vllm.utils": {},
    "vllm.utils.argparse_utils": {"FlexibleArgumentParser": argparse.ArgumentParser},
    "vllm.v1": {},
    "vllm.v1.engine": {},
    "vllm.v1.engine.llm_engine": {"LLMEngine": object},
    "vllm.v1.executor": {"Executor": object},
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for name, members in STAND_INS.items():
        stand_in = ModuleType(name)
        vars(stand_in).update(members)
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.delitem(sys.modules, "bench_sidecar.engine", raising=False)
    yield importlib.import_module("bench_sidecar.engine")
    sys.modules.pop("bench_sidecar.engine", None)


def engine_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch, **core: Any) -> Any:
    engine = module.Engine.__new__(module.Engine)
    engine.warnings = []
    names = ("step_fn", "post_step", "preprocess_add_request", "reset_prefix_cache")
    engine.core = SimpleNamespace(**{**dict.fromkeys(names), **core})
    engine.scheduler = SimpleNamespace(has_requests=None, finish_requests=None)
    engine.llm = SimpleNamespace(input_processor=SimpleNamespace(process_inputs=None))
    engine._limits = {"max_num_seqs": "max_num_running_reqs"}
    monkeypatch.setattr(module.Engine, "_generate", lambda _self: 2)
    return engine


def test_unknown_version_is_warned_of_with_what_was_checked(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(module, monkeypatch)
    assert "Scheduler.max_num_running_reqs" in engine.self_test()
    assert len(engine.warnings) == 1
    assert "vLLM 9.9.0 is not the version" in engine.warnings[0]
    assert "EngineCore.step_fn" in engine.warnings[0]


def test_known_version_is_not_warned_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_VERSION", "9.9.0")
    engine = engine_of(module, monkeypatch)
    engine.self_test()
    assert engine.warnings == []


def test_missing_attribute_is_named(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(module, monkeypatch)
    del engine.core.post_step
    del engine.scheduler.finish_requests
    with pytest.raises(module.EngineError, match=r"lacks .*: EngineCore\.post_step, Scheduler\.finish_requests"):
        engine.self_test()


def test_limits_are_found_under_the_names_of_each_version(module: ModuleType) -> None:
    new = SimpleNamespace(max_num_active_reqs=1, max_num_running_reqs=1, max_num_scheduled_tokens=2)
    assert module._live_limits(new)["max_num_seqs"] == "max_num_active_reqs"
    del new.max_num_active_reqs
    assert module._live_limits(new)["max_num_seqs"] == "max_num_running_reqs"
    del new.max_num_scheduled_tokens
    with pytest.raises(module.EngineError, match="max_num_scheduled_tokens"):
        module._live_limits(new)


def test_module_that_cannot_be_preloaded_is_left_to_the_engine(
    module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    module.preload()
    assert "vllm.v1.engine.core was not preloaded" in capsys.readouterr().err


def test_vllm_for_another_device_is_refused(module: ModuleType) -> None:
    module.assert_device("tpu")
    with pytest.raises(module.EngineError, match="this vLLM runs on tpu, and cuda was asked for"):
        module.assert_device("cuda")


@pytest.mark.parametrize(("platform", "refused"), [("tpu", False), ("cpu", True)])
def test_jax_that_fell_back_to_the_cpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, platform: str, refused: bool
) -> None:
    jax = ModuleType("jax")
    vars(jax)["devices"] = lambda: [SimpleNamespace(platform=platform)]
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.delenv(tpu.FORBID_COMPILING, raising=False)
    if not refused:
        tpu.prepare()
        assert os.environ[tpu.FORBID_COMPILING] == "1"
        return
    with pytest.raises(EngineError, match="JAX runs on cpu, not on a TPU"):
        tpu.prepare()


class StandInArguments:
    """vLLM's EngineArgs, with a few flags of different kinds."""

    def __init__(self, options: argparse.Namespace) -> None:
        vars(self).update(vars(options))

    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--model")
        parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
        parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction)
        parser.add_argument("--quantization", "-q")
        parser.add_argument("--max-model-len", type=int)

    from_cli_args = staticmethod(lambda options: StandInArguments(options))


@pytest.mark.parametrize(
    ("word", "whole"),
    [
        ("--tensor-parallel=2", "--tensor-parallel-size"),
        ("--tensor-par", "--tensor-parallel-size"),
        ("-t", "-tp"),
        ("--no-enable-prefix", "--no-enable-prefix-caching"),
        ("--e", "--enable-prefix-caching"),
    ],
)
def test_abbreviated_flag_is_refused_with_the_whole_one(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, word: str, whole: str
) -> None:
    monkeypatch.setattr(module, "EngineArgs", StandInArguments)
    said = module.check_arguments(["--model", "m", word, "2"])["error"]["message"]
    assert said == f"{word.split('=')[0]} is an abbreviation: give the whole flag, {whole}"


def test_whole_flags_are_parsed_and_the_labels_told(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EngineArgs", StandInArguments)
    monkeypatch.setattr(module, "check_model", lambda _: None)
    words = ["--model", "m", "-tp", "2", "--no-enable-prefix-caching", "-q", "fp8", "--max-model-len", "-1"]
    assert module.check_arguments(words) == {
        "error": None,
        "parsed": {"model": "m", "tensor_parallel_size": 2, "quantization": "fp8"},
    }
    given = module.parse_arguments(words).given
    assert given["enable_prefix_caching"] is False
    assert given["max_model_len"] == -1
    assert "tensor_parallel_size" not in module.parse_arguments(["--model", "m"]).given


@pytest.mark.parametrize(
    ("max_model_len", "vocab_size", "request_"),
    [
        (2048, 1000, ([1, 2, 3], 2)),
        (4, 1000, ([1, 2], 2)),
        (3, 1000, ([1], 2)),
        (2, 1000, ([1], 1)),
        (2048, 3, ([1, 2, 0], 2)),
        (2048, 1, ([0, 0, 0], 2)),
        (1, 1000, ([1], 0)),
    ],
)
def test_self_test_fits_the_model(
    module: ModuleType, max_model_len: int, vocab_size: int, request_: tuple[list[int], int]
) -> None:
    assert module._test_request(max_model_len, vocab_size) == request_
