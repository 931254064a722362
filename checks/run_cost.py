"""What the runs before it add to the cost of a run: a scripted sweep of tiny runs, late ones against early ones.

    python checks/run_cost.py target/release/bench [RUNS]

Prints the median time from run to run around run 100 and at the end, their ratio, and what the harness has written and
held in memory. Ends with 1 if a late run takes more than 1.5 times as long as an early one.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

SCRIPT = "requests: [{first_ns: 100000, gap_ns: 100000}]\n"
POINTS = 20
AROUND = 50
MOST = 1.5


def sweep(repeats: int) -> str:
    """A configuration of POINTS points, each measured so often."""
    lengths = ", ".join(f"{{input_len: 16, output_len: {4 + point}}}" for point in range(POINTS))
    return (
        "defaults: {sentinel: none, telemetry_hz: 0}\nstandalone_runs:\n  - {name: t, mode: vllm_throughput, "
        f"args: --model some/model, repeats: {repeats}, num_prompts: 2, length_configs: [{lengths}]}}\n"
    )


def field(pid: int, file: str, name: str) -> int:
    """A number of a process by its name; 0 once the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def measure(bench: Path, runs: int, folder: Path) -> tuple[dict[int, int], int]:
    """Runs the sweep; gives the memory of the harness in KiB by the runs that it had stored, and the bytes it wrote."""
    (folder / "script.yaml").write_text(SCRIPT)
    (folder / "sweep.yaml").write_text(sweep(runs // POINTS))
    words = "engine --quiet --engine scripted:script.yaml --config sweep.yaml --out out"
    memory_kib: dict[int, int] = {}
    written = 0
    with subprocess.Popen([str(bench), *words.split()], cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            done = sum(1 for _ in (folder / "out/runs").glob("*/timeline.json"))
            if resident := field(process.pid, "status", "VmRSS"):
                memory_kib.setdefault(done, resident)
            written = max(written, field(process.pid, "io", "wchar"))
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(process.returncode)
    return memory_kib, written


def main() -> int:
    """Measures, and compares."""
    bench, runs = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        memory_kib, written = measure(bench, runs, folder)
        records = (json.loads(path.read_text()) for path in folder.glob("out/runs/*/timeline.json"))
        began = sorted(datetime.fromisoformat(record["began_at"]).timestamp() for record in records)
        on_disk = sum(path.stat().st_size for path in (folder / "out").rglob("*") if path.is_file())
    gaps_ms = [(late - early) * 1e3 for early, late in itertools.pairwise(began)]
    early, late = statistics.median(gaps_ms[100 - AROUND : 100 + AROUND]), statistics.median(gaps_ms[-AROUND:])
    nearest = [min(memory_kib, key=lambda done: abs(done - wanted)) for wanted in (100, len(began) - 1)]
    per_run = (memory_kib[nearest[1]] - memory_kib[nearest[0]]) / (nearest[1] - nearest[0])
    print(f"{len(began)} runs: {early:.1f} ms at run 100, {late:.1f} ms at the end, {late / early:.2f} times as long")
    print(f"written: {written / 1e6:.0f} MB for {on_disk / 1e6:.0f} MB; memory: {per_run:.1f} KiB more with each run")
    return int(late > MOST * early)


if __name__ == "__main__":
    sys.exit(main())
