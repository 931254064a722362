"""What a model's files say before an engine is loaded: kinds of models that cannot be measured, one row for each.

Nothing here imports vLLM: what it knows of models comes in as names.
"""

import fnmatch
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Config = dict[str, Any]

# What vLLM's loaders read weights from.
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".tensors", ".npz")
# Formats that read them from the model's own folder.
LOAD_FORMATS = ("auto", "hf", "safetensors", "fastsafetensors", "pt", "mistral")
# Ends of the names of architectures with their runners, in vLLM's order: the first end that fits counts
# (`_SUFFIX_TO_DEFAULTS` of vllm/config/model.py). Of a name that stands in no table vLLM tries every other end, too.
ENDS = (
    ("ForCausalLM", "generate"),
    ("ForConditionalGeneration", "generate"),
    ("ChatModel", "generate"),
    ("LMHeadModel", "generate"),
    ("ForTextEncoding", "pooling"),
    ("EmbeddingModel", "pooling"),
    ("ForSequenceClassification", "pooling"),
    ("ForTokenClassification", "pooling"),
    ("ForAudioClassification", "pooling"),
    ("ForImageClassification", "pooling"),
    ("ForVideoClassification", "pooling"),
    ("ClassificationModel", "pooling"),
    ("ForRewardModeling", "pooling"),
    ("RewardModel", "pooling"),
    ("Model", "pooling"),
)
# The module of Sentence Transformers that makes one vector of a text, under the paths of its versions.
POOLING_MODULES = (
    "sentence_transformers.models.Pooling",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
)
# A configuration file is a few KiB. A longer one is left to vLLM.
MAX_JSON_BYTES = 4 << 20
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
    config_format: str = "auto"
    # Whether something else than the model's `config.json` says what it is.
    is_overridden: bool = False
    # The folder with the hub's copy of the model on this machine; None if there is none.
    cached: str | None = None

    @classmethod
    def of(cls, arguments: Any, cached: str | None) -> "Asked":
        """Of vLLM's own parsed arguments."""
        overrides = [getattr(arguments, name, None) for name in ("hf_overrides", "hf_config_path")]
        return cls(
            model=str(arguments.model),
            trust_remote_code=bool(getattr(arguments, "trust_remote_code", False)),
            load_format=str(getattr(arguments, "load_format", "auto")),
            runner=str(getattr(arguments, "runner", "auto")),
            config_format=str(getattr(arguments, "config_format", "auto")),
            is_overridden=any(overrides),
            cached=cached,
        )

    def folder(self) -> str | None:
        """The folder with the model's files, if it is on this machine."""
        return self.model if os.path.isdir(self.model) else self.cached


def refusal(asked: Asked, known: Known) -> str | None:
    """Why the model cannot be measured, and what to do; None if its files do not say that it cannot."""
    folder = asked.folder()
    if folder is None:
        return None
    config = read_config(folder) if _is_config_read(folder, asked) else None
    if config is not None:
        if config.get("speculators_config") is not None:
            return None  # vLLM loads the model that it names, and this one as its draft model
        for row in KINDS:
            if (problem := row(config, asked, known)) is not None:
                return f"the model {asked.model} cannot be measured: {problem}"
    return _without_weights(folder, asked)


def _is_config_read(folder: str, asked: Asked) -> bool:
    """Whether vLLM goes by the model's `config.json`: not where arguments override it, nor for files of Mistral's
    format, which come first where no format is given.
    """
    if asked.is_overridden or asked.config_format not in ("auto", "hf"):
        return False
    names = _names_in(folder) if asked.config_format == "auto" else []
    return not ("params.json" in names and fnmatch.filter(names, "consolidated*.safetensors"))


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def read_config(folder: str) -> Config | None:
    """The model's `config.json`; None if it cannot be read: vLLM says why."""
    config = _read_json(os.path.join(folder, "config.json"))
    return config if isinstance(config, dict) else None


def _read_json(path: str) -> Any:
    """A regular file of at most MAX_JSON_BYTES, parsed; None for every other file."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            text = file.read(MAX_JSON_BYTES + 1)
        return json.loads(text) if len(text) <= MAX_JSON_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def architectures_of(config: Config) -> list[str]:
    """The names under `architectures`."""
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _own_code(config: Config, asked: Asked, known: Known) -> str | None:
    own = config.get("auto_map")
    has_own = isinstance(own, dict) and "AutoConfig" in own
    if not has_own or asked.trust_remote_code or not known.model_types:
        return None
    if config.get("model_type") is None or config["model_type"] in known.model_types:
        return None  # vLLM finds out the type of some architectures itself
    return (
        "it brings code of its own (`auto_map` in its config.json), and vLLM runs it only with `--trust-remote-code`: "
        "read that code, and add the flag to `args`"
    )


def _encoder_decoder(config: Config, _asked: Asked, _known: Known) -> str | None:
    if config.get("is_encoder_decoder") is not True:
        return None
    return "it is an encoder-decoder model, and bench sends prompts to a decoder: use a decoder-only model"


def _pooling(config: Config, asked: Asked, known: Known) -> str | None:
    names = architectures_of(config)
    by_name = any(_pools(name, known) for name in names) and not any(name in known.generating for name in names)
    by_modules = not by_name and asked.runner == "auto" and _has_pooling_module(asked)
    if asked.runner != "pooling" and (asked.runner == "generate" or not (by_name or by_modules)):
        return None
    what = "its modules.json" if by_modules else ", ".join(names) or "--runner pooling"
    return (
        f"it generates no text ({what} gives vectors, classes or rewards): use the model that it was made from, or "
        "another one that generates text"
    )


def _pools(name: str, known: Known) -> bool:
    """By vLLM's table; by the end of a name that stands in none."""
    return name in known.pooling or (name not in known.architectures and _end_of(name)[1] == "pooling")


def _end_of(name: str) -> tuple[str, str]:
    """The first of ENDS that an architecture's name has, with its runner; two empty texts if it has none."""
    return next(((end, runner) for end, runner in ENDS if name.endswith(end)), ("", ""))


def _has_pooling_module(asked: Asked) -> bool:
    """Whether the model's `modules.json` has a pooling module, which vLLM puts above the architecture."""
    modules = _read_json(os.path.join(asked.folder() or "", "modules.json"))
    return isinstance(modules, list) and any(
        isinstance(module, dict) and module.get("type") in POOLING_MODULES for module in modules
    )


def _unknown(config: Config, asked: Asked, known: Known) -> str | None:
    names = architectures_of(config)
    if not names or not known.architectures or any(_has_implementation(name, known) for name in names):
        return None
    for name in names:
        if name in known.removed:
            return f"vLLM had the architecture {name} until {known.removed[name]}: use that version, or another model"
    own = config.get("auto_map")
    if any(known.has_class(name) for name in names) or (isinstance(own, dict) and asked.trust_remote_code):
        return None
    return (
        f"this vLLM does not know its architecture, {', '.join(names)} in its config.json: look for a version of vLLM "
        "that does, or use another model"
    )


def _has_implementation(name: str, known: Known) -> bool:
    """Whether vLLM has this architecture, or one that differs in the end of its name."""
    end, _ = _end_of(name)
    stem = name.removesuffix(end)
    return name in known.architectures or bool(end and any(stem + other in known.architectures for other, _ in ENDS))


def _without_kernel(config: Config, _asked: Asked, known: Known) -> str | None:
    for kernel, needing in KERNELS.items():
        for name in architectures_of(config):
            if name in needing and not known.has_kernel(kernel):
                return (
                    f"its architecture {name} needs the kernel {kernel}, which vLLM for {known.device} does not have: "
                    "measure it on cuda, or use another model"
                )
    return None


# What is asked of a `config.json`, in this order: the first that answers is told.
KINDS = (_own_code, _encoder_decoder, _unknown, _pooling, _without_kernel)


def _without_weights(folder: str, asked: Asked) -> str | None:
    """Why nothing can be loaded from the folder. Of a model of the hub the hub has the weights; where the hub is
    offline, vLLM has put the folder in the place of the model's name.
    """
    if asked.load_format not in LOAD_FORMATS or folder != asked.model:
        return None
    if any(name.endswith(WEIGHT_SUFFIXES) for _, _, names in os.walk(folder) for name in names):
        return None
    return (
        f"the model {asked.model} has no weights here (no *.safetensors, *.bin, *.pt or *.gguf in {folder}); "
        "put them there, or add `--load-format dummy` to `args` for random ones"
    )
