"""The control plane: one JSON object a line over a Unix socket, with memory passed as file descriptors."""

import array
import json
import os
import socket
import struct
from typing import Any

Message = dict[str, Any]

MAX_LINE_BYTES = 64 << 20
MAX_FDS = 8
# How long the harness, which starts the sidecar in order to connect to it, may take to do so.
ACCEPT_LIMIT_S = 60


class ControlError(RuntimeError):
    """The harness sent something that is not a message."""


class Channel:
    """One connection to the harness. Sends and receives whole messages; not for two threads at once in a direction."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray()
        self._fds: list[tuple[int, list[int]]] = []  # where in the buffer their message begins, and the descriptors

    def send(self, message: Message) -> None:
        """Sends one message. OSError if the harness is gone."""
        self.connection.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")

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


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, whose folder belongs to this user alone."""
    folder = os.path.dirname(path)
    status = os.stat(folder)
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ControlError(f"{folder}: the socket's folder must belong to this user alone (mode 0700)")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(1)
    return server


def accept(server: socket.socket) -> Channel:
    """Accepts one connection; refuses a peer of another user. ControlError if nobody comes."""
    server.settimeout(ACCEPT_LIMIT_S)
    while True:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            raise ControlError(f"no harness has connected within {ACCEPT_LIMIT_S} s") from None
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, _gid = struct.unpack("3i", credentials)
        if uid == os.getuid():
            return Channel(connection)
        connection.close()
