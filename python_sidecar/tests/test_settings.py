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


def tensor(dtype: str) -> Any:
    return SimpleNamespace(dtype=f"torch.{dtype}")


def worker(*dtypes: str, backend: type[Any] = FlashBackend) -> Any:
    caches = [[tensor(dtype)] for dtype in dtypes]  # a layer may have several
    groups = [[SimpleNamespace(backend=backend)]]
    return SimpleNamespace(model_runner=SimpleNamespace(attn_groups=groups, kv_caches=caches))


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
