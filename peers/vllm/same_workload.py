#!/usr/bin/env python3
"""One workload through `bench engine`, `vllm bench latency` and `vllm bench throughput`.

usage: "$(target/release/bench env --device cpu)" peers/vllm/same_workload.py [--rounds 3] [--repeats 30]
       [--json FILE] [--keep DIR]

The workload: the tiny Llama with random weights in float32, eager, no prefix cache; batches of 1 and 8 requests of 64
prompt tokens and 64 output tokens, all submitted at once. All commands get the same engine arguments, and the OpenMP
settings that `bench` chose for itself. Each round runs all commands, each round in another order, since whole runs of
the same work differ more than many runs of one process.

What is compared: the latency of a batch. Of `bench` that is `elapsed_s`, from the first submit to the last token; of
`vllm bench latency` the time around one `LLM.generate`; of `vllm bench throughput` its `elapsed_time`.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common import (
    REPOSITORY,
    PeerError,
    Spread,
    Vllm,
    machine,
    median,
    run_as_command,
    table,
    undisturbed,
    write_json,
    write_model,
)

BENCH = REPOSITORY / "target" / "release" / "bench"
BATCHES = (1, 8)
INPUT_TOKENS = 64
OUTPUT_TOKENS = 64
ENGINE_ARGUMENTS = [
    *("--load-format", "dummy"),
    "--enforce-eager",
    *("--dtype", "float32"),
    *("--max-model-len", "2048"),
    *("--max-num-seqs", "64"),
    *("--max-num-batched-tokens", "2048"),
    *("--kv-cache-memory-bytes", "1073741824"),
    "--no-enable-prefix-caching",
]
# `vllm bench latency` samples at temperature 1 in every step, `bench` takes the likeliest token.
GREEDY = """
import vllm
generate = vllm.LLM.generate
def greedy(self, prompts, sampling_params, **given):
    sampling_params.temperature = 0.0
    return generate(self, prompts, sampling_params, **given)
vllm.LLM.generate = greedy
"""


@dataclass
class Batch:
    """What one command measured of one batch size: medians over its repeats. Only `bench` knows the last two."""

    latency_s: float
    ttft_s: float | None = None
    time_per_output_token_s: float | None = None


@dataclass
class Run:
    """One run of one tool: its batches by their size, and the wall time of its command, or commands."""

    batches: dict[int, Batch]
    wall_s: float
    others_cores: float = 0.0


class Comparison:
    """The tools, and where their files go."""

    def __init__(self, vllm: Vllm, repeats: int) -> None:
        self.vllm = vllm
        self.repeats = repeats
        self.model = vllm.folder / "model"
        write_model(self.model)
        self.runs = itertools.count()
        self.openmp: dict[str, str] = {}
        in_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        self.tools: dict[str, Callable[[], Run]] = {
            "bench engine": partial(self.bench, "engine_core"),
            "bench engine, step_api: llm_engine": partial(self.bench, "llm_engine"),
            "vllm bench latency": partial(self.latency, "", {}),
            "vllm bench latency, greedy, in one process": partial(self.latency, GREEDY, in_process),
            "vllm bench throughput": self.throughput,
        }

    def bench(self, step_api: str) -> Run:
        """`bench engine` with all batch sizes in one command."""
        arguments = " ".join(["--model", str(self.model), "--skip-tokenizer-init", *ENGINE_ARGUMENTS])
        entry = {
            "name": "same-workload",
            "mode": "vllm_throughput",
            "length_configs": [{"input_len": INPUT_TOKENS, "output_len": OUTPUT_TOKENS}],
            "matrix": {"num_prompts": BATCHES},
        }
        defaults = {"device": "cpu", "args": arguments, "repeats": self.repeats, "step_api": step_api}
        out = self.new_path("bench")
        config = out.with_suffix(".yaml")
        config.write_text(json.dumps({"defaults": defaults, "standalone_runs": [entry]}))  # JSON is YAML, too
        command = [str(BENCH), "engine", "--config", str(config), "--out", str(out), "--python", sys.executable]
        began_s = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall_s = time.monotonic() - began_s
        if done.returncode != 0:
            raise PeerError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        report = json.loads((out / "summary_report.json").read_text())
        self.openmp = report["environment"]["sidecars"]["cpu"]["openmp"]
        return Run({batch: batch_of_report(report, batch) for batch in BATCHES}, wall_s)

    def latency(self, code: str, environment: dict[str, str]) -> Run:
        """`vllm bench latency`, a command for each batch size; `code` runs before it in its process."""
        run = Run({}, 0.0)
        for batch in BATCHES:
            arguments = ["bench", "latency", "--batch-size", str(batch), "--num-iters", str(self.repeats)]
            arguments += ["--input-len", str(INPUT_TOKENS), "--output-len", str(OUTPUT_TOKENS)]
            arguments += ["--disable-detokenize", "--skip-tokenizer-init"]
            result, wall_s = self.run_vllm(arguments, code, environment)
            run.batches[batch] = Batch(median(result["latencies"]))
            run.wall_s += wall_s
        return run

    def throughput(self) -> Run:
        """`vllm bench throughput`, a command for each batch size. It needs a tokenizer, and times one batch."""
        run = Run({}, 0.0)
        for batch in BATCHES:
            arguments = ["bench", "throughput", "--dataset-name", "random", "--num-prompts", str(batch)]
            arguments += ["--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(OUTPUT_TOKENS)]
            arguments += ["--num-warmups", str(batch), "--disable-detokenize"]
            result, wall_s = self.run_vllm(arguments, "", {})
            expected = batch * (INPUT_TOKENS + OUTPUT_TOKENS)
            if result["total_num_tokens"] != expected:
                raise PeerError(f"vllm bench throughput ran {result['total_num_tokens']} tokens, not {expected}")
            run.batches[batch] = Batch(result["elapsed_time"])
            run.wall_s += wall_s
        return run

    def run_vllm(self, arguments: list[str], code: str, environment: dict[str, str]) -> tuple[dict[str, Any], float]:
        """Runs it with the model and the engine arguments. Its result, and its wall time in seconds."""
        out = self.new_path(arguments[1]).with_suffix(".json")
        whole = [*arguments, "--model", str(self.model), *ENGINE_ARGUMENTS, "--output-json", str(out)]
        wall_s = self.vllm.run(whole, out.stem, code, **self.openmp, **environment)
        return json.loads(out.read_text()), wall_s

    def new_path(self, tool: str) -> Path:
        """For the files of a run, without a suffix."""
        return self.vllm.folder / f"{next(self.runs):03}-{tool}"

    def measure(self, rounds: int) -> dict[str, list[Run]]:
        """All tools in each round. The first round begins with `bench`, as the others take its OpenMP settings."""
        found: dict[str, list[Run]] = {name: [] for name in self.tools}
        names = list(self.tools)
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                print(f"round {turn + 1} of {rounds}: {name}", file=sys.stderr)
                run, cores = undisturbed(self.tools[name])
                run.others_cores = cores
                found[name].append(run)
        return found


def batch_of_report(report: dict[str, Any], batch: int) -> Batch:
    """The medians over the runs of one batch size."""
    runs = [run for run in report["runs"] if run["num_prompts"] == batch]
    names = ("elapsed_s", "p50_ttft_s", "p50_time_per_output_token_s")
    return Batch(*(median(run[name] for run in runs) for name in names))


def render(found: dict[str, list[Run]]) -> str:
    """The tables, one for each batch size and one of the wall times."""
    parts = []
    header = ["tool", "latency of the batch ms", "output tokens/s", "TTFT ms", "time per output token ms"]
    for batch in BATCHES:
        rows = []
        for name, runs in found.items():
            of_batch = [run.batches[batch] for run in runs]
            latency = Spread.of(each.latency_s * 1e3 for each in of_batch)
            rate = batch * OUTPUT_TOKENS / (latency.p50 / 1e3)
            cells = [f"{latency.p50:.1f} ({latency.min:.1f} to {latency.max:.1f})", f"{rate:.0f}"]
            ttft = [each.ttft_s * 1e3 for each in of_batch if each.ttft_s is not None]
            per_token = [
                each.time_per_output_token_s * 1e3 for each in of_batch if each.time_per_output_token_s is not None
            ]
            cells += [f"{median(values):.2f}" if values else "-" for values in (ttft, per_token)]
            rows.append([name, *cells])
        parts.append(f"Batch of {batch}; median over rounds (least to most):\n\n{table(header, rows)}")
    rows = []
    for name, runs in found.items():
        wall = Spread.of(run.wall_s for run in runs)
        busy = Spread.of(run.others_cores for run in runs)
        commands = 1 if name.startswith("bench") else len(BATCHES)
        cells = [f"{wall.p50:.1f} ({wall.min:.1f} to {wall.max:.1f})", f"{busy.min:.2f} to {busy.max:.2f}"]
        rows.append([name, str(commands), *cells])
    parts.append(table(["tool", "commands", "wall time of all s", "cores of others"], rows))
    return "\n\n".join(parts)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure one workload with bench and with vLLM's own benchmarks.")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each tool [default: 3]")
    parser.add_argument("--repeats", type=int, default=30, help="batches of each run [default: 30]")
    parser.add_argument("--json", type=Path, help="raw figures")
    parser.add_argument("--keep", type=Path, help="folder for results and logs [default: one that is removed]")
    args = parser.parse_args()

    if not BENCH.exists():
        raise PeerError(f"{BENCH} is missing: make build")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        vllm = Vllm(folder.resolve())
        found = Comparison(vllm, args.repeats).measure(args.rounds)
    print(f"vLLM {vllm.version}; {machine()}; {args.rounds} rounds, {args.repeats} batches in each run\n")
    print(render(found))
    figures = {"vllm": vllm.version, "machine": machine(), "rounds": args.rounds, "repeats": args.repeats}
    tools = {name: [asdict(run) for run in runs] for name, runs in found.items()}
    write_json(args.json, {**figures, "input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS, "tools": tools})


if __name__ == "__main__":
    run_as_command(main)
