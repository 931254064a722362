"""Sidecars that stay when their holder has gone: who gets in, what becomes of the engine, and when they leave."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bench_sidecar import control, engines, protocol
from bench_sidecar.control import Channel, Message
from bench_sidecar.door import Door
from bench_sidecar.server import ForkServer
from harness import Run, are_gone, ask, connect, expect, hold, make_ring

SCRIPT: Message = {
    "name": "s",
    "requests": [
        {
            "first_ns": 1000,
            "gap_ns": 1000,
            "gaps_ns": None,
            "events": 5,
            "counts": None,
            "cached": 0,
            "finish": "length",
        }
    ],
    "faults": [],
    "growth_ppm": 0,
    "noise": None,
}


class Warm:
    """A sidecar for scripted engines, which is started by the first holder."""

    def __init__(self, folder: Path, keep_s: float | None, environment: dict[str, str] | None = None) -> None:
        folder.chmod(0o700)
        self.folder = folder
        self.socket = folder / "control"
        arguments = ["--socket", str(self.socket), "--ring-library", os.environ["BENCH_RING_LIBRARY"], "--scripted"]
        with (folder.parent / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench_sidecar", *arguments, "--keep"],
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        self.holder = hold(self.socket, keep_s=keep_s)
        expect(self.holder, "event", "hello")

    def say(self, message: Message) -> Message:
        """What a visitor is answered."""
        channel = Channel(connect(self.socket))
        channel.send(message)
        received = channel.receive()
        assert received is not None
        channel.connection.close()
        return received[0]

    def status(self) -> Message:
        """How it stands."""
        return self.say({"op": "status"})

    def has_left(self) -> bool:
        """Whether it ends, and leaves nothing in its place."""
        return self.process.wait(timeout=30) == 0 and not self.folder.exists()


class Engine:
    """A scripted engine as a holder has it."""

    def __init__(self, library: ModuleType, server: Channel, truth: Path, script: Message = SCRIPT) -> None:
        self.library = library
        truth.touch()
        ours, theirs = socket.socketpair()
        event, request = make_ring(protocol.EVENT_STREAM), make_ring(protocol.REQUEST_STREAM)
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.events: Any = library.attach(event, -1, protocol.EVENT_STREAM, 0)
        self.requests: Any = library.attach(request, wake, protocol.REQUEST_STREAM, 1)
        message = {"op": "load", "script": script, "truth": str(truth), "cores": None, "nice": None}
        self.reply = ask(server, message, [theirs.fileno(), event, request, wake])
        self.pid: int = self.reply["pid"]
        theirs.close()
        self.channel = Channel(ours)
        self.ready = expect(self.channel, "event", "ready")

    def run(self) -> Run:
        """One request; all that comes back of it."""
        ask(self.channel, {"op": "stage", "prompt_tokens": [3], "output_tokens": [5]})
        ask(self.channel, {"op": "begin", "run": "r", "limits": {}, "drive": "free"})
        self.push(protocol.KIND_SUBMIT)
        run = Run()
        while not run.finishes:
            run.take(self.library.pop(self.events))
        self.push(protocol.KIND_END)
        expect(self.channel, "event", "ended")
        while not run.is_over:
            run.take(self.library.pop(self.events))
        return run

    def push(self, kind: int) -> None:
        assert self.library.push(self.requests, protocol.SUBMIT.pack(kind, 0, 0, 0, 0, 0, *[0] * 11))

    def give_back(self) -> None:
        ask(self.channel, {"op": "give_back"})
        self.channel.connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cpu-test"
    folder.mkdir()
    return folder


@pytest.fixture
def warm(folder: Path) -> Iterator[Warm]:
    warm = Warm(folder, keep_s=600)
    yield warm
    if warm.process.poll() is None:
        warm.process.kill()
        warm.process.wait()


def comes(what: Callable[[], bool], limit_s: float = 30) -> bool:
    deadline = time.monotonic() + limit_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_the_next_holder_gets_the_same_engine_with_rings_of_its_own(
    warm: Warm, library: ModuleType, tmp_path: Path
) -> None:
    first = Engine(library, warm.holder, tmp_path / "first.csv")
    assert first.ready["load_s"] > 0
    assert "reused" not in first.ready["facts"]["other"]
    assert first.run().tokens[0] == 5
    first.give_back()
    warm.holder.connection.close()
    assert comes(lambda: warm.status()["holder"] is None)

    second_holder = hold(warm.socket)
    assert expect(second_holder, "event", "hello")["pid"] == warm.process.pid
    second = Engine(library, second_holder, tmp_path / "second.csv")
    assert second.pid == first.pid
    assert second.ready["load_s"] == 0
    reused = second.ready["facts"]["other"]["reused"]
    assert reused["commands_before"] == 1
    assert reused["age_s"] > 0
    assert not library.pop(second.events), "nothing is left of the run before"
    run = second.run()
    assert (run.tokens[0], list(run.finishes), len(run.steps)) == (5, [0], 5)
    assert not library.pop(first.events), "its own ring, not the first one's"
    assert len((tmp_path / "first.csv").read_text().splitlines()) == 5
    assert len((tmp_path / "second.csv").read_text().splitlines()) == 5


def test_an_engine_that_was_loaded_with_something_else_makes_room(
    warm: Warm, library: ModuleType, tmp_path: Path
) -> None:
    first = Engine(library, warm.holder, tmp_path / "truth.csv")
    first.give_back()
    other = {**SCRIPT, "name": "other"}
    second = Engine(library, warm.holder, tmp_path / "truth.csv", other)
    assert second.pid != first.pid
    assert second.reply["replaced"]["script"] == SCRIPT
    assert are_gone(first.pid)
    assert second.run().tokens[0] == 5


def test_a_second_one_is_told_who_holds_it(warm: Warm) -> None:
    busy = warm.say({"op": "hold", "command": ["second"]})
    assert (busy["event"], busy["pid"], busy["command"]) == ("busy", os.getpid(), ["a test"])
    assert busy["held_s"] >= 0
    assert warm.say({"op": "leave"})["event"] == "busy"
    assert warm.status()["holder"]["pid"] == os.getpid()


def test_an_engine_that_was_not_given_back_is_thrown_away(warm: Warm, library: ModuleType, tmp_path: Path) -> None:
    engine = Engine(library, warm.holder, tmp_path / "truth.csv")
    ask(engine.channel, {"op": "stage", "prompt_tokens": [3], "output_tokens": [5]})
    ask(engine.channel, {"op": "begin", "run": "r", "limits": {}, "drive": "free"})
    os.kill(engine.pid, signal.SIGSTOP)  # one that does not even notice that its holder has gone
    warm.holder.connection.close()
    assert are_gone(engine.pid)
    assert comes(lambda: warm.status()["engine"] is None)
    after = hold(warm.socket)
    expect(after, "event", "hello")
    assert Engine(library, after, tmp_path / "truth.csv").run().tokens[0] == 5


def test_it_leaves_by_itself_when_nobody_comes(folder: Path, library: ModuleType, tmp_path: Path) -> None:
    warm = Warm(folder, keep_s=0.3)
    engine = Engine(library, warm.holder, tmp_path / "truth.csv")
    engine.give_back()
    time.sleep(0.5)  # longer than the limit, but held: it must not leave
    assert warm.status()["idle_s"] is None
    warm.holder.connection.close()
    assert warm.has_left()
    assert are_gone(engine.pid)


def test_it_leaves_when_it_is_told_to(warm: Warm, library: ModuleType, tmp_path: Path) -> None:
    engine = Engine(library, warm.holder, tmp_path / "truth.csv")
    assert warm.say({"op": "leave", "force": True})["event"] == "leaving"
    assert warm.has_left()
    assert are_gone(engine.pid)


def test_without_a_time_it_ends_with_its_holder(folder: Path) -> None:
    warm = Warm(folder, keep_s=None)
    warm.holder.connection.close()
    assert warm.has_left()


def test_a_free_engine_that_dies_is_not_given_to_anybody(warm: Warm, library: ModuleType, tmp_path: Path) -> None:
    first = Engine(library, warm.holder, tmp_path / "truth.csv")
    first.give_back()
    os.kill(first.pid, signal.SIGKILL)
    assert comes(lambda: warm.status()["engine"] is None)
    second = Engine(library, warm.holder, tmp_path / "truth.csv")
    assert second.ready["load_s"] > 0


def test_visitors_that_say_nothing_or_nonsense_are_sent_away(warm: Warm, library: ModuleType, tmp_path: Path) -> None:
    connect(warm.socket).close()
    nonsense = connect(warm.socket)
    nonsense.sendall(b"{nonsense\n")
    assert nonsense.recv(10) == b""
    assert "'dance'" in warm.say({"op": "dance"})["error"]["message"]
    assert Engine(library, warm.holder, tmp_path / "truth.csv").run().tokens[0] == 5


def fds_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def rings_of(pid: int) -> int:
    """How many descriptors of rings a process has."""
    links = (os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    return sum(link.startswith("/memfd:ring") for link in links)


def test_forked_engine_has_the_descriptors_of_its_holder_alone(warm: Warm, library: ModuleType, tmp_path: Path) -> None:
    first = Engine(library, warm.holder, tmp_path / "truth.csv")
    assert rings_of(first.pid) == 2
    before = fds_of(first.pid)
    first.give_back()
    assert comes(lambda: rings_of(first.pid) == 0)
    assert fds_of(first.pid) == before - 4, "a channel, two rings and a wake-up"
    second = Engine(library, warm.holder, tmp_path / "truth.csv")
    assert second.pid == first.pid
    assert fds_of(first.pid) == before


def test_check_without_vllm_is_answered_and_the_sidecar_stays(warm: Warm) -> None:
    assert "no vLLM" in ask(warm.holder, {"op": "check", "argv": []})["error"]["message"]
    assert warm.status()["event"] == "status"


def test_failure_in_an_answer_is_told_and_the_sidecar_stays(
    monkeypatch: pytest.MonkeyPatch, folder: Path, library: ModuleType
) -> None:
    folder.chmod(0o700)
    server = ForkServer(str(folder / "control"), library, os.getpid(), with_vllm=False)
    holder = hold(folder / "control")
    server.door.wait_for_holder()
    monkeypatch.setattr(server, "_kill", lambda _pid: 1 // 0)
    holder.send({"op": "kill", "pid": 1})
    server._serve_holder()
    assert "ZeroDivisionError" in expect(holder, "to", "kill")["error"]["message"]
    assert server.door.holder is not None
    server.door.close()
    server.door.listener.close()
    os.close(server.lock)


def test_full_log_ends_no_sidecar_that_sends_a_holder_away(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    warm = Warm(folder, keep_s=600)
    warm.holder.connection.sendall(b'{"op":"check"}\n')
    assert expect(warm.holder, "event", "reply")["error"]
    following = hold(warm.socket)
    assert expect(following, "event", "hello")["pid"] == warm.process.pid
    following.send({"op": "shutdown"})
    assert warm.has_left()


def test_visitor_that_sends_a_byte_now_and_then_has_no_more_time(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.chmod(0o700)
    monkeypatch.setattr(control, "MESSAGE_LIMIT_S", 0.05)
    door = Door(control.listen(str(folder / "control")), dict, os.getpid())
    visitor = connect(folder / "control")
    door.take({door.listener.fileno()})
    deadline = time.monotonic() + 5
    while door.visitors and time.monotonic() < deadline:
        visitor.send(b" ")
        door.take({each.channel.connection.fileno() for each in door.visitors})
    assert not door.visitors
    visitor.close()
    door.listener.close()


BAD: list[bytes] = [
    b"[" * 200_000 + b"\n",
    b'{"op":"status"}\n{"op":"status"}\n',
    b'{"op":"hold","keep_s":"600"}\n',
    b'{"op":"hold","command":7}\n',
    b'{"op":"leave","force":[]}\n',
    b'{"op":{}}\n',
    b"x" * (5 << 20) + b"\n",
    b'"\\ud800"\n',
    b'{"op":"\\ud800"}\n',
]


def test_no_visitor_ends_a_sidecar_and_the_run_of_its_holder_goes_on(
    warm: Warm, library: ModuleType, tmp_path: Path
) -> None:
    engine = Engine(library, warm.holder, tmp_path / "truth.csv")
    ask(engine.channel, {"op": "stage", "prompt_tokens": [3], "output_tokens": [5]})
    ask(engine.channel, {"op": "begin", "run": "r", "limits": {}, "drive": "free"})
    before = fds_of(warm.process.pid)
    for bad in BAD:
        visitor = connect(warm.socket)
        with contextlib.suppress(OSError):  # it is sent away before all is said
            visitor.sendall(bad)
        visitor.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while visitor.recv(1 << 16):
                pass
        visitor.close()
    with open("/dev/null", "rb") as null:
        for _ in range(300):
            visitor = connect(warm.socket)
            socket.send_fds(visitor, [b'{"op":"status"}\n'], [null.fileno()] * 8)
            visitor.close()
        visitor = connect(warm.socket)
        socket.send_fds(visitor, [b'{"op":"status"'], [null.fileno()] * 200)
        visitor.close()
    assert comes(lambda: fds_of(warm.process.pid) == before)
    engine.push(protocol.KIND_SUBMIT)
    run = Run()
    while not run.finishes:
        run.take(library.pop(engine.events))
    assert run.tokens[0] == 5
    assert warm.status()["holder"]["pid"] == os.getpid()


def test_visitors_that_say_half_of_something_hold_nobody_up(warm: Warm) -> None:
    silent = [connect(warm.socket) for _ in range(100)]
    for visitor in silent:
        with contextlib.suppress(OSError):  # who came first made room
            visitor.sendall(b'{"op":"sta')
    deaf = connect(warm.socket)
    deaf.sendall(b'{"op":"status"}\n')
    began = time.monotonic()
    assert warm.status()["event"] == "status"
    assert ask(warm.holder, {"op": "dance"})["error"]
    warm.holder.connection.sendall(b'{"op":"dan')  # the holder itself, too
    assert warm.status()["event"] == "status"
    assert time.monotonic() - began < 8, "less than a visitor's limit, on a busy machine too"
    warm.holder.connection.sendall(b'ce"}\n')
    assert expect(warm.holder, "to", "dance")
    assert fds_of(warm.process.pid) < 60
    for visitor in silent:
        visitor.close()


def test_a_holder_that_comes_as_another_one_leaves_is_greeted(warm: Warm) -> None:
    os.kill(warm.process.pid, signal.SIGSTOP)
    warm.holder.connection.close()
    following = hold(warm.socket)
    os.kill(warm.process.pid, signal.SIGCONT)
    assert expect(following, "event", "hello")["pid"] == warm.process.pid


def test_a_holder_that_speaks_nonsense_loses_the_sidecar_and_the_next_one_has_it(
    warm: Warm, library: ModuleType, tmp_path: Path
) -> None:
    with open("/dev/null", "rb") as null:
        for bad, fds in [(b'{"op":"check"}', []), (b'{"op":"kill","pid":[]}', []), (b'{"op":"load"}', [null.fileno()])]:
            engine = Engine(library, warm.holder, tmp_path / "truth.csv")
            socket.send_fds(warm.holder.connection, [bad + b"\n"], fds)
            assert expect(warm.holder, "event", "reply")["error"]
            assert warm.holder.receive() is None
            assert are_gone(engine.pid)
            warm.holder = hold(warm.socket)
            expect(warm.holder, "event", "hello")
    assert Engine(library, warm.holder, tmp_path / "truth.csv").run().tokens[0] == 5


def test_what_is_sent_to_a_whole_job_ends_no_sidecar_that_is_held(
    warm: Warm, library: ModuleType, tmp_path: Path
) -> None:
    engine = Engine(library, warm.holder, tmp_path / "truth.csv")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(warm.process.pid, number)
        os.kill(engine.pid, number)
    assert engine.run().tokens[0] == 5
    assert os.getpgid(warm.process.pid) != os.getpgid(0), "a group of its own"
    engine.give_back()
    warm.holder.connection.close()
    assert comes(lambda: warm.status()["holder"] is None)
    os.kill(warm.process.pid, signal.SIGTERM)
    assert warm.has_left()
    assert are_gone(engine.pid)


def test_a_stopped_sidecar_leaves_with_the_process_that_started_it(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    command = [sys.executable, "-m", "bench_sidecar", "--scripted", "--socket", str(folder / "control")]
    command += ["--ring-library", os.environ["BENCH_RING_LIBRARY"]]
    start = f"import subprocess, time; print(subprocess.Popen({command!r}).pid, flush=True); time.sleep(60)"
    harness = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    assert harness.stdout is not None
    pid = int(harness.stdout.readline())
    connect(folder / "control").close()
    os.kill(pid, signal.SIGSTOP)
    harness.kill()
    harness.wait()
    harness.stdout.close()
    assert are_gone(pid, limit_s=5)
    assert not folder.exists()


def test_a_peer_of_another_user_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "control")
        listener = control.listen(str(path))
        if os.getuid() != 0:  # only root can be somebody else: here the listener is
            client = connect(path)
            monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
            assert control.accept(listener) is None
            client.close()
            return
        Path(name).chmod(0o711)
        path.chmod(0o777)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            os._exit(0 if connect(path, limit_s=5).recv(1) == b"" else 1)
        assert control.accept(listener) is None
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_device_that_is_in_use_forbids_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engines.why_not_fork() is None
    with open("/dev/null", "rb"):
        monkeypatch.setattr(engines, "DEVICE_NODES", ("/dev/null",))
        assert "/dev/null" in (engines.why_not_fork() or "")


OPENS_A_DEVICE = """
import bench_sidecar.engines
bench_sidecar.engines.DEVICE_NODES = ("/dev/zero",)
opened = open("/dev/zero", "rb")
"""
STARTS_A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.mark.parametrize(("start", "reason"), [(OPENS_A_DEVICE, "/dev/zero"), (STARTS_A_THREAD, "1 threads")])
def test_an_engine_in_a_fresh_process_measures_says_so_and_is_handed_over(
    start: str, reason: str, folder: Path, library: ModuleType, tmp_path: Path
) -> None:
    # Python runs it as it starts, in the server and in the engine.
    (tmp_path / "sitecustomize.py").write_text(start)
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    warm = Warm(folder, keep_s=600, environment={"PYTHONPATH": path})
    engine = Engine(library, warm.holder, tmp_path / "truth.csv")
    other = engine.ready["facts"]["other"]
    assert other["process"] == "fresh"
    assert reason in other["process_reason"]
    assert engine.run().tokens[0] == 5
    engine.give_back()
    again = Engine(library, warm.holder, tmp_path / "truth.csv")
    assert again.pid == engine.pid
    assert again.run().tokens[0] == 5
    warm.process.kill()
    warm.process.wait()
    assert are_gone(engine.pid), "it dies with its server"
