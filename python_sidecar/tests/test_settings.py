"""What a loaded engine has against what its arguments ask for. Stand-ins take the place of vLLM's objects."""

from types import SimpleNamespace
from typing import Any

import pytest
from bench_sidecar import settings
from bench_sidecar.settings import Loaded


class FlashBackend:
    @staticmethod
    def get_name() -> str:
        return "FLASH_ATTN"


class Fallback(FlashBackend):
    """A backend that calls itself by its base's name."""


def tensor(dtype: str, elements: int = 1) -> Any:
    return SimpleNamespace(dtype=f"torch.{dtype}", shape=(elements, 2))


def worker(*dtypes: str, backend: type[Any] = FlashBackend, layers: dict[str, Any] | None = None) -> Any:
    caches = [[tensor(dtype)] for dtype in dtypes]  # a layer may have several
    groups = [[SimpleNamespace(backend=backend)]]
    compilation = SimpleNamespace(static_forward_context=layers or {})
    runner = SimpleNamespace(attn_groups=groups, kv_caches=caches, compilation_config=compilation)
    return SimpleNamespace(model_runner=runner)


def loaded(*workers: Any, **config: Any) -> Loaded:
    parallel = {"tensor_parallel_size": 2, "pipeline_parallel_size": 1, "data_parallel_size": 1}
    usual = {
        "cache_config": SimpleNamespace(block_size=128, enable_prefix_caching=True),
        "model_config": SimpleNamespace(dtype="torch.bfloat16", max_model_len=2048),
        "scheduler_config": SimpleNamespace(async_scheduling=False, max_num_seqs=8, max_num_batched_tokens=2048),
        "parallel_config": SimpleNamespace(**parallel, enable_expert_parallel=False),
        "speculative_config": None,
    }
    scheduler = SimpleNamespace(kv_cache_manager=SimpleNamespace(enable_caching=False))
    described = settings.combine([settings.describe(each) for each in workers or (worker("bfloat16"),)])
    return Loaded(SimpleNamespace(**{**usual, **config}), scheduler, described)


def compared(given: dict[str, Any], engine: Loaded) -> dict[str, tuple[Any, Any, bool]]:
    return {one["name"]: (one["asked"], one["found"], one["differs"]) for one in settings.compare(given, engine)}


def test_what_nobody_asked_for_is_found_and_does_not_differ() -> None:
    found = compared({}, loaded())
    assert all(asked is None and not differs for asked, _, differs in found.values())
    assert found["attention_backend"][1] == "FLASH_ATTN"
    assert found["kv_cache_dtype"][1] == "bfloat16"
    assert found["block_size"][1] == "128"
    assert found["enable_prefix_caching"][1] == "off", "as the scheduler's own cache has it"
    assert (found["speculative_method"][1], found["num_speculative_tokens"][1]) == ("none", "0")
    assert (found["tensor_parallel_size"][1], found["dtype"][1]) == ("2", "bfloat16")


@pytest.mark.parametrize(
    ("given", "name", "asked", "found"),
    [
        ({"attention_backend": "TRITON_ATTN"}, "attention_backend", "TRITON_ATTN", "FLASH_ATTN"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype", "fp8", "bfloat16"),
        ({"kv_cache_dtype": "float16"}, "kv_cache_dtype", "float16", "bfloat16"),
        ({"block_size": 16}, "block_size", "16", "128"),
        ({"enable_prefix_caching": True}, "enable_prefix_caching", "on", "off"),
        ({"async_scheduling": True}, "async_scheduling", "on", "off"),
        ({"dtype": "half"}, "dtype", "float16", "bfloat16"),
        ({"max_model_len": 4096}, "max_model_len", "4096", "2048"),
        ({"tensor_parallel_size": 4}, "tensor_parallel_size", "4", "2"),
        ({"data_parallel_size": 2}, "data_parallel_size", "2", "1"),
        ({"enable_expert_parallel": True}, "enable_expert_parallel", "on", "off"),
        ({"speculative_config": {"method": "ngram"}}, "speculative_method", "ngram", "none"),
        ({"spec_method": "ngram"}, "speculative_method", "ngram", "none"),
        ({"spec_tokens": 3, "speculative_config": {"method": "ngram"}}, "num_speculative_tokens", "3", "0"),
        ({"speculative_config": {"num_speculative_tokens": 3}}, "num_speculative_tokens", "3", "0"),
    ],
)
def test_setting_that_the_engine_has_otherwise_differs(
    given: dict[str, Any], name: str, asked: str, found: str
) -> None:
    assert compared(given, loaded())[name] == (asked, found, True)


def test_other_names_of_the_same_value_do_not_differ() -> None:
    same = {"kv_cache_dtype": "auto", "dtype": "bfloat16", "max_model_len": -1, "attention_backend": None}
    assert not any(differs for _, _, differs in compared(same, loaded()).values())
    quantized = loaded(worker("uint8"), worker("float8_e4m3fn"))
    assert compared({"kv_cache_dtype": "fp8_e4m3"}, quantized)["kv_cache_dtype"] == (
        "fp8_e4m3",
        "float8_e4m3fn, uint8",
        False,
    )
    speculative = SimpleNamespace(method="mtp", num_speculative_tokens=1)
    mtp = compared({"speculative_config": {"method": "deepseek_mtp"}}, loaded(speculative_config=speculative))
    assert mtp["speculative_method"] == ("deepseek_mtp", "mtp", False)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"attention_backend": "flash_attn"}, "FLASH_ATTN"),
        ({"attention_config": {"backend": "Flash_Attn"}}, "FLASH_ATTN"),
        ({"attention_backend": "Auto"}, None),
        ({"attention_backend": SimpleNamespace(name="CUTLASS_MSA")}, None),
        ({"attention_config": {"backend": "triton_msa"}}, None),
    ],
)
def test_backend_is_compared_as_vllm_reads_its_name(given: dict[str, Any], asked: str | None) -> None:
    assert compared(given, loaded())["attention_backend"] == (asked, "FLASH_ATTN", False)


def test_attention_cache_of_another_dtype_differs_beside_a_cache_that_agrees() -> None:
    def layers(dtype: str) -> dict[str, Any]:
        return {
            "attention": SimpleNamespace(kv_cache_dtype="auto", kv_cache=tensor(dtype)),
            "indexer": SimpleNamespace(kv_cache=tensor("uint8")),
            "encoder": SimpleNamespace(kv_cache_dtype="auto", kv_cache=tensor("float32", elements=0)),
        }

    plain = worker("bfloat16", "uint8", layers=layers("bfloat16"))
    quantized = worker("float8_e4m3fn", "uint8", "float32", layers=layers("float8_e4m3fn"))
    fp8, bfloat16 = {"kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "bfloat16"}
    assert compared(fp8, loaded(plain))["kv_cache_dtype"] == ("fp8", "bfloat16, uint8", True)
    assert compared(bfloat16, loaded(quantized))["kv_cache_dtype"][2]
    assert not compared(bfloat16, loaded(plain))["kv_cache_dtype"][2], "an indexer's cache is of another dtype"
    assert not compared(fp8, loaded(quantized))["kv_cache_dtype"][2], "and so is the state of a Mamba layer"
    skipping = SimpleNamespace(block_size=128, enable_prefix_caching=True, kv_cache_dtype_skip_layers=["0"])
    assert not compared(fp8, loaded(plain, cache_config=skipping))["kv_cache_dtype"][2], "some layers are left out"


def test_backend_that_calls_itself_otherwise_than_its_flag_is_told_by_its_class() -> None:
    path = f"{Fallback.__module__}.{Fallback.__qualname__}"
    chosen = SimpleNamespace(name="FALLBACK", get_path=lambda: path)
    config = {"attention_config": SimpleNamespace(backend=chosen)}
    engine = loaded(worker("bfloat16", backend=Fallback), **config)
    assert not compared({"attention_backend": "FALLBACK"}, engine)["attention_backend"][2]
    other = loaded(worker("bfloat16"), **config)
    assert compared({"attention_backend": "FALLBACK"}, other)["attention_backend"][2]


def test_what_a_version_does_not_have_is_not_known() -> None:
    unknown = Loaded(SimpleNamespace(), SimpleNamespace(), settings.combine([settings.describe(object())]))
    asked = {"attention_backend": "X", "kv_cache_dtype": "fp8", "block_size": 1, "speculative_config": {"method": "x"}}
    for name, (_, found, differs) in compared(asked, unknown).items():
        assert (found, differs) == (None, False), name
