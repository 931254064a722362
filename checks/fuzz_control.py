"""Fuzzes the control messages of a sidecar: `python checks/fuzz_control.py --seconds 60`.

Each input is what visitors and holders send to a sidecar, on several connections, some of it with descriptors. Inputs
that reach new lines of the sidecar's code are kept and changed further. It ends with 1 at the first input after which
the sidecar does not answer a sound visitor, its holder has received what a visitor has caused, a descriptor is left
open, or an answer has failed. The input is printed and repeated by `--repeat HEX`.
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
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1] / "python_sidecar"))

from bench_sidecar import control, engines, log, messages
from bench_sidecar.server import ForkServer

SEEDS = (
    b'{"op":"status"}\n',
    b'{"op":"hold","command":["bench"],"keep_s":1.5,"about":{"device":"cpu"}}\n',
    b'{"op":"leave","force":false}\n{"op":"status"}\n',
    b'{"op":"check","argv":["--model","m"]}\n',
    b'{"op":"load","argv":[],"env":{"A":"b"},"files":{},"cores":[0,1],"nice":-10,"cwd":"/"}\n',
    b'{"op":"stage","prompt_tokens":[1,2],"output_tokens":[3],"salt":"s"}\n',
    b'{"op":"begin","limits":{"max_num_seqs":4},"drive":"free","run":"a|b|0"}\n',
    b'{"op":"observe","batch":1,"rounds":2,"ways":["none"]}\n\0{"op":"kill","pid":1}\n',
    b'\x01{"op":"status"}\n\0\x01\x01\x01{"op":"status"',
    b'\x02{"op":"check","argv":["--model","m"]}\n{"op":"dance"}\n{"op":"kill","pid":1}\n{"op":"shutdown"}\n',
    b'\x02\x01{"op":"load","argv":[],"env":{"A":"b"},"files":{},"cores":[0,1],"nice":-10,"cwd":"/"}\n',
    b'\x02\x01{"op":"check","argv":[]}\n\0{"op":"status"}\n',
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
# Separates what different peers send.
NEXT_PEER = b"\0"
# In front of what a holder sends. Other peers are visitors.
HOLDER = b"\2"
# Each in front of a message sends so many descriptors with it.
WITH_FDS = b"\1"
FDS = 4
# More than the kernel takes with one message fails to be sent.
MOST_FDS = 200
# More than a door lets wait.
MOST_PEERS = 40
HOLD = b'{"op":"hold","command":["holder"]}\n'
# No input may take longer, or more memory.
LONGEST_S = 5.0
MOST_BYTES = 1 << 30

Line = tuple[str, int]


class Fuzzed:
    """A sidecar with a holder, and the lines of its code that were reached."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "control")
        self.server = ForkServer(self.path, ModuleType("library"), os.getpid(), with_vllm=False)
        self.door = self.server.door
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.holder = self._visit(HOLD)
        self.fds = _open_fds()
        self.reached: set[Line] = set()

    def try_out(self, data: bytes) -> set[Line]:
        """The lines that an input reaches. AssertionError if it does what no peer may do."""
        reached: set[Line] = set()
        began = time.monotonic()
        sys.settrace(lambda frame, event, _: _trace(frame, event, reached))
        try:
            peers = [self._send(sent) for sent in data.split(NEXT_PEER)[:MOST_PEERS]]
            _check_tables(data)
        finally:
            sys.settrace(None)
        for peer in peers:
            peer.close()
        self._take()
        assert time.monotonic() - began < LONGEST_S, "an input took too long"
        self.door.told_to_leave = False
        self._stays_as_it_was()
        return reached

    def _stays_as_it_was(self) -> None:
        """A sound visitor is answered, no descriptor is left, and the holder has received nothing."""
        asked = self._visit(b'{"op":"status"}\n')
        asked.settimeout(LONGEST_S)
        assert asked.recv(1 << 16).startswith(b'{"event":"status"'), "a sound visitor was not answered"
        asked.close()
        self._take()
        assert self.door.holder is not None, "the holder was sent away"
        assert not self.door.visitors, "a visitor stayed"
        with contextlib.suppress(BlockingIOError):
            raise AssertionError(f"the holder received {self.holder.recv(100, socket.MSG_DONTWAIT)!r}")
        assert (fds := _open_fds()) == self.fds, f"{fds} descriptors are open, {self.fds} were before"

    def _send(self, sent: bytes) -> socket.socket:
        """Sends this as a visitor, or as a holder."""
        if not sent.startswith(HOLDER):
            return self._visit(sent)
        self._change_holder()
        peer = self.holder
        self._send_parts(peer, sent.removeprefix(HOLDER), self._serve_holder)
        self._change_holder()
        return peer

    def _change_holder(self) -> None:
        """The holder closes its end, and the next one comes."""
        self.holder.close()
        self._serve_holder()
        assert self.door.holder is None, "a holder that has closed its end stayed"
        self.holder = self._visit(HOLD)
        assert self.door.holder is not None, "a holder was not let in"

    def _visit(self, sent: bytes) -> socket.socket:
        visitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        visitor.connect(self.path)
        visitor.setblocking(False)
        self._take()
        self._send_parts(visitor, sent, self._take)
        return visitor

    def _send_parts(self, peer: socket.socket, sent: bytes, take: Callable[[], None]) -> None:
        """Sends the halves of `sent`, the first with descriptors. The sidecar reads in between."""
        text = sent.lstrip(WITH_FDS)
        fds = [self.null] * (FDS * (len(sent) - len(text)))
        for part, with_it in ((text[: len(text) // 2], fds[:MOST_FDS]), (text[len(text) // 2 :], [])):
            with contextlib.suppress(OSError):  # the sidecar has sent the peer away, or reads no more
                socket.send_fds(peer, [part], with_it)
            take()

    def _serve_holder(self) -> None:
        """Lets the sidecar read what its holder has sent, and the end."""
        for _ in range(4):
            if self.door.holder is not None:
                self.server._serve_holder()

    def _take(self) -> None:
        """Lets the door look as often as there is something to see."""
        for _ in range(2):
            fds = {visitor.channel.connection.fileno() for visitor in self.door.visitors}
            self.door.take({self.door.listener.fileno(), *fds})


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def _start_nothing(*_: object) -> NoReturn:
    raise OSError("the fuzzer starts no engine process")


def _ignore(_text: str) -> None:
    """The log has a line for each holder that is sent away."""


def _fail(*_: object) -> NoReturn:
    raise AssertionError("an answer has failed")


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
    vars(engines)["begin"] = _start_nothing
    vars(log).update(say=_ignore, say_traceback=_fail)
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
