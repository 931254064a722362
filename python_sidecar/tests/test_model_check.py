"""What a model's files say before an engine is loaded: by tables that stand for vLLM's, and by the real ones."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench_sidecar import model_check
from bench_sidecar.model_check import Asked, Known
from bench_sidecar.records import EngineError
from harness import Sidecar, ask

KNOWN = Known(
    device="cpu",
    generating=frozenset({"LlamaForCausalLM", "MambaForCausalLM"}),
    pooling=frozenset({"BertModel"}),
    architectures=frozenset({"LlamaForCausalLM", "MambaForCausalLM", "BertModel"}),
    removed={"OldForCausalLM": "0.9"},
    model_types=frozenset({"llama", "mamba", "bert", "t5"}),
    has_class=lambda name: name in ("T5ForConditionalGeneration", "Qwen3ForSequenceClassification"),
    has_kernel=lambda _name: False,
)
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
OWN_CODE = {"model_type": "mine", "architectures": ["MineForCausalLM"], "auto_map": {"AutoConfig": "mine.Config"}}
KINDS: list[tuple[dict[str, Any], str]] = [
    (
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
        "encoder-decoder",
    ),
    ({"model_type": "bert", "architectures": ["BertModel"]}, "it generates no text (BertModel gives vectors"),
    ({"architectures": ["Qwen3ForSequenceClassification"]}, "it generates no text"),
    (OWN_CODE, "it brings code of its own (`auto_map` in its config.json)"),
    ({"architectures": ["NobodysForCausalLM"]}, "does not know its architecture, NobodysForCausalLM"),
    ({"architectures": ["OldForCausalLM"]}, "vLLM had the architecture OldForCausalLM until 0.9"),
    (
        {"model_type": "mamba", "architectures": ["MambaForCausalLM"]},
        "the kernel selective_scan_fwd, which vLLM for cpu",
    ),
]


def folder(path: Path, config: dict[str, Any], *files: str) -> str:
    (path / "config.json").write_text(json.dumps(config))
    for name in files:
        (path / name).touch()
    return str(path)


def refused(model: str, known: Known = KNOWN, **asked: Any) -> str:
    return model_check.refusal(Asked(model, **{"load_format": "dummy", **asked}), known) or ""


@pytest.mark.parametrize(("config", "wanted"), KINDS)
def test_kind_that_cannot_be_measured_is_named(tmp_path: Path, config: dict[str, Any], wanted: str) -> None:
    said = refused(folder(tmp_path, config))
    assert said.startswith(f"the model {tmp_path} cannot be measured: ")
    assert wanted in said
    assert "\n" not in said


def test_what_can_be_measured_is_not_refused(tmp_path: Path) -> None:
    assert refused(folder(tmp_path, LLAMA)) == ""
    assert refused(folder(tmp_path, OWN_CODE), trust_remote_code=True) == ""
    assert refused(folder(tmp_path, {"architectures": ["T5ForConditionalGeneration"]})) == "", "transformers has it"
    assert refused(folder(tmp_path, KINDS[-1][0]), Known("cuda")) == "", "nothing is known of this vLLM"
    assert refused(folder(tmp_path, KINDS[1][0]), is_overridden=True) == ""
    assert refused(folder(tmp_path, {**OWN_CODE, **LLAMA})) == "", "vLLM reads this type without its code"
    (tmp_path / "config.json").write_text("[")
    assert refused(str(tmp_path)) == "", "vLLM says what is wrong"


def test_pooling_that_is_asked_for_is_refused(tmp_path: Path) -> None:
    model = folder(tmp_path, LLAMA)
    assert "it generates no text" in refused(model, runner="pooling")
    assert refused(folder(tmp_path, KINDS[2][0]), runner="generate") == ""


def test_weights_that_are_not_there_are_missed_before_the_load(tmp_path: Path) -> None:
    model = folder(tmp_path, LLAMA, "tokenizer.json")
    assert "has no weights here" in refused(model, load_format="auto")
    assert "--load-format dummy" in refused(model, load_format="auto")
    assert refused(model, load_format="tensorizer") == ""
    folder(tmp_path, LLAMA, "model.safetensors")
    assert refused(model, load_format="auto") == ""


def test_model_of_the_hub_is_looked_for_on_this_machine(tmp_path: Path) -> None:
    assert "is not on this machine, and HF_HUB_OFFLINE" in refused("some/model", is_offline=True)
    assert refused("some/model") == "", "the hub is asked"
    cached = folder(tmp_path, KINDS[1][0])
    assert "it generates no text" in refused("some/model", cached=cached)
    cached = folder(tmp_path, LLAMA)
    assert refused("some/model", cached=cached, load_format="auto") == "", "the hub has the weights"
    assert "has no weights" in refused("some/model", cached=cached, load_format="auto", is_offline=True)


def test_arguments_are_those_of_vllm() -> None:
    given = {"trust_remote_code": True, "load_format": "dummy", "runner": "generate", "hf_overrides": {"a": 1}}
    asked = Asked.of(SimpleNamespace(model="m", **given), None, False)
    assert asked == Asked("m", True, "dummy", "generate", True)
    assert Asked.of(SimpleNamespace(model="m", hf_overrides={}, config_format="auto"), None, True) == Asked(
        "m", is_offline=True
    )


def test_words_of_a_failed_load_get_their_meaning_in_front_of_them() -> None:
    kernel = "'_OpNamespace' '_C' object has no attribute 'selective_scan_fwd'"
    kernel_meant = r"lacks a kernel that the model needs.*vLLM says: .*selective_scan_fwd"
    with pytest.raises(EngineError, match=kernel_meant), model_check.explained(EngineError):
        raise AttributeError(kernel)
    generation = "vLLM refuses request 0: This model does not support generation"
    meant = rf"generates no text.*vLLM says: {generation}"
    with pytest.raises(EngineError, match=meant), model_check.explained(EngineError):
        raise EngineError(generation)
    with pytest.raises(KeyError), model_check.explained(EngineError):
        raise KeyError("anything else")


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (KINDS[0][0], "encoder-decoder"),
        (KINDS[1][0], "generates no text"),
        (KINDS[2][0], "generates no text"),
        (KINDS[3][0], "--trust-remote-code"),
        (KINDS[4][0], "does not know its architecture"),
        ({"architectures": ["QWenLMHeadModel"]}, "vLLM had the architecture QWenLMHeadModel until"),
        (KINDS[6][0], "selective_scan_fwd"),
    ],
)
def test_kind_is_named_by_the_tables_of_the_real_vllm(
    sidecar: Sidecar, tmp_path: Path, config: dict[str, Any], wanted: str
) -> None:
    argv = ["--model", folder(tmp_path, config), "--load-format", "dummy"]
    assert wanted in ask(sidecar.server, {"op": "check", "argv": argv})["error"]["message"]


@pytest.mark.parametrize(
    "architecture", ["LlamaForCausalLM", "Qwen3ForCausalLM", "MixtralForCausalLM", "GPT2LMHeadModel"]
)
def test_model_that_generates_passes_the_tables_of_the_real_vllm(
    sidecar: Sidecar, tmp_path: Path, architecture: str
) -> None:
    argv = ["--model", folder(tmp_path, {"architectures": [architecture]}), "--load-format", "dummy"]
    assert ask(sidecar.server, {"op": "check", "argv": argv})["error"] is None
