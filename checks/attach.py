#!/usr/bin/env python3
"""How long it takes from the start of a command that attaches to a warm sidecar to its first submit.

    checks/attach.py BENCH TIMES ARGUMENTS...    e.g. checks/attach.py target/release/bench 10 --config sweep.yaml

The first command starts the sidecar, the others attach to it, and it is stopped in the end. Submits are stamped by
CLOCK_MONOTONIC, which this program reads as it starts each command. Only on an idle machine do the numbers mean
anything.
"""

import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def first_submits_ms(bench: str, arguments: list[str], out: Path) -> dict[str, float]:
    """Runs a command, and gives for each phase of its runs when the first request was submitted."""
    began_ns = time.monotonic_ns()
    command = [bench, "engine", "--keep-warm", "--quiet", "--out", str(out), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([bench, "export", str(out), "--csv"], check=True, stdout=subprocess.DEVNULL)
    first: dict[str, float] = {}
    with (out / "events.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["submitted_ns"]:
                ms = (int(row["submitted_ns"]) - began_ns) / 1e6
                first[row["phase"]] = min(ms, first.get(row["phase"], ms))
    return first


def main() -> None:
    """Prints a line for each command."""
    bench, times, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(int(times) + 1):
            first = first_submits_ms(bench, arguments, Path(folder, str(number)))
            what = "attached" if number else "started "
            print(what, ", ".join(f"{phase} {ms:.1f} ms" for phase, ms in first.items()), flush=True)
    subprocess.run([bench, "sidecar", "stop"], check=True)


if __name__ == "__main__":
    main()
