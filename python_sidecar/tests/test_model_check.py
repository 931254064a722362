"""What a model's files say before an engine is loaded: by tables that stand for vLLM's, and by the real ones."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench_sidecar import model_check
from bench_sidecar.model_check import Asked, Known
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
    assert refused("some/model") == "", "the hub is asked"
    cached = folder(tmp_path, KINDS[1][0])
    assert "it generates no text" in refused("some/model", cached=cached)
    cached = folder(tmp_path, LLAMA)
    assert refused("some/model", cached=cached, load_format="auto") == "", "the hub has the weights"
    assert "has no weights" in refused(cached, load_format="auto"), "offline vLLM takes the folder for the name"


def test_arguments_are_those_of_vllm() -> None:
    given = {"trust_remote_code": True, "load_format": "dummy", "runner": "generate", "hf_overrides": {"a": 1}}
    asked = Asked.of(SimpleNamespace(model="m", **given), None)
    assert asked == Asked("m", True, "dummy", "generate", is_overridden=True)
    other = SimpleNamespace(model="m", hf_overrides={}, config_format="hf")
    assert Asked.of(other, "/cached") == Asked("m", config_format="hf", cached="/cached")


def test_files_that_vllm_reads_otherwise_are_not_refused(tmp_path: Path) -> None:
    """Each of these would be refused by its `config.json` alone."""
    speculators = tmp_path / "speculators"
    mistral = tmp_path / "mistral"
    for path in (speculators, mistral):
        path.mkdir()
    drafting = {"architectures": ["Eagle3Speculator"], "speculators_config": {"verifier": {"name_or_path": "m"}}}
    assert refused(folder(speculators, drafting)) == ""
    unknown = {"model_type": "mine", "architectures": ["NobodysForCausalLM"]}
    model = folder(mistral, unknown, "params.json", "consolidated-00001-of-2.safetensors")
    assert refused(model, load_format="auto") == ""
    assert "does not know its architecture" in refused(model, config_format="hf")
    assert refused(folder(tmp_path, {"architectures": ["LlamaChatModel"]})) == "", "it runs as LlamaForCausalLM"
    untyped = {"architectures": LLAMA["architectures"], "auto_map": OWN_CODE["auto_map"]}
    assert refused(folder(tmp_path, untyped)) == "", "vLLM may know the type of the architecture"


def test_file_that_is_no_configuration_is_left_to_vllm(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text("[" * 200_000)
    assert refused(str(tmp_path)) == ""
    config.write_text(json.dumps(KINDS[0][0]) + " " * model_check.MAX_JSON_BYTES)
    assert refused(str(tmp_path)) == "", "too long to be one"
    config.unlink()
    os.mkfifo(config)
    assert refused(str(tmp_path)) == "", "nobody writes into it"


def test_modules_of_an_embedding_model_count_before_its_architecture(tmp_path: Path) -> None:
    model = folder(tmp_path, LLAMA)
    modules = tmp_path / "modules.json"
    modules.write_text(json.dumps([{"type": "sentence_transformers.models.Transformer"}, "x"]))
    assert refused(model) == ""
    modules.write_text(json.dumps([{"type": model_check.POOLING_MODULES[0], "path": "1_Pooling"}]))
    assert "it generates no text (its modules.json gives vectors" in refused(model)
    assert refused(model, runner="generate") == ""


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


def test_model_that_is_not_here_is_explained_where_the_hub_is_offline(sidecar: Sidecar) -> None:
    for model, wanted in (("some/model", "HF_HUB_OFFLINE forbids asking the hub"), ("/no/model", "check the path")):
        said = ask(sidecar.server, {"op": "check", "argv": ["--model", model]})["error"]["message"]
        assert wanted in said.split("\n")[0]
        assert said.count("vLLM says") == 1


def test_sizes_that_make_ranks_are_parsed(sidecar: Sidecar, tmp_path: Path) -> None:
    argv = ["--model", folder(tmp_path, LLAMA), "--load-format", "dummy", "-pp", "2", "--data-parallel-size", "3"]
    parsed = ask(sidecar.server, {"op": "check", "argv": argv})["parsed"]
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "prefill_context_parallel_size", "data_parallel_size")
    assert [parsed[name] for name in sizes] == [1, 2, 1, 3]


def test_architecture_of_another_ending_passes_the_tables_of_the_real_vllm(sidecar: Sidecar, tmp_path: Path) -> None:
    argv = ["--model", folder(tmp_path, {"architectures": ["LlamaLMHeadModel"]}), "--load-format", "dummy"]
    assert ask(sidecar.server, {"op": "check", "argv": argv})["error"] is None
