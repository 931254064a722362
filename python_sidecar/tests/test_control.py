"""The control channel alone: framing, descriptors, ends."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_sidecar import control
from bench_sidecar.control import Channel, ControlError


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
        channel._read()


def test_socket_in_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ControlError, match="0700"):
        control.listen(str(tmp_path / "s"))
