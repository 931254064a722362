"""What is left when something goes wrong, with the real vLLM."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from bench_sidecar import protocol
from harness import ARGV, Engine, Run, Sidecar, are_gone, ask


def start_long_run(engine: Engine) -> None:
    engine.stage([[1, 2, 3]] * 4, [2000] * 4)
    engine.begin()
    engine.push(protocol.KIND_SUBMIT, 0, 1, 2, 3)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--max-num-seqz", "3"], "did you mean --max-num-seqs?"),
        (["--block-size", "many"], "many"),
        (["--max-num-sequences=3"], "'--max-num-sequences=3'"),
    ],
)
def test_wrong_flag_is_named_before_a_load(sidecar: Sidecar, argv: list[str], says: str) -> None:
    error = ask(sidecar.server, {"op": "check", "argv": [*ARGV, *argv]})["error"]
    assert says in error["message"]


def test_flags_are_taken_in_every_form_of_vllm(sidecar: Sidecar) -> None:
    argv = [*ARGV, "--max_num_seqs=8", "--compilation-config.mode", "0"]
    assert ask(sidecar.server, {"op": "check", "argv": argv})["error"] is None


def test_unknown_operation_of_the_server_is_answered(sidecar: Sidecar) -> None:
    assert "'dance'" in ask(sidecar.server, {"op": "dance"})["error"]["message"]


def test_too_small_a_kv_cache_fails_the_load(sidecar: Sidecar) -> None:
    engine = sidecar.load("--kv-cache-memory-bytes", "4194304")
    assert (engine.first["event"], engine.first["stage"], engine.first["kind"]) == ("failed", "load", "ValueError")
    assert "KV cache" in engine.first["message"]
    assert sidecar.exit_of(engine) == (1, 0)


def test_exception_inside_a_step_is_reported(sidecar: Sidecar) -> None:
    engine = sidecar.load("--logits-processors", "faulty:RaisesInABatchOfThree")
    engine.stage([[1, 2]] * 3, [4] * 3)
    engine.begin()
    engine.push(protocol.KIND_SUBMIT, 0, 1, 2)
    failed = engine.failure()
    assert (failed["stage"], failed["kind"], failed["message"]) == ("run", "ArithmeticError", "on purpose")
    assert sidecar.exit_of(engine) == (1, 0)


def test_log_on_a_full_disk_hides_no_failure(library: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sidecar.log").symlink_to("/dev/full")
    sidecar = Sidecar(tmp_path, library)
    sidecar.wait_for_hello()
    engine = sidecar.load("--kv-cache-memory-bytes", "4194304")
    assert (engine.first["event"], engine.first["kind"]) == ("failed", "ValueError")
    assert sidecar.close() == 0


def test_corrupted_request_record_and_a_broken_channel_end_the_engine(sidecar: Sidecar) -> None:
    first, second = sidecar.load(), sidecar.load()
    first.begin()
    first.push(99, 0)
    assert "unknown kind 99" in first.failure()["message"]
    assert sidecar.exit_of(first) == (1, 0)
    start_long_run(second)
    second.channel.connection.sendall(b"{nonsense\n")
    assert second.failure()["stage"] == "control"
    assert sidecar.exit_of(second) == (1, 0)


def test_killed_engine_is_reported_and_the_next_one_loads(sidecar: Sidecar) -> None:
    engine = sidecar.load()
    start_long_run(engine)
    os.kill(engine.pid, signal.SIGKILL)
    assert sidecar.exit_of(engine) == (0, signal.SIGKILL)
    after = sidecar.load()
    assert after.run([[1, 2]], [2]).tokens[0] == 2
    after.channel.connection.close()
    assert sidecar.exit_of(after) == (0, 0), "a closed channel ends an engine without a complaint"


def test_killed_server_takes_its_engine_along(library: ModuleType, tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, library)
    sidecar.wait_for_hello()
    engine = sidecar.load()
    start_long_run(engine)
    sidecar.process.kill()
    sidecar.process.wait()
    assert are_gone(engine.pid)


def test_killed_harness_leaves_no_process(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, __file__, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    )
    assert child.stdout is not None
    pids = json.loads(child.stdout.readline())
    child.kill()
    child.wait()
    child.stdout.close()
    assert are_gone(*pids)
    assert "Traceback" not in (tmp_path / "sidecar.log").read_text(encoding="utf-8")


def test_sidecar_whose_harness_ended_before_it_connected_ends(library: ModuleType, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    command = [sys.executable, "-m", "bench_sidecar", "--scripted", "--socket", str(tmp_path / "s")]
    command += ["--ring-library", os.environ["BENCH_RING_LIBRARY"]]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    orphan = subprocess.Popen([*command, "--parent", str(ended.pid)], stderr=subprocess.PIPE, text=True)
    _, said = orphan.communicate(timeout=10)
    assert orphan.returncode == 1
    assert said == "bench: the harness that started this sidecar has ended before it connected\n"


def test_harness_that_goes_away_during_the_import_ends_the_sidecar(library: ModuleType, tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, library)
    sidecar.server.connection.close()
    assert sidecar.process.wait(timeout=5) == 0


def be_a_harness(folder: Path) -> None:
    """A harness of its own, to be killed: says which processes there are once a run goes on."""
    from bench_sidecar.ring import load_library

    sidecar = Sidecar(folder, load_library(os.environ["BENCH_RING_LIBRARY"]))
    sidecar.wait_for_hello()
    engine = sidecar.load()
    start_long_run(engine)
    run = Run()
    while not run.steps:
        run.take(engine.library.pop(engine.events))
    print(json.dumps([sidecar.process.pid, engine.pid]), flush=True)
    signal.pause()


if __name__ == "__main__":
    be_a_harness(Path(sys.argv[1]))
