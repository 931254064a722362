"""What a loaded engine really holds: its parameters by dtype, and the layers that multiply by them.

Labels, flags and checkpoints say what was wanted; this looks at the tensors. `describe` runs in each worker process and
imports nothing: it takes a model as it finds it, one of torch or one of JAX.
"""

import enum
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

Message = dict[str, Any]
# Address, elements and dtype of a tensor.
Identity = tuple[int, int, str]

# Classes of vLLM that have a method of quantization and are no layer here: a matrix that is looked up, or multiplied by
# once in a step to get the logits, is left alone by quantization; attention has none.
_NO_LAYER_CLASSES = {"VocabParallelEmbedding", "ParallelLMHead", "Attention", "MLAAttention", "EncoderOnlyAttention"}
# JAX has arrays and no classes. There, parts of a name say the same.
_NO_LAYER = ("embed", "lm_head", "norm", "scale", "bias", "rotary", "rope", "cache", "zero_point")
# Where vLLM's kernels, and its choices among them, are defined.
_KERNEL_MODULES = ("vllm.model_executor.kernels.", "vllm.model_executor.layers.fused_moe.")
# What a quantized matrix is called inside of its layer.
_MATRICES = (
    *("weight", "weight_packed", "qweight"),
    *("w13_weight", "w2_weight", "w13_weight_packed", "w2_weight_packed", "w13_qweight", "w2_qweight"),
)


class Layer(NamedTuple):
    """What layers that are counted together have in common."""

    # Last part of the name: `qkv_proj`.
    layer: str
    # Of the matrix, as it lies in memory; None if the layer no longer has one.
    dtype: str | None
    # Class that applies the weights, in vLLM.
    method: str | None
    # Class or choice of the kernel that it uses, in vLLM; None if it has none of its own.
    kernel: str | None


class Tally:
    """Counts of the tensors and layers of one worker."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.dtypes: dict[str, Counter[str]] = {}
        self.layers: dict[Layer, Counter[str]] = {}

    def tensor(self, dtype: str, elements: int, num_bytes: int) -> None:
        """Counts a parameter or a buffer."""
        count = self.dtypes.setdefault(dtype, Counter())
        count.update(tensors=1, elements=elements, bytes=num_bytes, emptied=int(elements == 0))

    def matrix(self, layer: Layer, weights: int | None) -> None:
        """Counts a layer with a matrix of so many weights; None if nobody knows how many."""
        count = self.layers.setdefault(layer, Counter())
        count.update(count=1, weights=weights or 0, unknown=int(weights is None))

    def message(self) -> Message:
        """For the harness."""
        return {
            "source": self.source,
            "workers": 1,
            "dtypes": [{"dtype": dtype, **count} for dtype, count in sorted(self.dtypes.items())],
            "layers": [
                {**layer._asdict(), "count": count["count"], "weights": None if count["unknown"] else count["weights"]}
                for layer, count in sorted(self.layers.items(), key=lambda item: tuple(map(str, item[0])))
            ],
        }


def describe(worker: Any) -> Message | None:
    """The weights of a worker's model; None if this is a worker of a kind that is not known here."""
    runner = getattr(worker, "model_runner", None)
    state = getattr(runner, "state", None)
    if state is not None:  # tpu-inference: what is computed with are JAX arrays, whatever the model is written in
        return _of_jax(state)
    get_model = getattr(worker, "get_model", None)  # without what wraps it for CUDA graphs
    model = get_model() if get_model is not None else getattr(runner, "model", None)
    return _of_torch(model) if hasattr(model, "named_modules") else None


def combine(parts: Sequence[Message | None]) -> Message | None:
    """The weights of all workers together; None if one of them could not be looked at."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    tally = Tally(known[0]["source"])
    for part in known:
        for entry in part["dtypes"]:
            counts = {name: value for name, value in entry.items() if name != "dtype"}
            tally.dtypes.setdefault(entry["dtype"], Counter()).update(counts)
        for entry in part["layers"]:
            layer = Layer(*(entry[field] for field in Layer._fields))
            unknown = int(entry["weights"] is None)
            counts = {"count": entry["count"], "weights": entry["weights"] or 0, "unknown": unknown}
            tally.layers.setdefault(layer, Counter()).update(counts)
    return {**tally.message(), "workers": len(known)}


# ---- torch ----


def _of_torch(model: Any) -> Message:
    tally = Tally("torch")
    seen: set[Identity] = set()
    for tensors in (model.named_parameters(), model.named_buffers()):
        for _name, tensor in tensors:
            if (identity := _identity(tensor)) not in seen:
                seen.add(identity)
                tally.tensor(_dtype(tensor), tensor.numel(), tensor.numel() * tensor.element_size())
    counted: set[Identity] = set()
    for name, wrapper in model.named_modules():
        module = _unwrapped(wrapper)
        method = getattr(module, "quant_method", None)
        if method is None or any(each.__name__ in _NO_LAYER_CLASSES for each in type(module).__mro__):
            continue
        found = [getattr(module, matrix, None) for matrix in _MATRICES]
        matrices = [tensor for tensor in found if hasattr(tensor, "dtype")]
        identities = {_identity(module), *map(_identity, matrices)}
        if identities & counted:  # a wrapped layer, or one that shares its matrix
            continue
        counted |= identities
        scheme = getattr(module, "scheme", None)
        applied_by = type(method if scheme is None else scheme).__name__
        dtype = _dtype(matrices[0]) if matrices else None
        layer = Layer(name.rpartition(".")[2], dtype, applied_by, _kernel(method, scheme))
        tally.matrix(layer, _num_weights(module, matrices))
    return tally.message()


def _unwrapped(module: Any) -> Any:
    """The layer itself, where LoRA has wrapped it: the wrapper has the layer's name and shows what the layer has."""
    while (inner := getattr(module, "_modules", {}).get("base_layer")) is not None:
        module = inner
    return module


def _identity(thing: Any) -> Identity:
    """The same for everything with the same memory: tied weights are tensors of their own in some models.

    Anything else, empty tensors too, is only itself.
    """
    get_address = getattr(thing, "data_ptr", None)
    address = get_address() if get_address is not None and thing.numel() > 0 else 0
    return (address, thing.numel(), _dtype(thing)) if address else (id(thing), 0, "")


def _num_weights(module: Any, matrices: list[Any]) -> int | None:
    """Weights of a layer, in this worker.

    A packed matrix has fewer elements than weights, and one that a kernel has taken over has none, so the layer's own
    sizes count more.
    """
    rows, columns = (getattr(module, f"{side}_size_per_partition", None) for side in ("input", "output"))
    if isinstance(rows, int) and isinstance(columns, int):
        return rows * columns
    packed = (2 if _dtype(matrix) in ("uint8", "float4_e2m1fn_x2") else 1 for matrix in matrices)
    return sum(matrix.numel() * per_element for matrix, per_element in zip(matrices, packed, strict=True)) or None


def _kernel(method: Any, scheme: Any) -> str | None:
    """The kernel that a layer's method or scheme was built with: an object of its class, or a member of an enum."""
    for owner in (scheme, method):
        for value in vars(owner).values() if hasattr(owner, "__dict__") else ():
            if type(value).__module__.startswith(_KERNEL_MODULES):
                if isinstance(value, enum.Enum):
                    return value.name
                if type(value).__name__.endswith("Kernel"):
                    return type(value).__name__
    return None


# ---- JAX ----


def _of_jax(state: Any) -> Message:
    tally = Tally("jax")
    for path, array in _leaves(state, ()):
        dtype = _dtype(array)
        size = math.prod(array.shape)
        tally.tensor(dtype, size, int(getattr(array, "nbytes", 0)))
        words = [word for part in path for word in part.split(".") if not word.isdigit()]
        if getattr(array, "ndim", 0) < 2 or not words or _is_no_layer(".".join(words)):
            continue
        tally.matrix(Layer(_layer_name(words), dtype, None, None), size)
    return tally.message()


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Arrays of a tree of tables, lists, variables and arrays in parts, with the names on the way to them."""
    if hasattr(node, "dtype") and hasattr(node, "shape") and not hasattr(node, "qvalue"):
        yield path, node
    elif hasattr(node, "items"):
        for name, child in node.items():
            yield from _leaves(child, (*path, str(name)))
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from _leaves(child, (*path, str(index)))
    elif hasattr(node, "qvalue"):  # qwix: a quantized array, with its scale
        for name in ("qvalue", "scale", "zero_point"):
            yield from _leaves(getattr(node, name, None), (*path, name))
    else:
        for name in ("raw_value", "value", "array"):  # a variable of flax, a wrapped array of qwix
            inner = getattr(node, name, None)
            if inner is not None and inner is not node:
                yield from _leaves(inner, path)
                return


def _layer_name(words: Sequence[str]) -> str:
    """The last name that is not that of a part of a layer."""
    parts = ("kernel", "weight", "array", "qvalue", "value")
    return next((word for word in reversed(words) if word not in parts), words[-1])


# ---- both ----


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_no_layer(name: str) -> bool:
    return any(part in name for part in _NO_LAYER)
