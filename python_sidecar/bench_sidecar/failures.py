"""Explanations of vLLM's failures: what has failed and what to do, in a line in front of vLLM's own text."""

import contextlib
import re
from collections.abc import Iterator

from .records import EngineError

# Patterns of vLLM's texts, each with its meaning and what to do. The first pattern that matches counts.
EXPLANATIONS = (
    (
        r"does not support generation|is not supported for 'generate' runner|Unsupported runner",
        "this model does not generate text (embedding, reward, classification); use a model that generates text",
    ),
    (
        r"trust[_-]remote[_-]code",
        "this model brings code of its own; read the code, and add --trust-remote-code to `args` if you trust it",
    ),
    (
        r"'_\w*C\w*' object has no attribute '(?P<name>\w+)'",
        "this build of vLLM has no kernel {name}, which the model needs; use another model or device",
    ),
    (
        r"Cannot find any model weights|No safetensors weights found|no file named .*(safetensors|\.bin)",
        "the model's weights are not there; give a folder that has them, or --load-format dummy for random ones",
    ),
    (
        r"Model architectures? .* (not supported|failed to be inspected)|has no vLLM implementation"
        r"|was supported in vLLM until|is not supported in-tree anymore",
        "this vLLM has no implementation of the model's architecture; use another model, or a vLLM that has one",
    ),
    (
        r"not found in the forward method",
        "vLLM's general implementation needs the layers of a decoder, which this model does not have; use another "
        "model",
    ),
    (
        r"appropriate cached snapshot folder",
        "the model or its tokenizer is not on this machine, and HF_HUB_OFFLINE forbids asking the hub; download it "
        "(`hf download`), or give the folder that it is in",
    ),
    (
        r"Repo id must be in the form|Repo id must use alphanumeric",
        "the model or its tokenizer is neither a folder on this machine nor a name that the hub can have; check the "
        "path",
    ),
    (
        r"LocalEntryNotFound|offline mode|is not a local folder and is not a valid model identifier|HF_HUB_OFFLINE"
        r"|[Cc]an't load the configuration|couldn't connect to",
        "the model, or a part of it, is not on this machine, and the hub could not be reached or does not have it; "
        "download the model first, or give the folder that it is in",
    ),
    (
        r"doesn't match local world size",
        "the engine has more ranks than it was given groups of cores; lower the parallel sizes",
    ),
)
# A validation error of pydantic's, in which what was checked says it in a sentence.
_VALIDATION = re.compile(r"(?:Value|Assertion) error, (?P<said>.*?)(?: \[type=|$)", re.DOTALL)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raises a failure of vLLM's that is known as EngineError: its explanation, then vLLM's own text. Other failures
    pass as they are. Of an EngineError the cause is looked at: one without a cause is of the sidecar's own wording.
    """
    try:
        yield
    except Exception as err:
        cause = err.__cause__ if isinstance(err, EngineError) else err
        if cause is None or (said := explain(cause)) is None:
            raise
        raise EngineError(said) from cause


def explain(err: BaseException) -> str | None:
    """The explanation of a failure of vLLM's, followed by vLLM's text; None if no pattern matches."""
    text = f"{type(err).__name__}: {err}"
    if (validation := _VALIDATION.search(text)) is not None:
        text = f"{type(err).__name__}: {validation['said'].strip()}"
    for pattern, meaning in EXPLANATIONS:
        if (found := re.search(pattern, text)) is not None:
            return f"{meaning.format(**found.groupdict())}\n  vLLM says: {_one_line(text)}"
    if validation is not None:
        return f"vLLM refuses these settings together; change what it names\n  vLLM says: {_one_line(text)}"
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())
