"""What a failed load is, and what to do about it, in a line in front of vLLM's own text."""

import contextlib
import re
from collections.abc import Iterator

from .records import EngineError

# In vLLM's text, and what it means. The first that is found counts.
EXPLANATIONS = (
    (
        r"does not support generation|is not supported for 'generate' runner|Unsupported runner",
        "this model does not generate text (embedding, reward, classification); give a model that does",
    ),
    (
        r"trust[_-]remote[_-]code",
        "this model brings code of its own; add --trust-remote-code to `args` if you trust it",
    ),
    (
        r"'_\w*C\w*' object has no attribute '(?P<name>\w+)'",
        "this build of vLLM has no kernel {name}, which the model needs; take another model or device",
    ),
    (
        r"Cannot find any model weights|No safetensors weights found|no file named .*(safetensors|\.bin)",
        "the model's weights are not there; give a folder that has them, or --load-format dummy for random ones",
    ),
    (
        r"Model architectures? .* (not supported|failed to be inspected)|has no vLLM implementation",
        "this vLLM has no implementation of the model's architecture; take another model, or a vLLM that has one",
    ),
    (
        r"LocalEntryNotFound|offline mode|is not a local folder and is not a valid model identifier|HF_HUB_OFFLINE",
        "the model, or a part of it, is not on this machine; download it first, or give the folder that it is in",
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
    """EngineError with a line on what it is and what to do, and vLLM's own text behind it, if the cause is known."""
    try:
        yield
    except EngineError:
        raise
    except Exception as err:
        if (said := explain(err)) is None:
            raise
        raise EngineError(said) from err


def explain(err: BaseException) -> str | None:
    """What a failure of vLLM's is, with its text behind; None if it is not known here."""
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
