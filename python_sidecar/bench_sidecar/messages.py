"""What may be asked over the control plane: each operation with its fields, their types, and its descriptors.

A message is checked against this table before anything is done for it. Fields that stand in no row are ignored.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Message = dict[str, Any]

# Objects and lists inside one another: a load has five, and what is read deep has to be written deep.
MAX_DEPTH = 32
# Words of a command line, variables, lengths of requests: a run has at most 32,768 of these.
MAX_ITEMS = 1 << 16


class ControlError(RuntimeError):
    """A peer sent something that is not a message."""


class Kind(NamedTuple):
    """The type of a field: how it is told from others, and what it is called."""

    name: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Operation:
    """The fields that an operation must have, those that it may have (null is as good as none), and how many
    descriptors come with it.
    """

    required: dict[str, Kind] = field(default_factory=dict)
    optional: dict[str, Kind] = field(default_factory=dict)
    fds: tuple[int, ...] = (0,)


def _is_int(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 63


def _is_list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) <= MAX_ITEMS and all(map(fits, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object_of_texts(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= MAX_ITEMS and all(map(_is_text, value.values()))


TEXT = Kind("a text", _is_text)
TEXTS = Kind("a list of texts", _is_list_of(_is_text))
BOOL = Kind("true or false", lambda value: isinstance(value, bool))
INT = Kind("an integer", _is_int)
COUNT = Kind("a count", lambda value: _is_int(value) and 0 <= value < 1 << 32)
COUNTS = Kind("a list of counts", _is_list_of(COUNT.fits))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
OBJECT_OF_TEXTS = Kind("an object of texts", _is_object_of_texts)
SECONDS = Kind(
    "seconds, not negative",
    lambda value: type(value) in (int, float) and 0 <= value <= 1e9 and math.isfinite(value),
)

# By anyone of this user who has connected.
VISITOR = {
    "hold": Operation(optional={"command": TEXTS, "keep_s": SECONDS, "about": OBJECT}),
    "status": Operation(),
    "leave": Operation(optional={"force": BOOL}),
}
# By the holder of the sidecar. With a load come the engine's channel, two rings, and one or two wake-ups.
HOLDER = {
    "check": Operation({"argv": TEXTS}),
    "load": Operation(
        optional={
            "argv": TEXTS,
            "script": OBJECT,
            "truth": TEXT,
            "step_api": TEXT,
            "env": OBJECT_OF_TEXTS,
            "device": TEXT,
            "files": OBJECT,
            "cores": COUNTS,
            "nice": INT,
            "cwd": TEXT,
        },
        fds=(4, 5),
    ),
    "kill": Operation({"pid": COUNT}),
    "shutdown": Operation(),
}
# By the holder of an engine. With a stage comes the memory of its prompts, where the engine reads any.
ENGINE = {
    "reset": Operation(),
    "stage": Operation({"prompt_tokens": COUNTS, "output_tokens": COUNTS}, {"salt": TEXT}, fds=(0, 1)),
    "begin": Operation({"limits": OBJECT, "drive": TEXT}, {"run": TEXT}),
    "observe": Operation({"batch": COUNT, "rounds": COUNT, "ways": TEXTS}),
    "measure_tap": Operation({"batch": COUNT, "steps": COUNT}),
    "give_back": Operation(),
    "shutdown": Operation(),
}


def check(message: Message, num_fds: int, table: dict[str, Operation]) -> None:
    """ControlError unless the message is one of the table's. An operation of no table is left to who answers it."""
    name = message.get("op")
    if not isinstance(name, str):
        raise ControlError("a message names its operation: `op`, a text")
    operation = table.get(name, Operation())
    if num_fds not in operation.fds:
        wanted = " or ".join(map(str, operation.fds))
        raise ControlError(f"{num_fds} descriptors came with {_quoted(name)}, which takes {wanted}")
    for key, kind in operation.required.items():
        if key not in message:
            raise ControlError(f"{_quoted(name)} needs `{key}`, {kind.name}")
        _check_field(name, key, kind, message[key])
    for key, kind in operation.optional.items():
        if message.get(key) is not None:
            _check_field(name, key, kind, message[key])


def check_depth(message: Message) -> None:
    """ControlError for a message whose objects and lists are nested deeper than anybody means."""
    level: list[Any] = [message]
    for _ in range(MAX_DEPTH):
        containers = (value.values() if isinstance(value, dict) else value for value in level)
        level = [inner for container in containers for inner in container if isinstance(inner, (dict, list))]
        if not level:
            return
    raise ControlError(f"a message is nested more than {MAX_DEPTH} deep")


def unknown(name: str) -> str:
    """What is said of an operation that nobody knows."""
    return f"unknown operation {_quoted(name)}"


def _check_field(name: str, key: str, kind: Kind, value: Any) -> None:
    if not kind.fits(value):
        raise ControlError(f"`{key}` of {_quoted(name)} is {kind.name}, and not {_quoted(value)}")


def _quoted(value: Any) -> str:
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 100 else f"{text[:80]}..."
