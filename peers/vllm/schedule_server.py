#!/usr/bin/env python3
"""An OpenAI-compatible server that emits tokens on a known schedule, to find the error of a client that measures.

usage: python3 peers/vllm/schedule_server.py [--port N] [--first-ms 50] [--gap-ms 10] [--truth truth.csv] [--json FILE]

Each request of POST /v1/completions with "stream": true gets `max_tokens` events: the first one --first-ms after the
request arrived, then one each --gap-ms. GET /health and /v1/models answer what a client asks before it measures.

On SIGINT or SIGTERM it writes truth.csv and prints how well it kept the schedule. Columns of truth.csv:
request (the header x-request-id, else its number), token, intended_ns, emitted_ns. Times are CLOCK_MONOTONIC, and
`emitted_ns` is read right before the write to the socket. Token 0 was intended --first-ms after the request's arrival.

One thread, which spins on the last core while a request is open. It reads from its sockets while nothing is due within
READ_MARGIN_NS, but looks at them each POLL_NS at the latest. A request's arrival is the kernel's stamp of its last
segment, so that the time until the server reads it is not blamed on the client.
"""

import argparse
import csv
import gc
import heapq
import itertools
import json
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from common import PeerError, Spread, machine, run_as_command, table, write_json

MODEL = "scheduled"
READ_MARGIN_NS = 40_000
POLL_NS = 500_000
IDLE_WAIT_S = 0.1  # a signal to stop is seen at the end of a wait
MAX_REQUEST_BYTES = 1 << 20
BACKLOG = 4096
# Of asm-generic/socket.h, for Python has no name for it: the option, and the kind of the message with the stamp.
SO_TIMESTAMPNS = 35
TIMESPEC = struct.Struct("@ll")


class Emitted(NamedTuple):
    """A row of truth.csv."""

    request: str
    token: int
    intended_ns: int
    emitted_ns: int


class Stream:
    """A request that is being answered."""

    def __init__(self, connection: "Connection", request: str, tokens: int, prompt: int) -> None:
        self.connection = connection
        self.request = request
        self.tokens = tokens
        self.prompt = prompt
        self.sent = 0


class Connection:
    """A client's socket, and what has been read of its next request."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.read = bytearray()


class Request(NamedTuple):
    """A complete HTTP request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def take_request(read: bytearray) -> Request | None:
    """The first request of what was read, taken out of it; None if it is not complete."""
    head, separator, _ = bytes(read).partition(b"\r\n\r\n")
    if not separator:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, path, _version = first.split(" ", 2)
    start = len(head) + len(separator)
    end = start + int(headers.get("content-length", "0"))
    if len(read) < end:
        return None
    body = bytes(read[start:end])
    del read[:end]
    return Request(method, path, headers, body)


def receive(peer: socket.socket) -> tuple[bytes, int]:
    """What came, and when the last of it reached this machine's kernel, in ns of CLOCK_MONOTONIC."""
    data, messages, _flags, _address = peer.recvmsg(65536, socket.CMSG_SPACE(TIMESPEC.size))
    now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
    for level, kind, content in messages:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = TIMESPEC.unpack(content[: TIMESPEC.size])
            return data, now_ns - (wall_ns - seconds * 1_000_000_000 - nanoseconds)
    return data, now_ns


def answer(status: str, body: dict[str, object]) -> bytes:
    """A whole HTTP response."""
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    return head.encode() + text


def event(data: bytes) -> bytes:
    """A server-sent event as a chunk of HTTP/1.1."""
    text = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(text), text)


def completion(choices: list[dict[str, object]], usage: dict[str, int] | None) -> bytes:
    """A chunk of a completion, with the fields that vLLM's server sends."""
    head = {"id": "cmpl-scheduled", "object": "text_completion", "created": 0, "model": MODEL}
    return event(json.dumps({**head, "choices": choices, "usage": usage}).encode())


def choice(text: str, finish_reason: str | None) -> dict[str, object]:
    """The one choice of a chunk."""
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = completion([choice(" t1", None)], None)
LAST_TOKEN = completion([choice(" t1", "length")], None)


class Server:
    """The schedule and its sockets."""

    def __init__(self, port: int, first_ns: int, gap_ns: int) -> None:
        self.first_ns = first_ns
        self.gap_ns = gap_ns
        self.truth: list[Emitted] = []
        self.stopping = False
        self.listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self.listener.setblocking(False)
        self.listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # its connections inherit it
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.due: list[tuple[int, int, Stream]] = []
        self.order = itertools.count()
        self.unnamed = itertools.count()

    @property
    def address(self) -> str:
        """What a client connects to."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """A signal handler: leaves the loop."""
        self.stopping = True

    def serve(self) -> None:
        """Serves until `stop` is called."""
        polled_ns = 0
        ready: Iterator[tuple[selectors.SelectorKey, int]] = iter(())
        while not self.stopping:
            now_ns = time.monotonic_ns()
            wait_ns = self.due[0][0] - now_ns if self.due else None
            if wait_ns is not None and wait_ns <= 0:
                self.emit()
                if now_ns - polled_ns < POLL_NS:
                    continue
            elif wait_ns is not None and wait_ns < READ_MARGIN_NS and now_ns - polled_ns < POLL_NS:
                continue
            key = next(ready, None)
            if key is None:
                polled_ns = time.monotonic_ns()
                ready = iter(self.selector.select(IDLE_WAIT_S if wait_ns is None else 0))
            else:
                self.handle(key[0])

    def handle(self, key: selectors.SelectorKey) -> None:
        """Takes a connection, or what one of them sent."""
        if key.data is None:
            peer, _ = self.listener.accept()
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(peer, selectors.EVENT_READ, Connection(peer))
            return
        connection: Connection = key.data
        try:
            data, arrived_ns = receive(connection.peer)
        except ConnectionError:
            data = b""
        connection.read += data
        if not data or len(connection.read) > MAX_REQUEST_BYTES:
            self.close(connection)
            return
        try:
            request = take_request(connection.read)
            if request is not None:
                self.respond(connection, request, arrived_ns)
        except ValueError:
            self.send(connection, answer("400 Bad Request", {"error": "not a request that this server knows"}))

    def close(self, connection: Connection) -> None:
        """Forgets a connection; what is still due on it is dropped when its time comes."""
        self.selector.unregister(connection.peer)
        connection.peer.close()

    def respond(self, connection: Connection, request: Request, arrived_ns: int) -> None:
        """Answers at once, or puts a stream on the schedule."""
        if request.method == "POST" and request.path == "/v1/completions":
            body = json.loads(request.body)
            name = request.headers.get("x-request-id") or f"unnamed-{next(self.unnamed)}"
            prompt = body.get("prompt")
            words = len(prompt.split()) if isinstance(prompt, str) else len(prompt or ())
            stream = Stream(connection, name, int(body.get("max_tokens") or 16), words)
            # vLLM's server, too, sends the head before there is a token.
            self.send(connection, STREAM_HEAD)
            heapq.heappush(self.due, (arrived_ns + self.first_ns, next(self.order), stream))
        elif request.path == "/health":
            self.send(connection, answer("200 OK", {}))
        elif request.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "root": MODEL}
            self.send(connection, answer("200 OK", {"object": "list", "data": [model]}))
        else:
            self.send(connection, answer("404 Not Found", {"error": "not found"}))

    def emit(self) -> None:
        """Sends the token that is due first, and puts the stream's next one on the schedule."""
        intended_ns, order, stream = self.due[0]
        is_last = stream.sent + 1 == stream.tokens
        emitted_ns = time.monotonic_ns()
        self.send(stream.connection, LAST_TOKEN if is_last else TOKEN)
        self.truth.append(Emitted(stream.request, stream.sent, intended_ns, emitted_ns))
        stream.sent += 1
        if not is_last:
            heapq.heapreplace(self.due, (intended_ns + self.gap_ns, order, stream))
            return
        heapq.heappop(self.due)
        total = stream.prompt + stream.tokens
        usage = {"prompt_tokens": stream.prompt, "completion_tokens": stream.tokens, "total_tokens": total}
        self.send(stream.connection, completion([], usage) + event(b"[DONE]") + b"0\r\n\r\n")

    def send(self, connection: Connection, data: bytes) -> None:
        """Sends without waiting. A client that left is no error; one that does not read what it asked for is one."""
        try:
            sent = connection.peer.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent < len(data):
            raise PeerError("a client does not read what it asked for: its socket is full")


def write_truth(path: Path, rows: list[Emitted]) -> None:
    """Writes truth.csv."""
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(Emitted._fields)
        writer.writerows(rows)


def read_truth(path: Path) -> dict[str, list[Emitted]]:
    """Of each request its tokens, in order."""
    requests: dict[str, list[Emitted]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            token, intended_ns, emitted_ns = (int(row[name]) for name in Emitted._fields[1:])
            requests.setdefault(row["request"], []).append(Emitted(row["request"], token, intended_ns, emitted_ns))
    return requests


def lateness_us(rows: list[Emitted]) -> Spread:
    """How late tokens were emitted, in microseconds."""
    return Spread.of((row.emitted_ns - row.intended_ns) / 1e3 for row in rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Emit tokens on a known schedule to OpenAI clients.")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one [default: 8000]")
    parser.add_argument("--first-ms", type=float, default=50, help="from arrival to the first token [default: 50]")
    parser.add_argument("--gap-ms", type=float, default=10, help="from token to token [default: 10]")
    parser.add_argument("--truth", type=Path, default=Path("truth.csv"), help="[default: truth.csv]")
    parser.add_argument("--json", type=Path, help="raw figures")
    args = parser.parse_args()

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    server = Server(args.port, round(args.first_ms * 1e6), round(args.gap_ms * 1e6))
    signal.signal(signal.SIGINT, server.stop)
    signal.signal(signal.SIGTERM, server.stop)
    gc.freeze()
    gc.disable()
    print(f"listening on {server.address}", flush=True)
    server.serve()
    write_truth(args.truth, server.truth)
    if not server.truth:
        raise PeerError("no request came")
    late = lateness_us(server.truth)
    row = [str(late.samples), *(f"{value:.0f}" for value in (late.p50, late.p99, late.max))]
    print(table(["tokens", "late p50 us", "p99", "max"], [row]))
    write_json(args.json, {"machine": machine(), "late_us": late.as_json()})


if __name__ == "__main__":
    run_as_command(main)
