"""The control plane: one JSON object a line over a Unix socket, with memory passed as file descriptors."""

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

Message = dict[str, Any]

MAX_LINE_BYTES = 64 << 20
MAX_FDS = 8
# How long the harness, which starts the sidecar in order to connect to it, may take to do so.
ACCEPT_LIMIT_S = 60
# How long a message that has begun may take to come or go: nobody is waited for longer.
MESSAGE_LIMIT_S = 10


class ControlError(RuntimeError):
    """The harness sent something that is not a message."""


class Channel:
    """One connection to the harness. Sends and receives whole messages; not for two threads at once in a direction."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray()
        self._fds: list[tuple[int, list[int]]] = []  # where in the buffer their message begins, and the descriptors

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Sends one message; `fds` travel with its first byte. OSError if the other end is gone."""
        line = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        sent = socket.send_fds(self.connection, [line], fds) if fds else 0
        self.connection.sendall(line[sent:])

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message and the descriptors that came with it; None when the harness has closed its end."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise ControlError(f"a message is longer than {MAX_LINE_BYTES} bytes")
            searched = len(self._buffer)
            if not self._read():
                return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        fds = [fd for start, group in self._fds if start <= end for fd in group]
        self._fds = [(start - end - 1, group) for start, group in self._fds if start > end]
        try:
            message = json.loads(line)
        except ValueError as err:
            raise ControlError(f"not JSON: {err}") from err
        if not isinstance(message, dict):
            raise ControlError("a message is a JSON object")
        return message, fds

    def _read(self) -> bool:
        """Reads what is there; False at the end.

        Descriptors travel with the first bytes of their message. The kernel may put earlier messages in front of
        those, but nothing behind them: so the descriptors belong to the last message that has begun.
        """
        space = socket.CMSG_SPACE(MAX_FDS * 4)
        data, ancillary, flags, _ = self.connection.recvmsg(1 << 16, space, socket.MSG_CMSG_CLOEXEC)
        self._buffer += data
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                begins = self._buffer.rfind(b"\n", 0, len(self._buffer) - 1) + 1
                self._fds.append((begins, received.tolist()))
        if flags & socket.MSG_CTRUNC:
            raise ControlError(f"a message carries more than {MAX_FDS} descriptors")
        return bool(data)


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
    """Accepts one connection; None if the peer is of another user, or has gone again. TimeoutError as the listener's
    own timeout says.
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
