"""The control plane: one JSON object a line over a Unix socket, with memory passed as file descriptors."""

import array
import contextlib
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from .messages import ControlError, Message, check_depth

__all__ = ["Channel", "ControlError", "Message", "Peer", "accept", "close_all", "listen"]

# As the harness bounds it. A list of short texts takes 15 times its size when it is read.
MAX_LINE_BYTES = 16 << 20
# An empty object or list takes 30 times its size when it is read.
MAX_CONTAINERS = 1 << 20
# The longest message of a visitor is `hold`, with a command line and the digests of variables.
MAX_VISITOR_BYTES = 4 << 20
MAX_FDS = 8
# How long the harness, which starts the sidecar in order to connect to it, may take to do so.
ACCEPT_LIMIT_S = 60
# How long a message that has begun may take to come or go.
MESSAGE_LIMIT_S = 10
# Connections that are let in at a look.
MAX_ACCEPTED = 16


class Channel:
    """One connection to the harness. Sends and receives whole messages; not for two threads at once in a direction.

    `send` and `receive` wait; `queue`, `flush` and `read_ready` never do.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.max_line_bytes: int | None = None  # None: MAX_LINE_BYTES
        self._buffer = bytearray()
        self._searched = 0
        self._fds: list[tuple[int, list[int]]] = []  # where in the buffer their message begins, and the descriptors
        self._outgoing = bytearray()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Sends one message; `fds` travel with its first byte. OSError if the other end is gone."""
        line = memoryview(_encode(message))
        sent = socket.send_fds(self.connection, [line], fds) if fds else 0
        self.connection.sendall(line[sent:])

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message and the descriptors that came with it; None when the harness has closed its end.
        ControlError if it is none; then nothing more is to be received.
        """
        while (received := self._take()) is None:
            if not self._read(0):
                return None
        return received

    def read_ready(self) -> tuple[list[tuple[Message, list[int]]], bool]:
        """All messages that have come completely, and whether the peer's end is open. ControlError if one of them is
        invalid: then all of them are dropped. OSError as `recvmsg` gives it.
        """
        received: list[tuple[Message, list[int]]] = []
        is_open = self._read(socket.MSG_DONTWAIT)
        try:
            while (message := self._take()) is not None:
                received.append(message)
        except ControlError:
            close_all([fd for _, fds in received for fd in fds])
            raise
        return received, is_open

    def queue(self, message: Message) -> None:
        """Sends what can be sent at once, and keeps the rest for `flush`. ControlError if too much has been kept."""
        if len(self._outgoing) > MAX_LINE_BYTES:
            raise ControlError("the peer does not read its replies")
        self._outgoing += _encode(message)
        self.flush()

    def flush(self) -> None:
        """Sends more of what is kept. OSError if the other end is gone."""
        while self._outgoing:
            try:
                sent = self.connection.send(self._outgoing, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            del self._outgoing[:sent]

    def has_more_to_send(self) -> bool:
        """Whether something is kept that the other end has no room for."""
        return bool(self._outgoing)

    def close(self) -> None:
        """Closes the connection, and every descriptor that came with a message that nobody has taken."""
        self.connection.close()
        for _, group in self._fds:
            close_all(group)
        self._fds.clear()

    def _take(self) -> tuple[Message, list[int]] | None:
        """The first message of the buffer; None while it has none that is complete."""
        limit = self.max_line_bytes or MAX_LINE_BYTES
        end = self._buffer.find(b"\n", self._searched)
        if end > limit or (end < 0 and len(self._buffer) > limit):
            raise ControlError(f"a message is longer than {limit} bytes")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        self._searched = 0
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        fds = [fd for start, group in self._fds if start <= end for fd in group]
        self._fds = [(start - end - 1, group) for start, group in self._fds if start > end]
        try:
            return _decode(line), fds
        except ControlError:
            close_all(fds)
            raise

    def _read(self, flags: int) -> bool:
        """Reads what is there; False at the end, and where nothing is there yet also True.

        Descriptors travel with the first bytes of their message. The kernel may put earlier messages in front of
        those, but nothing behind them: so the descriptors belong to the last message that has begun.
        """
        space = socket.CMSG_SPACE(MAX_FDS * 4)
        try:
            data, ancillary, came, _ = self.connection.recvmsg(1 << 16, space, socket.MSG_CMSG_CLOEXEC | flags)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        self._buffer += data
        begins = self._buffer.rfind(b"\n", 0, len(self._buffer) - 1) + 1
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._fds.append((begins, received.tolist()))
        of_last = sum(len(group) for start, group in self._fds if start == begins)
        if came & socket.MSG_CTRUNC or of_last > MAX_FDS:
            raise ControlError(f"a message carries more than {MAX_FDS} descriptors, or this process has none left")
        return bool(data)


def close_all(fds: Sequence[int]) -> None:
    """Closes received descriptors."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _decode(line: bytes) -> Message:
    if line.count(b"[") + line.count(b"{") > MAX_CONTAINERS:
        raise ControlError(f"a message has more than {MAX_CONTAINERS} objects and lists")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise ControlError(f"not JSON: {err}") from err
    if not isinstance(message, dict):
        raise ControlError("a message is a JSON object")
    check_depth(message)
    return message


class Peer(NamedTuple):
    """Somebody of this user who has connected."""

    channel: Channel
    pid: int


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, whose folder belongs to this user alone.

    It is bound through a descriptor of the folder: a socket's own name is short, and the path of a folder may not be.
    """
    folder_path, name = os.path.split(path)
    folder = os.open(folder_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(folder)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise ControlError(f"{folder_path}: the socket's folder must belong to this user alone (mode 0700)")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"/proc/self/fd/{folder}/{name}")
    finally:
        os.close(folder)
    listener.listen()
    return listener


def accept(listener: socket.socket) -> Peer | None:
    """Accepts one connection; None if the peer is of another user, or has gone again. OSError as the listener gives
    it: BlockingIOError where nobody waits.
    """
    connection, _ = listener.accept()
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _gid = struct.unpack("3i", credentials)
    except OSError:
        connection.close()
        return None
    if uid != os.getuid():
        connection.close()
        return None
    return Peer(Channel(connection), pid)
