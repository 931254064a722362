"""What is found in models made by hand, of torch and of JAX's kind."""

from types import SimpleNamespace
from typing import Any

import torch
from bench_sidecar import weights


class UnquantizedMethod:
    """As a layer of vLLM has one."""


class VocabParallelEmbedding(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """As vLLM's, by its name."""


class ParallelLMHead(VocabParallelEmbedding):
    """As vLLM's, by its name."""


class LoraWrapper(torch.nn.Module):  # type: ignore[misc]
    """As vLLM's wrappers: it shows all that the wrapped layer has."""

    def __init__(self, base_layer: torch.nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    def __getattr__(self, name: str) -> Any:
        return self._modules[name] if name in self._modules else getattr(self._modules["base_layer"], name)


def worker(model: Any) -> SimpleNamespace:
    """A worker with this model."""
    return SimpleNamespace(model_runner=SimpleNamespace(model=model))


CLASSES = {"embed_tokens": VocabParallelEmbedding, "lm_head": ParallelLMHead}


def torch_model(dtype: torch.dtype) -> torch.nn.Module:
    """An embedding, two layers of 6 weights of which one's matrix is taken over by a kernel, and a head."""
    model = torch.nn.Module()
    parts = {"embed_tokens": (2, 3), "q_proj": (2, 3), "o_proj": (0,), "lm_head": (2, 3)}
    for name, shape in parts.items():
        part = CLASSES.get(name, torch.nn.Module)()
        matrix = torch.zeros(shape, dtype=dtype if "proj" in name else torch.float32)
        part.weight = torch.nn.Parameter(matrix, requires_grad=False)
        part.quant_method = UnquantizedMethod()
        if "proj" in name:
            part.input_size_per_partition, part.output_size_per_partition = 3, 2
        setattr(model, name, part)
    return model


def test_parameters_are_counted_by_dtype_and_layers_by_what_computes_them() -> None:
    found = weights.describe(worker(torch_model(torch.float8_e4m3fn)))
    assert found is not None
    assert found["dtypes"] == [
        {"dtype": "float32", "tensors": 2, "elements": 12, "bytes": 48, "emptied": 0},
        {"dtype": "float8_e4m3fn", "tensors": 2, "elements": 6, "bytes": 6, "emptied": 1},
    ]
    same = {"dtype": "float8_e4m3fn", "method": "UnquantizedMethod", "kernel": None, "count": 1, "weights": 6}
    assert found["layers"] == [{"layer": "o_proj", **same}, {"layer": "q_proj", **same}]


def test_embedding_is_told_by_its_class_under_any_name() -> None:
    model = torch_model(torch.float8_e4m3fn)
    model.wte, model.embed_proj = model.embed_tokens, model.q_proj
    del model.embed_tokens, model.q_proj
    found = weights.describe(worker(model))
    assert found is not None
    assert [layer["layer"] for layer in found["layers"]] == ["embed_proj", "o_proj"]


def test_wrapped_layer_is_counted_once_under_its_own_name() -> None:
    model = torch_model(torch.bfloat16)
    plain = weights.describe(worker(model))
    for name in ("q_proj", "o_proj", "embed_tokens"):
        setattr(model, name, LoraWrapper(getattr(model, name)))
    assert weights.describe(worker(model)) == plain


def test_tied_weights_are_counted_once() -> None:
    model = torch_model(torch.bfloat16)
    plain = weights.describe(worker(model))
    assert plain is not None
    tied = torch.nn.Module()
    tied.quant_method = UnquantizedMethod()
    tied.weight = torch.nn.Parameter(model.q_proj.weight.data, requires_grad=False)  # other object, same memory
    model.again = tied
    assert weights.describe(worker(model)) == plain


def test_workers_are_added_up_and_one_that_is_not_known_leaves_nothing_known() -> None:
    one = weights.describe(worker(torch_model(torch.bfloat16)))
    both = weights.combine([one, one])
    assert both is not None
    assert one is not None
    assert both["workers"] == 2
    assert [layer["weights"] for layer in both["layers"]] == [12, 12]
    assert both["dtypes"][0]["bytes"] == 2 * one["dtypes"][0]["bytes"]
    assert weights.combine([one, weights.describe(SimpleNamespace())]) is None
    assert weights.combine([]) is None


def test_a_tree_of_arrays_is_counted_by_the_dtype_that_is_computed_with() -> None:
    quantized = SimpleNamespace(
        qvalue=torch.zeros((4, 4), dtype=torch.float8_e4m3fn), scale=torch.ones((1, 4)), dtype="float32", shape=(4, 4)
    )
    state = {
        "layers": [
            {"q_proj": {"kernel": SimpleNamespace(array=quantized)}},
            {"q_proj": {"kernel": torch.zeros((4, 4))}},
        ],
        "vllm_model.layers.0.o_proj.weight": torch.zeros((2, 2), dtype=torch.bfloat16),
        "embed": {"embedding": torch.zeros((8, 4))},
    }
    found = weights.describe(SimpleNamespace(model_runner=SimpleNamespace(state=state)))
    assert found is not None
    layers = [(layer["layer"], layer["dtype"], layer["count"]) for layer in found["layers"]]
    assert layers == [("o_proj", "bfloat16", 1), ("q_proj", "float32", 1), ("q_proj", "float8_e4m3fn", 1)]
