#!/usr/bin/env python3
"""How often comparisons are wrong, in the pairs of `bench engine --ab`: false alarms of a setting against itself (A/A),
and how often a change of 1 % is found.

    checks/aa.py BENCH [--engine vllm|scripted] [--change] [--comparisons 1000] [--pairs 10]

Each command compares 20 points, ten runs a side, in one random order over all of them; a warm sidecar keeps the engine
loaded between commands. In A/A the sides are two limits that a single request never meets, on one engine: two engine
processes would not be alike, by tens of nanoseconds. With --change, B has 101 tokens at even gaps where A has 100, so
that its E2E is 1 % longer. An alarm is p <= 0.05 of one metric of one point.

Runs of the scripted engine differ by 0.3 % each and by 0.5 % that neighbours share, so that the ratio of a pair spreads
by 0.62 %, to which the machine adds its stalls: ten pairs find 1 % in 90 % of the cases up to 0.80 %, says the plan.
"""

import argparse
import json
import math
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

POINTS = 20
ENGINE_ARGUMENTS = (
    "--model builtin:tiny-llama --load-format dummy --skip-tokenizer-init --enforce-eager --dtype float32 "
    "--max-model-len 2048 --max-num-seqs 64 --kv-cache-memory-bytes 1073741824"
)
SCRIPT = "requests: [{first_ns: 200000, gap_ns: 200000}]\nnoise: {run: 0.003, session: 0.005}"


def write_config(folder: Path, engine: str, is_changed: bool) -> list[str]:
    """Writes what one command measures, and gives its arguments."""
    config = folder / "aa.yaml"
    arguments = ENGINE_ARGUMENTS if engine == "vllm" else "--model some/model"
    entry = {
        "name": "aa",
        "mode": "vllm_throughput",
        "args": arguments,
        "num_prompts": 1,
        "warmup": 0,
        "telemetry_hz": 0,
    }
    # Requests of their own lengths, so that each request's tokens meet a different moment of the machine.
    entry |= {"matrix": {"input_len": list(range(16, 16 + POINTS))}}
    if not is_changed:
        entry |= {"output_len": 16 if engine == "vllm" else 100}
    config.write_text(json.dumps({"defaults": {"sentinel": "none"}, "standalone_runs": [entry]}), encoding="utf-8")
    given = ["--config", str(config)]
    if engine == "scripted":
        script = folder / "script.yaml"
        script.write_text(SCRIPT, encoding="utf-8")
        given += ["--engine", f"scripted:{script}"]
    same = "max_num_seqs=64,63" if engine == "vllm" else "concurrency=1,2"
    return [*given, "--ab", "output_len=100,101" if is_changed else same]


def compare(bench: str, arguments: list[str], out: Path) -> list[dict[str, object]]:
    """Measures and compares once; the metrics of all points. A difference is no failure here, and each test counts for
    itself, so that it does not matter that ten pairs cannot hold against all tests together.
    """
    command = [bench, "engine", "--keep-warm", "--quiet", "--out", str(out), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    path = out / "comparison.json"
    if not path.is_file():
        raise SystemExit(done.stderr)
    comparison = json.loads(path.read_text(encoding="utf-8"))
    return [metric for point in comparison["points"] for metric in point["metrics"]]


def main() -> None:
    """Prints the share of alarms for each metric, as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--engine", choices=["vllm", "scripted"], default="vllm")
    parser.add_argument("--change", action="store_true", help="of 1 %% in E2E, in place of none")
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first command; each has the next one")
    options = parser.parse_args()
    tests: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = write_config(folder, options.engine, options.change)
        for number in range(math.ceil(options.comparisons / POINTS)):
            more = ["--seed", str(options.seed + number), "--repeats", str(options.pairs)]
            for metric in compare(options.bench, [*arguments, *more], folder / str(number)):
                if isinstance(metric["p"], float):
                    tests[str(metric["metric"])] += 1
                    alarms[str(metric["metric"])] += metric["p"] <= 0.05
            shares = (f"{metric} {100 * alarms[metric] / tests[metric]:.1f} % of {tests[metric]}" for metric in tests)
            print("; ".join(shares), flush=True)
    subprocess.run([options.bench, "sidecar", "stop", "--all"], check=False)


if __name__ == "__main__":
    main()
