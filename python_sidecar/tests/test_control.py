"""The control channel alone: framing, descriptors, ends."""

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_sidecar import control, messages
from bench_sidecar.control import Channel, ControlError, Message


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


def make_fd(text: bytes) -> int:
    fd = os.memfd_create("test")
    os.pwrite(fd, text, 0)
    return fd


def texts(fds: list[int]) -> list[bytes]:
    found = [os.pread(fd, 16, 0) for fd in fds]
    for fd in fds:
        os.close(fd)
    return found


def test_messages_in_one_piece_and_in_many(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.sendall(b'{"a":1}\n{"b":2}\n{"c"')
    assert channel.receive() == ({"a": 1}, [])
    assert channel.receive() == ({"b": 2}, [])
    theirs.sendall(b":3}\n")
    assert channel.receive() == ({"c": 3}, [])


def test_descriptors_stay_with_their_message(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    fds = [make_fd(b"one"), make_fd(b"two"), make_fd(b"three")]
    theirs.sendall(b'{"plain":1}\n')  # the kernel hands this out together with the next
    socket.send_fds(theirs, [b'{"has":2'], fds[:2])
    theirs.sendall(b'}\n{"plain":3}\n')
    socket.send_fds(theirs, [b'{"has":1}\n'], fds[2:])
    texts(fds)
    received = [channel.receive() for _ in range(4)]
    assert [texts(each[1]) for each in received if each] == [[], [b"one", b"two"], [], [b"three"]]


def test_received_descriptors_are_not_inherited(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    fd = make_fd(b"")
    socket.send_fds(theirs, [b"{}\n"], [fd])
    received = channel.receive()
    assert received is not None
    assert not os.get_inheritable(received[1][0])
    texts([fd, *received[1]])


def test_the_end_is_none_also_within_a_message(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.sendall(b'{"a":')
    theirs.close()
    assert channel.receive() is None


@pytest.mark.parametrize(("line", "says"), [(b"x\n", "not JSON"), (b"[1]\n", "JSON object"), (b"\xff\n", "JSON")])
def test_what_is_no_message_is_refused(pair: tuple[Channel, socket.socket], line: bytes, says: str) -> None:
    channel, theirs = pair
    theirs.sendall(line)
    with pytest.raises(ControlError, match=says):
        channel.receive()


def test_endless_message_and_too_many_descriptors_are_refused(
    pair: tuple[Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, theirs = pair
    monkeypatch.setattr(control, "MAX_LINE_BYTES", 100)
    theirs.sendall(b"x" * 101)
    with pytest.raises(ControlError, match="longer than 100 bytes"):
        channel.receive()
    fd = make_fd(b"")
    socket.send_fds(theirs, [b"{}\n"], [fd] * (control.MAX_FDS + 1))
    os.close(fd)
    with pytest.raises(ControlError, match="more than 8 descriptors"):
        channel._read(0)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_no_descriptor_of_a_refused_or_unfinished_message_stays_open(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    before = open_fds()
    with open("/dev/null", "rb") as null:
        socket.send_fds(theirs, [b"{nonsense\n"], [null.fileno()] * 3)
        with pytest.raises(ControlError):
            channel.receive()
        socket.send_fds(theirs, [b'{"sound"'], [null.fileno()] * 3)
        assert channel.read_ready() == ([], True)
        theirs.sendall(b":1}\nnonsense\n")
        with pytest.raises(ControlError):
            channel.read_ready()
        socket.send_fds(theirs, [b'{"half":'], [null.fileno()] * 3)
        assert channel.read_ready() == ([], True)
        for _ in range(2):  # of one message, in two parts
            socket.send_fds(theirs, [b"1"], [null.fileno()] * 5)
        with pytest.raises(ControlError, match="more than 8 descriptors"):
            list(map(Channel.read_ready, [channel] * 2))
    channel.close()
    assert open_fds() == before - 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"[" * 200_000 + b"\n", "not JSON"),
        (b'{"a":' * 40 + b"1" + b"}" * 40 + b"\n", "nested more than 32 deep"),
        (b'{"a":[' + b"[]," * 1_100_000 + b"[]]}\n", "objects and lists"),
        (b'{"a":[' + b'"ab",' * 3_400_000 + b'""]}\n', "longer than 16777216 bytes"),
        (b'{"a":' + b"1" * 5_000 + b"}\n", "not JSON"),
    ],
)
def test_message_that_would_take_the_stack_or_the_memory_is_refused(
    pair: tuple[Channel, socket.socket], line: bytes, says: str
) -> None:
    channel, theirs = pair

    def send() -> None:
        with contextlib.suppress(OSError):  # the reader has closed its end
            theirs.sendall(line)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(ControlError, match=says):
        channel.receive()
    channel.close()
    sender.join()


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({}, "names its operation"),
        ({"op": ["hold"]}, "names its operation"),
        ({"op": "check"}, "needs `argv`"),
        ({"op": "check", "argv": "--model"}, "`argv` of 'check' is a list of texts"),
        ({"op": "check", "argv": [1]}, "list of texts"),
        ({"op": "kill", "pid": "1"}, "`pid` of 'kill' is a count"),
        ({"op": "kill", "pid": True}, "count"),
        ({"op": "kill", "pid": -1}, "count"),
        ({"op": "load", "env": {"A": 1}}, "0 descriptors came with 'load', which takes 4 or 5"),
    ],
)
def test_message_against_the_protocol_is_refused_by_name(message: Message, says: str) -> None:
    with pytest.raises(ControlError, match=re.escape(says)):
        messages.check(message, 0, messages.HOLDER)


def test_times_that_are_none_are_refused() -> None:
    for keep_s in ("600", [1], -1, float("inf"), float("nan"), 1e300, True):
        with pytest.raises(ControlError, match="seconds"):
            messages.check({"op": "hold", "keep_s": keep_s}, 0, messages.VISITOR)
    messages.check({"op": "hold", "keep_s": 1.5, "command": [], "about": {}}, 0, messages.VISITOR)
    messages.check({"op": "hold", "keep_s": None}, 0, messages.VISITOR)


def test_answer_to_one_who_does_not_read_is_kept_and_waits_for_nobody(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    answer = {"event": "status", "about": "x" * (1 << 20)}
    began = time.monotonic()
    channel.queue(answer)
    assert channel.has_more_to_send()
    assert time.monotonic() - began < 1
    reader = Channel(theirs)

    def flush() -> None:
        while channel.has_more_to_send():
            channel.flush()

    flushing = threading.Thread(target=flush)
    flushing.start()
    assert reader.receive() == (answer, [])
    flushing.join()


def test_socket_in_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ControlError, match="0700"):
        control.listen(str(tmp_path / "s"))
