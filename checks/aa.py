#!/usr/bin/env python3
"""How often comparisons of a setting with itself find a difference: A/A, in the pairs of `bench engine --ab`.

    checks/aa.py BENCH [--engine vllm|scripted] [--comparisons 1000] [--pairs 10]

Each command compares 20 points with themselves, ten runs a side, in one random order over all of them; a warm sidecar
keeps the engine loaded between commands. The sides are two limits that a single request never meets, on one engine:
two engine processes would not be alike, by tens of nanoseconds. An alarm is p <= 0.05 of one metric of one point.
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
# Requests of their own lengths, so that each request's tokens meet a different moment of the machine.
SCRIPT = "requests: [{first_ns: 1000000, gap_ns: 500000}]"


def write_config(folder: Path, engine: str) -> list[str]:
    """Writes what one command measures, and gives its arguments."""
    config = folder / "aa.yaml"
    arguments = ENGINE_ARGUMENTS if engine == "vllm" else "--model some/model"
    entry = {"name": "aa", "mode": "vllm_throughput", "args": arguments, "num_prompts": 1, "output_len": 16}
    entry |= {"warmup": 0, "telemetry_hz": 0, "matrix": {"input_len": list(range(16, 16 + POINTS))}}
    defaults = {"sentinel": "none"}
    config.write_text(json.dumps({"defaults": defaults, "standalone_runs": [entry]}), encoding="utf-8")
    if engine == "vllm":
        return ["--config", str(config), "--ab", "max_num_seqs=64,63"]
    script = folder / "script.yaml"
    script.write_text(SCRIPT, encoding="utf-8")
    return ["--config", str(config), "--engine", f"scripted:{script}", "--ab", "concurrency=1,2"]


def compare(bench: str, arguments: list[str], out: Path) -> list[dict[str, object]]:
    """Measures and compares once; the metrics of all points. A difference that is found is no failure here."""
    command = [bench, "engine", "--keep-warm", "--quiet", "--out", str(out), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in {0, 1}:
        raise SystemExit(done.stderr)
    comparison = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    return [metric for point in comparison["points"] for metric in point["metrics"]]


def main() -> None:
    """Prints the share of alarms for each metric, as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--engine", choices=["vllm", "scripted"], default="vllm")
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first command; each has the next one")
    options = parser.parse_args()
    tests: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = write_config(folder, options.engine)
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
