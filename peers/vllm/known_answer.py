#!/usr/bin/env python3
"""The error of `vllm bench serve`: what it reports of tokens whose times are known.

usage: "$(target/release/bench env --device cpu)" peers/vllm/known_answer.py [--concurrency 1 10 100]
       [--calibration DIR/calibration.json] [--json FILE] [--keep DIR]

For each concurrency it starts schedule_server.py and runs `vllm bench serve` against it. The truth of a TTFT is the
time from the arrival of the request at the server to the write of its first token, of an ITL the time between two
writes. Errors are absolute differences to that. With --calibration the errors of `bench`, from `bench calibrate`,
stand beside them.

The TTFT error holds all that the client adds on both ways. "Seen late" is the way back alone: the client's stamp of the
first token (its start plus its TTFT, on the same clock) after the server's write.
"""

import argparse
import itertools
import json
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from common import PeerError, Spread, Vllm, machine, run_as_command, table, undisturbed, write_json, write_model
from schedule_server import MODEL, Emitted, lateness_us, read_truth

FIRST_MS = 50
INPUT_TOKENS = 16
STOP_TIMEOUT_S = 30


def requests_at(concurrency: int) -> int:
    """Enough for percentiles, and few enough for a minute."""
    return max(30, min(5 * concurrency, 1000))


class Measured:
    """What the client said at one concurrency, compared with the truth. Errors are in microseconds."""

    def __init__(self, concurrency: int, result: dict[str, Any], truth: dict[str, list[Emitted]]) -> None:
        self.concurrency = concurrency
        self.requests = len(result["ttfts"])
        self.wall_s = float(result["duration"])
        ttft: list[float] = []
        itl: list[float] = []
        seen_late: list[float] = []
        kept: list[Emitted] = []
        for index, (start_s, ttft_s, itl_s) in enumerate(
            zip(result["start_times"], result["ttfts"], result["itls"], strict=True)
        ):
            tokens = truth.get(f"r{index}", [])
            if len(tokens) != len(itl_s) + 1:
                raise PeerError(f"request {index}: {len(tokens)} tokens were sent, {len(itl_s) + 1} were reported")
            kept += tokens
            first = tokens[0]
            arrived_ns = first.intended_ns - FIRST_MS * 1_000_000
            ttft.append(abs(ttft_s * 1e6 - (first.emitted_ns - arrived_ns) / 1e3))
            seen_late.append((start_s + ttft_s) * 1e6 - first.emitted_ns / 1e3)
            gaps_ns = [after.emitted_ns - before.emitted_ns for before, after in itertools.pairwise(tokens)]
            itl += [abs(said_s * 1e6 - gap_ns / 1e3) for said_s, gap_ns in zip(itl_s, gaps_ns, strict=True)]
        self.ttft_us = Spread.of(ttft)
        self.itl_us = Spread.of(itl)
        self.seen_late_us = Spread.of(seen_late)
        self.server_late_us = lateness_us(kept)
        self.others_cores = 0.0

    def as_json(self) -> dict[str, Any]:
        """The raw figures."""
        return {name: value.as_json() if isinstance(value, Spread) else value for name, value in vars(self).items()}


def measure(vllm: Vllm, concurrency: int, gap_ms: float, tokens: int) -> Measured:
    """Runs the server and the client once."""
    folder = vllm.folder / f"c{concurrency}"
    folder.mkdir(exist_ok=True)
    truth = folder / "truth.csv"
    script = Path(__file__).with_name("schedule_server.py")
    times = ["--first-ms", str(FIRST_MS), "--gap-ms", str(gap_ms)]
    command = [sys.executable, str(script), "--port", "0", "--truth", str(truth), *times]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("listening on ").strip()
        run_client(vllm, folder, address, concurrency, tokens)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(STOP_TIMEOUT_S)
    result = json.loads((folder / "result.json").read_text())
    if result["failed"]:
        raise PeerError(f"{result['failed']} requests failed; see {vllm.folder}")
    return Measured(concurrency, result, read_truth(truth))


def run_client(vllm: Vllm, folder: Path, address: str, concurrency: int, tokens: int) -> None:
    """`vllm bench serve`, as its users call it."""
    model = vllm.folder / "model"
    write_model(model)
    arguments = ["bench", "serve", "--backend", "openai", "--base-url", address, "--model", MODEL]
    arguments += ["--tokenizer", str(model), "--dataset-name", "random", "--request-id-prefix", "r"]
    arguments += ["--input-len", str(INPUT_TOKENS), "--output-len", str(tokens)]
    arguments += ["--num-prompts", str(requests_at(concurrency)), "--max-concurrency", str(concurrency)]
    arguments += ["--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "result.json"]
    vllm.run(arguments, f"serve-c{concurrency}")


def read_calibration(path: Path) -> dict[int, dict[str, dict[str, float]]]:
    """Of each concurrency the errors of `bench`, in nanoseconds."""
    try:
        known = json.loads(path.read_text())["known_answer"]
        return {int(one["concurrency"]): {key: one[f"{key}_error_ns"] for key in ("ttft", "itl")} for one in known}
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise PeerError(f"{path} is not the calibration.json of `bench calibrate`: {err}") from err


def render(measured: list[Measured], calibration: dict[int, dict[str, dict[str, float]]]) -> str:
    """The table: a row for each client and concurrency, with the ratio below."""
    rows = []
    for one in measured:
        theirs = [one.ttft_us.p50, one.ttft_us.p99, one.ttft_us.max, one.itl_us.p50, one.itl_us.p99, one.itl_us.max]
        kept = f"{one.server_late_us.p50:.0f} / {one.server_late_us.p99:.0f} / {one.server_late_us.max:.0f}"
        seen = f"{one.seen_late_us.p50:.0f} / {one.seen_late_us.p99:.0f} / {one.seen_late_us.max:.0f}"
        busy = f"{one.others_cores:.2f}"
        rows.append([str(one.concurrency), "vllm bench serve", *cells(theirs), seen, kept, busy])
        errors = calibration.get(one.concurrency)
        if errors is None:
            continue
        ours = [errors[key][percentile] / 1e3 for key in ("ttft", "itl") for percentile in ("p50", "p99", "max")]
        rows.append([str(one.concurrency), "bench", *cells(ours), "-", "-", "-"])
        ratios = [their / our if our else float("inf") for their, our in zip(theirs, ours, strict=True)]
        ratio = [" / ".join(f"{value:.0f} x" for value in part) for part in (ratios[:3], ratios[3:])]
        rows.append([str(one.concurrency), "ratio", *ratio, "-", "-", "-"])
    trio = "p50 / p99 / max"
    header = ["concurrency", "client", f"TTFT error us, {trio}", f"ITL error us, {trio}"]
    return table([*header, "first token seen late us", "server late us", "cores of others"], rows)


def cells(values: list[float]) -> list[str]:
    """Three TTFT errors and three ITL errors."""
    texts = [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in values]
    return [" / ".join(texts[:3]), " / ".join(texts[3:])]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Find the error of `vllm bench serve` by a known schedule.")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 10, 100], help="[default: 1 10 100]")
    parser.add_argument("--gap-ms", type=float, default=10, help="from token to token [default: 10]")
    parser.add_argument("--tokens", type=int, default=64, help="of each request [default: 64]")
    parser.add_argument("--calibration", type=Path, help="calibration.json of `bench calibrate`, for its rows")
    parser.add_argument("--json", type=Path, help="raw figures")
    parser.add_argument("--keep", type=Path, help="folder for results and logs [default: one that is removed]")
    args = parser.parse_args()

    calibration = read_calibration(args.calibration) if args.calibration else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        vllm = Vllm(folder)
        measured = []
        for concurrency in args.concurrency:
            one, cores = undisturbed(partial(measure, vllm, concurrency, args.gap_ms, args.tokens))
            one.others_cores = cores
            measured.append(one)
    print(f"vLLM {vllm.version}; {machine()}; a token each {args.gap_ms:g} ms\n")
    print(render(measured, calibration))
    figures = {"vllm": vllm.version, "machine": machine(), "gap_ms": args.gap_ms, "tokens": args.tokens}
    write_json(args.json, {**figures, "known_answer": [one.as_json() for one in measured]})


if __name__ == "__main__":
    run_as_command(main)
