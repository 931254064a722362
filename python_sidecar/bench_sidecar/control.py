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


class ControlError(RuntimeError):
    """The harness sent something that is not a message."""


class Channel:
    """One connection to the harness. Sends and receives whole messages; not for two threads at once in a direction."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray()
        self._fds: list[int] = []

    def send(self, message: Message) -> None:
        """Sends one message. OSError if the harness is gone."""
        self.connection.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message and the descriptors that came with it; None when the harness has closed its end.

        Descriptors arrive with the first byte of their message, so those collected so far belong to this line.
        """
        while b"\n" not in self._buffer:
            data, ancillary, flags, _ = self.connection.recvmsg(1 << 16, socket.CMSG_SPACE(MAX_FDS * 4))
            if flags & socket.MSG_CTRUNC:
                raise ControlError(f"a message carries more than {MAX_FDS} descriptors")
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received = array.array("i")
                    received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                    self._fds.extend(received)
            if not data:
                return None
            self._buffer += data
            if len(self._buffer) > MAX_LINE_BYTES:
                raise ControlError(f"a message is longer than {MAX_LINE_BYTES} bytes")
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest)
        fds, self._fds = self._fds, []
        try:
            message = json.loads(line)
        except ValueError as err:
            raise ControlError(f"not JSON: {err}") from err
        if not isinstance(message, dict):
            raise ControlError("a message is a JSON object")
        return message, fds


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
    """Accepts one connection; refuses a peer of another user."""
    while True:
        connection, _ = server.accept()
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, _gid = struct.unpack("3i", credentials)
        if uid == os.getuid():
            return Channel(connection)
        connection.close()
