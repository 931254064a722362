"""Fuzzes the control messages of a sidecar: `python checks/fuzz_control.py --seconds 60`.

Each input is what visitors say at a door, on several connections. Inputs that reach new lines of the sidecar's code are
kept and changed further. It ends with 1 at the first input after which the door does not answer a sound visitor, or its
holder has noticed anything; the input is printed and repeated by `--repeat HEX`.
"""

import argparse
import contextlib
import os
import random
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "python_sidecar"))

from bench_sidecar import control, messages
from bench_sidecar.door import Door

SEEDS = (
    b'{"op":"status"}\n',
    b'{"op":"hold","command":["bench"],"keep_s":1.5,"about":{"device":"cpu"}}\n',
    b'{"op":"leave","force":false}\n{"op":"status"}\n',
    b'{"op":"check","argv":["--model","m"]}\n',
    b'{"op":"load","argv":[],"env":{"A":"b"},"files":{},"cores":[0,1],"nice":-10,"cwd":"/"}\n',
    b'{"op":"stage","prompt_tokens":[1,2],"output_tokens":[3],"salt":"s"}\n',
    b'{"op":"begin","limits":{"max_num_seqs":4},"drive":"free","run":"a|b|0"}\n',
    b'{"op":"observe","batch":1,"rounds":2,"ways":["none"]}\n\0{"op":"kill","pid":1}\n',
)
TOKENS = (
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"18446744073709551616",
    b'"\\ud800"',
    b"[[[[",
    b'{"a":',
    b"\n",
    b"\0",
    b"\xff",
)
# Separates what different visitors say.
NEXT_VISITOR = b"\0"
# More than a door lets wait.
MOST_VISITORS = 40
# No input may take longer, or more memory.
LONGEST_S = 5.0
MOST_BYTES = 1 << 30

Line = tuple[str, int]


class Fuzzed:
    """A door with a holder, and the lines of the sidecar that were reached."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "control")
        self.door = Door(control.listen(self.path), dict, os.getpid())
        self.holder = self._visit(b'{"op":"hold","command":["holder"]}\n')
        assert self.door.holder is not None
        self.reached: set[Line] = set()

    def try_out(self, data: bytes) -> set[Line]:
        """The lines that an input reaches. AssertionError if it does what no visitor may do."""
        reached: set[Line] = set()
        began = time.monotonic()
        sys.settrace(lambda frame, event, _: _trace(frame, event, reached))
        try:
            visitors = [self._visit(said) for said in data.split(NEXT_VISITOR)[:MOST_VISITORS]]
            _check_tables(data)
        finally:
            sys.settrace(None)
        for visitor in visitors:
            visitor.close()
        self._take()
        assert time.monotonic() - began < LONGEST_S, "an input took too long"
        self.door.told_to_leave = False
        self._stays_as_it_was()
        return reached

    def _stays_as_it_was(self) -> None:
        """A sound visitor is answered, no descriptor is left, and the holder has heard nothing."""
        asked = self._visit(b'{"op":"status"}\n')
        asked.settimeout(LONGEST_S)
        assert asked.recv(1 << 16).startswith(b'{"event":"status"'), "a sound visitor was not answered"
        asked.close()
        self._take()
        assert self.door.holder is not None, "the holder went"
        assert not self.door.visitors, "a visitor stayed"
        with contextlib.suppress(BlockingIOError):
            raise AssertionError(f"the holder heard {self.holder.recv(100, socket.MSG_DONTWAIT)!r}")

    def _visit(self, said: bytes) -> socket.socket:
        visitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        visitor.connect(self.path)
        visitor.setblocking(False)
        for part in (said[: len(said) // 2], said[len(said) // 2 :]):
            with contextlib.suppress(OSError):  # the door has sent it away, or reads no more
                visitor.send(part)
            self._take()
        return visitor

    def _take(self) -> None:
        """Lets the door look as often as there is something to see."""
        for _ in range(2):
            fds = {visitor.channel.connection.fileno() for visitor in self.door.visitors}
            self.door.take({self.door.listener.fileno(), *fds})


def _check_tables(data: bytes) -> None:
    """What the holder of a sidecar and of an engine says is checked against tables of its own."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(data[: 1 << 15])
        theirs.shutdown(socket.SHUT_WR)
        channel = control.Channel(ours)
        with contextlib.suppress(control.ControlError):
            while (received := channel.receive()) is not None:
                for table in (messages.HOLDER, messages.ENGINE):
                    with contextlib.suppress(control.ControlError):
                        messages.check(received[0], len(received[1]), table)


def _trace(frame: FrameType, event: str, reached: set[Line]) -> Any:
    if "bench_sidecar" not in frame.f_code.co_filename:
        return None
    if event == "line":
        reached.add((frame.f_code.co_filename, frame.f_lineno))
    return lambda frame, event, _: _trace(frame, event, reached)


def change(data: bytes, corpus: list[bytes], chance: random.Random) -> bytes:
    """An input that differs in a few places."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(changed))
        end = min(len(changed), at + chance.randint(0, 8))
        match chance.randrange(5):
            case 0:
                changed[at:end] = bytes(chance.randrange(256) for _ in range(chance.randint(0, 4)))
            case 1:
                changed[at:end] = chance.choice(TOKENS)
            case 2:
                other = chance.choice(corpus)
                changed[at:end] = other[chance.randint(0, len(other)) :]
            case 3:
                changed[at:at] = changed[at:end] * chance.choice((2, 40, 2_000))
            case _:
                del changed[at:end]
    return bytes(changed[: 1 << 16])


def main() -> int:
    """Fuzzes for the time that is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--repeat", metavar="HEX", help="try this input alone")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    corpus = list(SEEDS) if options.repeat is None else [bytes.fromhex(options.repeat)]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))  # more is a MemoryError
    with tempfile.TemporaryDirectory(prefix="fuzz-control-") as folder:
        fuzzed = Fuzzed(folder)
        tried, deadline = 0, time.monotonic() + options.seconds
        pending = list(corpus)
        while pending or (options.repeat is None and time.monotonic() < deadline):
            data = pending.pop() if pending else change(chance.choice(corpus), corpus, chance)
            try:
                reached = fuzzed.try_out(data)
            except BaseException:
                print(f"seed {options.seed}: --repeat {data.hex()}", file=sys.stderr)
                raise
            tried += 1
            if not reached <= fuzzed.reached:
                fuzzed.reached |= reached
                corpus.append(data)
    print(f"control messages: {tried} inputs, {len(fuzzed.reached)} lines reached, {len(corpus)} inputs kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
