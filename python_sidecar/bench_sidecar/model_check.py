"""What a model's files say before an engine is loaded: kinds of models that cannot be measured, one row for each.

Nothing here imports vLLM: what it knows of models comes in as names.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Config = dict[str, Any]

# What vLLM's loaders read weights from.
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".tensors", ".npz")
# Formats that read them from the model's own folder.
LOAD_FORMATS = ("auto", "hf", "safetensors", "fastsafetensors", "pt", "mistral")
# Ends of the names of architectures that vLLM makes classifiers and embedders of.
POOLING_SUFFIXES = (
    "Classification",
    "ClassificationModel",
    "ForTextEncoding",
    "EmbeddingModel",
    "RewardModel",
    "RewardModeling",
)
# Kernels that a build of vLLM may lack, and the architectures whose layers call them.
KERNELS = {
    "selective_scan_fwd": frozenset(
        {
            "MambaForCausalLM",
            "FalconMambaForCausalLM",
            "JambaForCausalLM",
            "JambaForSequenceClassification",
        }
    )
}


@dataclass(frozen=True)
class Known:
    """What the installed vLLM and transformers know, by name. A table that this version does not have is empty."""

    device: str
    # Architectures that generate text, that give vectors or classes, and all.
    generating: frozenset[str] = frozenset()
    pooling: frozenset[str] = frozenset()
    architectures: frozenset[str] = frozenset()
    # The last version of vLLM that had an architecture.
    removed: dict[str, str] = field(default_factory=dict)
    # Model types whose configuration needs no code of the model's own.
    model_types: frozenset[str] = frozenset()
    # Whether transformers has a class of this name, which vLLM may run.
    has_class: Callable[[str], bool] = lambda _name: False
    has_kernel: Callable[[str], bool] = lambda _name: True


@dataclass(frozen=True)
class Asked:
    """The engine's arguments that decide how a model's files are read."""

    model: str
    trust_remote_code: bool = False
    load_format: str = "auto"
    runner: str = "auto"
    # Whether something else than the model's `config.json` says what it is.
    is_overridden: bool = False
    # Where the hub's copy of the model lies on this machine; None if it does not.
    cached: str | None = None
    is_offline: bool = False

    @classmethod
    def of(cls, arguments: Any, cached: str | None, is_offline: bool) -> "Asked":
        """Of vLLM's own parsed arguments."""
        overrides = [getattr(arguments, name, None) for name in ("hf_overrides", "hf_config_path")]
        return cls(
            model=str(arguments.model),
            trust_remote_code=bool(getattr(arguments, "trust_remote_code", False)),
            load_format=str(getattr(arguments, "load_format", "auto")),
            runner=str(getattr(arguments, "runner", "auto")),
            is_overridden=any(overrides) or str(getattr(arguments, "config_format", "auto")) not in ("auto", "hf"),
            cached=cached,
            is_offline=is_offline,
        )

    def folder(self) -> str | None:
        """The folder with the model's files, if it is on this machine."""
        return self.model if os.path.isdir(self.model) else self.cached


def refusal(asked: Asked, known: Known) -> str | None:
    """Why the model cannot be measured, and what to do; None if its files do not say that it cannot."""
    folder = asked.folder()
    if folder is None:
        if asked.is_offline and not os.path.exists(asked.model):
            return (
                f"the model {asked.model} is not on this machine, and HF_HUB_OFFLINE forbids asking the hub: download "
                "it (`hf download`), or give the folder that it lies in"
            )
        return None
    config = None if asked.is_overridden else read_config(folder)
    for row in KINDS if config is not None else ():
        if (problem := row(config or {}, asked, known)) is not None:
            return f"the model {asked.model} cannot be measured: {problem}"
    return _without_weights(folder, asked)


def read_config(folder: str) -> Config | None:
    """The model's `config.json`; None where there is none that can be read, which vLLM says in its own words."""
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def architectures_of(config: Config) -> list[str]:
    """The names under `architectures`."""
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _own_code(config: Config, asked: Asked, known: Known) -> str | None:
    own = config.get("auto_map")
    has_own = isinstance(own, dict) and "AutoConfig" in own
    if not has_own or asked.trust_remote_code or not known.model_types:
        return None
    if config.get("model_type") in known.model_types:
        return None
    return (
        "it brings code of its own (`auto_map` in its config.json), which vLLM runs with `--trust-remote-code` alone: "
        "read that code, and add the flag to `args`"
    )


def _encoder_decoder(config: Config, _asked: Asked, _known: Known) -> str | None:
    if config.get("is_encoder_decoder") is not True:
        return None
    return "it is an encoder-decoder model, and bench sends prompts to a decoder: take a decoder-only model"


def _pooling(config: Config, asked: Asked, known: Known) -> str | None:
    names = architectures_of(config)
    is_pooling = any(_pools(name, known) for name in names) and not any(name in known.generating for name in names)
    if asked.runner != "pooling" and (not is_pooling or asked.runner == "generate"):
        return None
    return (
        f"it generates no text ({', '.join(names) or '--runner pooling'} gives vectors, classes or rewards): take the "
        "model that it was made from, or another one that generates"
    )


def _pools(name: str, known: Known) -> bool:
    """By vLLM's table; of an architecture that stands in none, by the end of its name, as vLLM goes by."""
    return name in known.pooling or (name not in known.architectures and name.endswith(POOLING_SUFFIXES))


def _unknown(config: Config, asked: Asked, known: Known) -> str | None:
    names = architectures_of(config)
    if not names or not known.architectures or any(name in known.architectures for name in names):
        return None
    for name in names:
        if name in known.removed:
            return f"vLLM had the architecture {name} until {known.removed[name]}: take that version, or another model"
    own = config.get("auto_map")
    if any(known.has_class(name) for name in names) or (isinstance(own, dict) and asked.trust_remote_code):
        return None
    return (
        f"this vLLM does not know its architecture, {', '.join(names)} in its config.json: look for a version of vLLM "
        "that does, or take another model"
    )


def _without_kernel(config: Config, _asked: Asked, known: Known) -> str | None:
    for kernel, needing in KERNELS.items():
        for name in architectures_of(config):
            if name in needing and not known.has_kernel(kernel):
                return (
                    f"its architecture {name} needs the kernel {kernel}, which vLLM for {known.device} does not have: "
                    "measure it on cuda, or take another model"
                )
    return None


# What is asked of a `config.json`, in this order: the first that answers is told.
KINDS = (_own_code, _encoder_decoder, _unknown, _pooling, _without_kernel)


def _without_weights(folder: str, asked: Asked) -> str | None:
    """A folder from which nothing can be loaded. What is missing of a model of the hub, the hub has."""
    if asked.load_format not in LOAD_FORMATS or (folder != asked.model and not asked.is_offline):
        return None
    if any(name.endswith(WEIGHT_SUFFIXES) for _, _, names in os.walk(folder) for name in names):
        return None
    return (
        f"the model {asked.model} has no weights here (no *.safetensors, *.bin, *.pt or *.gguf in {folder}); "
        "put them there, or add `--load-format dummy` to `args` for random ones"
    )


# Words of a load that failed, and what they mean: what the files did not tell.
MEANINGS = (
    (r"does not support generation", "the model generates no text: take one that does"),
    (r"--trust-remote-code", "the model brings code of its own: read it, and add `--trust-remote-code` to `args`"),
    (
        r"'_C\w*' object has no attribute '(\w+)'",
        "this build of vLLM lacks a kernel that the model needs: take another model, or another device",
    ),
    (
        r"are not supported for now|was supported in vLLM until|is not supported in-tree anymore",
        "this vLLM does not know the model's architecture: look for a version that does, or take another model",
    ),
    (
        r"[Cc]an't load the configuration|couldn't connect to|Cannot find any model weights|LocalEntryNotFoundError",
        "files of the model are not on this machine, and the hub did not give them: download the model first",
    ),
    (
        r"not found in the forward method",
        "the model's layers are not those of a decoder, which vLLM's general implementation needs: take another model",
    ),
)


def meaning(text: str) -> str | None:
    """What vLLM's words about a failed load mean, in one line; None for words that are not known."""
    return next((meant for pattern, meant in MEANINGS if re.search(pattern, text)), None)


@contextlib.contextmanager
def explained(error: type[Exception]) -> Iterator[None]:
    """Puts what vLLM's words mean in front of them, as an `error`; others pass as they are."""
    try:
        yield
    except Exception as err:
        if (meant := meaning(str(err))) is None:
            raise
        raise error(f"{meant}. vLLM says: {err}") from err
