"""The settings of a loaded engine, compared with its arguments.

vLLM resolves a flag, and may override or drop it. `compare` reads the attributes of the loaded engine's objects. The
value of an attribute that this version of vLLM does not have is unknown. `describe` runs in each worker process.
Nothing here imports vLLM.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Message = dict[str, Any]

# Dtypes of 16 or 32 bits under all names that vLLM takes.
_PLAIN = {"float32": "float32", "float": "float32", "float16": "float16", "half": "float16", "bfloat16": "bfloat16"}

# Names that vLLM takes for a backend, and that choose a decode kernel: the backend is left to vLLM.
_DECODE_KERNELS = ("CUTLASS_MSA", "TRITON_MSA")


class Loaded(NamedTuple):
    """A loaded engine's objects."""

    # vLLM's VllmConfig, as it was after the load.
    config: Any
    scheduler: Any
    # What `describe` found in the workers; None if it did not work.
    workers: Message | None


class Setting(NamedTuple):
    """One setting: the value that the arguments ask for, and the values of the engine."""

    name: str
    # From the given arguments, by name: the value in vLLM's words; None if the arguments leave it to vLLM.
    asked: Callable[[Mapping[str, Any]], str | None]
    # All values that the engine has, one as a rule; None if they are not known.
    found: Callable[[Loaded], list[str] | None]
    # Whether a found value is the asked value.
    agrees: Callable[[str, str], bool] = str.__eq__
    # Values that must all agree. Of `found` one value has to agree.
    strict: Callable[[Loaded], list[str]] = lambda _loaded: []


def compare(given: Mapping[str, Any], loaded: Loaded) -> list[Message]:
    """Every setting with its asked value and its found values; null for an unknown value."""
    return [_compare(setting, given, loaded) for setting in SETTINGS]


def _compare(setting: Setting, given: Mapping[str, Any], loaded: Loaded) -> Message:
    asked, found = setting.asked(given), setting.found(loaded)
    return {
        "name": setting.name,
        "asked": asked,
        "found": ", ".join(found) if found else None,
        "differs": asked is not None and bool(found) and not _agrees(setting, asked, found or [], loaded),
    }


def _agrees(setting: Setting, asked: str, found: list[str], loaded: Loaded) -> bool:
    return any(setting.agrees(asked, value) for value in found) and all(
        setting.agrees(asked, value) for value in setting.strict(loaded)
    )


# ---- in the workers ----


def describe(worker: Any) -> Message:
    """The attention backends of a worker, each with its classes, and the dtypes of its caches: of all, and of those of
    attention layers alone. Indexers and Mamba layers have caches of other dtypes.
    """
    runner = getattr(worker, "model_runner", None)
    backends = {}
    for backend in _backends(runner):
        get_name = getattr(backend, "get_name", None)
        name = str(get_name()) if get_name is not None else backend.__name__
        backends[name] = [f"{each.__module__}.{each.__qualname__}" for each in backend.__mro__]
    return {
        "attention_backends": backends or None,
        "kv_cache_dtypes": _dtypes(getattr(runner, "kv_caches", None)) or None,
        "attention_cache_dtypes": _dtypes(_attention_caches(runner)),
    }


def combine(parts: Sequence[Message]) -> Message:
    """The values of all workers; null if the value of one worker is unknown."""
    backends = [part["attention_backends"] for part in parts]
    dtypes = [part["kv_cache_dtypes"] for part in parts]
    return {
        "attention_backends": {name: of for part in backends for name, of in part.items()} if all(backends) else None,
        "kv_cache_dtypes": sorted({dtype for part in dtypes for dtype in part}) if all(dtypes) else None,
        "attention_cache_dtypes": sorted({dtype for part in parts for dtype in part["attention_cache_dtypes"]}),
    }


def _backends(runner: Any) -> Iterator[type[Any]]:
    for groups in getattr(runner, "attn_groups", None) or ():
        for group in groups if isinstance(groups, (list, tuple)) else ():
            backend = getattr(group, "backend", None)
            if isinstance(backend, type):
                yield backend


def _attention_caches(runner: Any) -> list[Any]:
    """The caches of the layers that have a `kv_cache_dtype`. Layers without a cache hold an empty tensor."""
    layers = getattr(getattr(runner, "compilation_config", None), "static_forward_context", None)
    return [
        layer.kv_cache
        for layer in (layers.values() if isinstance(layers, Mapping) else ())
        if hasattr(layer, "kv_cache_dtype") and hasattr(layer, "kv_cache")
    ]


def _dtypes(caches: Any) -> list[str]:
    """The dtypes of all tensors with elements, sorted. The tensors are of torch or of JAX."""
    return sorted({str(tensor.dtype).removeprefix("torch.") for tensor in _tensors(caches) if 0 not in tensor.shape})


def _tensors(node: Any) -> Iterator[Any]:
    """The tensors in a tree of lists and tables. A layer with several caches has a list of them."""
    if hasattr(node, "dtype"):
        yield node
    elif isinstance(node, Mapping):
        for child in node.values():
            yield from _tensors(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from _tensors(child)


# ---- asked values ----


def _argument(name: str) -> Callable[[Mapping[str, Any]], str | None]:
    return lambda given: _word(given.get(name))


def _word(value: Any) -> str | None:
    """A value in words; None for one that leaves the choice to vLLM."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return None if value in (None, "auto", -1) else str(value)


def _asked_dtype(name: str) -> Callable[[Mapping[str, Any]], str | None]:
    return lambda given: None if (word := _word(given.get(name))) is None else _PLAIN.get(word, word)


def _asked_backend(given: Mapping[str, Any]) -> str | None:
    """The name of the backend, from either flag, in upper case as vLLM reads it."""
    backend = given.get("attention_backend") or _get(given.get("attention_config"), "backend")
    name = str(getattr(backend, "name", backend) or "auto").upper()
    return None if name == "AUTO" or name in _DECODE_KERNELS else name


def _asked_speculation(key: str, flag: str) -> Callable[[Mapping[str, Any]], str | None]:
    """A key of `--speculative-config`, or the value of its own flag."""

    def asked(given: Mapping[str, Any]) -> str | None:
        value = _get(given.get("speculative_config"), key)
        return _word(given.get(flag) if value is None else value)

    return asked


def _get(owner: Any, key: str) -> Any:
    """A key of a table, or an attribute of anything else."""
    return owner.get(key) if isinstance(owner, Mapping) else getattr(owner, key, None)


# ---- found values ----


def _configured(*path: str) -> Callable[[Loaded], list[str] | None]:
    """An attribute of the configuration after the load."""

    def found(loaded: Loaded) -> list[str] | None:
        value = loaded.config
        for name in path:
            value = getattr(value, name, None)
        word = _word(value)
        return None if word is None else [word.removeprefix("torch.")]

    return found


def _in_workers(key: str) -> Callable[[Loaded], list[str] | None]:
    return lambda loaded: None if loaded.workers is None or not loaded.workers[key] else sorted(loaded.workers[key])


def _attention_cache_dtypes(loaded: Loaded) -> list[str]:
    """Of the attention layers' caches; none where some of these layers keep the dtype of the model."""
    if getattr(getattr(loaded.config, "cache_config", None), "kv_cache_dtype_skip_layers", None):
        return []
    return loaded.workers["attention_cache_dtypes"] if loaded.workers is not None else []


def _found_backends(loaded: Loaded) -> list[str] | None:
    """The backends' names. A backend whose own name differs from its flag has the flag's name, too."""
    names = _in_workers("attention_backends")(loaded)
    chosen = getattr(getattr(loaded.config, "attention_config", None), "backend", None)
    get_path = getattr(chosen, "get_path", None)
    if chosen is None or names is None or get_path is None or chosen.name in names:
        return names
    classes = [path for of in loaded.workers["attention_backends"].values() for path in of] if loaded.workers else []
    return [*names, str(chosen.name)] if get_path() in classes else names


def _found_caching(loaded: Loaded) -> list[str] | None:
    """Whether the scheduler's cache manager caches prefixes."""
    word = _word(getattr(getattr(loaded.scheduler, "kv_cache_manager", None), "enable_caching", None))
    return _configured("cache_config", "enable_prefix_caching")(loaded) if word is None else [word]


def _found_speculation(attribute: str, without: str) -> Callable[[Loaded], list[str] | None]:
    def found(loaded: Loaded) -> list[str] | None:
        if not hasattr(loaded.config, "speculative_config"):
            return None
        if loaded.config.speculative_config is None:
            return [without]
        return _configured("speculative_config", attribute)(loaded)

    return found


# ---- agreement ----


def _is_cache_dtype(asked: str, found: str) -> bool:
    """Whether a cache has the asked dtype. Formats of at most 8 bits are stored as bytes or as a dtype of their own."""
    return asked == found if asked in _PLAIN.values() else found not in _PLAIN.values()


def _is_method(asked: str, found: str) -> bool:
    """Whether a method is the asked method. vLLM calls multi-token prediction `mtp`, whatever model it is asked by."""
    return asked == found or (found == "mtp" and asked.endswith("_mtp"))


SETTINGS = (
    Setting("attention_backend", _asked_backend, _found_backends),
    Setting(
        "kv_cache_dtype",
        _asked_dtype("kv_cache_dtype"),
        _in_workers("kv_cache_dtypes"),
        _is_cache_dtype,
        _attention_cache_dtypes,
    ),
    Setting("block_size", _argument("block_size"), _configured("cache_config", "block_size")),
    Setting("enable_prefix_caching", _argument("enable_prefix_caching"), _found_caching),
    Setting("dtype", _asked_dtype("dtype"), _configured("model_config", "dtype")),
    Setting("max_model_len", _argument("max_model_len"), _configured("model_config", "max_model_len")),
    Setting("max_num_seqs", _argument("max_num_seqs"), _configured("scheduler_config", "max_num_seqs")),
    Setting(
        "max_num_batched_tokens",
        _argument("max_num_batched_tokens"),
        _configured("scheduler_config", "max_num_batched_tokens"),
    ),
    Setting("async_scheduling", _argument("async_scheduling"), _configured("scheduler_config", "async_scheduling")),
    Setting(
        "enable_chunked_prefill",
        _argument("enable_chunked_prefill"),
        _configured("scheduler_config", "enable_chunked_prefill"),
    ),
    Setting(
        "speculative_method",
        _asked_speculation("method", "spec_method"),
        _found_speculation("method", "none"),
        _is_method,
    ),
    Setting(
        "num_speculative_tokens",
        _asked_speculation("num_speculative_tokens", "spec_tokens"),
        _found_speculation("num_speculative_tokens", "0"),
    ),
    *(
        Setting(name, _argument(name), _configured("parallel_config", name))
        for name in (
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "data_parallel_size",
            "enable_expert_parallel",
        )
    ),
)
