#!/usr/bin/env python3
"""A sweep of twelve points on one engine: one `bench engine`, and twelve `vllm bench throughput`.

usage: "$(target/release/bench env --device cpu)" peers/vllm/sweep.py [--rounds 3] [--json FILE] [--keep DIR]

The points: 1 and 8 requests of 32, 64 and 128 prompt tokens and 16 and 32 output tokens, on the engine of
same_workload.py. Each point is run once by either tool, and what is compared is the wall time of its commands from
start to end, a table of results included.

Also what another engine costs inside one command: the same points on each of two engine keys.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import PeerError, Spread, Vllm, machine, run_as_command, table, undisturbed, write_json, write_model
from same_workload import BENCH, ENGINE_ARGUMENTS

POINTS = [
    {"input_len": input_len, "output_len": output_len, "num_prompts": num_prompts}
    for input_len, output_len, num_prompts in itertools.product((32, 64, 128), (16, 32), (1, 8))
]


class Sweep:
    """The two tools, and where their files go."""

    def __init__(self, vllm: Vllm) -> None:
        self.vllm = vllm
        self.model = vllm.folder / "model"
        write_model(self.model)
        self.runs = itertools.count()
        self.openmp: dict[str, str] = {}

    def bench(self, max_model_lens: tuple[int, ...] = (2048,)) -> tuple[float, dict[str, Any]]:
        """All points in one command, on an engine for each longest sequence. Its wall time and its report."""
        entries = [
            {
                "name": f"sweep-{longest}",
                "mode": "vllm_throughput",
                "args": " ".join(["--model", str(self.model), "--skip-tokenizer-init", *with_max_model_len(longest)]),
                "matrix": {"input_len": [32, 64, 128], "output_len": [16, 32], "num_prompts": [1, 8]},
            }
            for longest in max_model_lens
        ]
        out = self.vllm.folder / f"{next(self.runs):03}-bench"
        config = out.with_suffix(".yaml")
        defaults = {"device": "cpu", "repeats": 1, "warmup": 0}
        config.write_text(json.dumps({"defaults": defaults, "standalone_runs": entries}))  # JSON is YAML, too
        command = [str(BENCH), "engine", "--config", str(config), "--out", str(out), "--python", sys.executable]
        began_s = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall_s = time.monotonic() - began_s
        if done.returncode != 0:
            raise PeerError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        report = json.loads((out / "summary_report.json").read_text())
        if len(report["runs"]) != len(POINTS) * len(max_model_lens):
            raise PeerError(f"{len(report['runs'])} runs, not {len(POINTS) * len(max_model_lens)}")
        self.openmp = report["environment"]["sidecars"]["cpu"]["openmp"]
        return wall_s, report

    def throughput(self) -> float:
        """A `vllm bench throughput` for each point; seconds of all."""
        wall_s = 0.0
        for point in POINTS:
            out = self.vllm.folder / f"{next(self.runs):03}-throughput.json"
            arguments = ["bench", "throughput", "--dataset-name", "random", "--num-prompts", str(point["num_prompts"])]
            arguments += ["--random-input-len", str(point["input_len"])]
            arguments += ["--random-output-len", str(point["output_len"]), "--disable-detokenize"]
            arguments += ["--model", str(self.model), *ENGINE_ARGUMENTS, "--output-json", str(out)]
            wall_s += self.vllm.run(arguments, out.stem, "", **self.openmp)
            tokens = json.loads(out.read_text())["total_num_tokens"]
            expected = point["num_prompts"] * (point["input_len"] + point["output_len"])
            if tokens != expected:
                raise PeerError(f"vllm bench throughput ran {tokens} tokens, not {expected}")
        return wall_s


def with_max_model_len(longest: int) -> list[str]:
    """The engine's arguments with another longest sequence: another engine key."""
    arguments = list(ENGINE_ARGUMENTS)
    arguments[arguments.index("--max-model-len") + 1] = str(longest)
    return arguments


def cells(seconds: list[float]) -> str:
    """Median, least and most."""
    spread = Spread.of(seconds)
    return f"{spread.p50:.1f} ({spread.min:.1f} to {spread.max:.1f})"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Run a sweep with bench and with a process of vLLM for each point.")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each tool [default: 3]")
    parser.add_argument("--json", type=Path, help="raw figures")
    parser.add_argument("--keep", type=Path, help="folder for results and logs [default: one that is removed]")
    args = parser.parse_args()

    if not BENCH.exists():
        raise PeerError(f"{BENCH} is missing: make build")
    found: dict[str, list[float]] = {"one": [], "two": [], "throughput": [], "load": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sweep = Sweep(Vllm(folder.resolve()))
        for turn in range(args.rounds):
            print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
            (wall_s, _), _ = undisturbed(sweep.bench)
            found["one"].append(wall_s)
            (wall_s, report), _ = undisturbed(lambda: sweep.bench((2048, 1024)))
            found["two"].append(wall_s)
            found["load"].append(max(run["turnaround_s"] for run in report["runs"] if run["turnaround_s"] is not None))
            seconds, _ = undisturbed(sweep.throughput)
            found["throughput"].append(seconds)
        version = sweep.vllm.version
    rows = [
        ["`bench engine`, 12 points on one engine", "1", cells(found["one"])],
        ["`vllm bench throughput`, a process for each point", "12", cells(found["throughput"])],
        ["`bench engine`, the 12 points on each of two engines", "1", cells(found["two"])],
        ["of it, from the last token on one engine to the first request of the other", "", cells(found["load"])],
    ]
    print(f"vLLM {version}; {machine()}; {args.rounds} rounds\n")
    print(table(["what", "commands", "wall time s"], rows))
    pairs = zip(found["throughput"], found["one"], strict=True)
    print(f"\n`bench engine` is {min(peer / own for peer, own in pairs):.1f} times as fast, in its worst round.")
    write_json(args.json, {"vllm": version, "machine": machine(), "rounds": args.rounds, "wall_s": found})


if __name__ == "__main__":
    run_as_command(main)
