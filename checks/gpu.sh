#!/usr/bin/env bash
# Checks bench on a machine with an NVIDIA GPU: builds it, takes or makes a Python environment with vLLM, measures a tiny
# model without quantization, in FP8 and in FP4, and prints what was loaded, what ran, and the verdicts.
#
#   checks/gpu.sh [RESULTS_FOLDER]
#
# BENCH_PYTHON: an interpreter that has vLLM for CUDA; without it the managed environment is made.
# Exit status: that of `bench`: 0 all valid, 1 a run was invalid or failed, 3 no GPU or no engine. Each quantization is a
# command of its own, so that one which this GPU refuses does not keep the others from being seen; the worst status counts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out="${1:-results/gpu-check-$(date -u +%Y%m%dT%H%M%SZ)}"
bench="${CARGO_TARGET_DIR:-target}/release/bench"

heading() { printf '\n== %s\n' "$*"; }

for tool in cargo c++; do
    command -v "$tool" >/dev/null || { echo "checks/gpu.sh: $tool is needed to build bench, and is not on PATH" >&2; exit 2; }
done

heading "build"
cargo build --release --locked

heading "the device"
if ! "$bench" doctor --device cuda; then
    echo "checks/gpu.sh: no run: the lines above say what is missing on this machine, and how to get it" >&2
    exit 3
fi

heading "the Python environment"
python="${BENCH_PYTHON:-}"
if [[ -z "$python" ]]; then
    python="$("$bench" env --device cuda)"
fi
echo "$python"
export BENCH_PYTHON="$python"

worst=0
for quantization in none fp8 fp4; do
    heading "quantization: $quantization"
    config="$(mktemp --suffix=".yaml")"
    sed "s/quantization: \[none, fp8, fp4\]/quantization: [$quantization]/" configs/gpu-check.yaml >"$config"
    status=0
    "$bench" engine --config "$config" --out "$out/$quantization" || status=$?
    rm -f "$config"
    echo "exit status of bench: $status"
    ((status > worst)) && worst=$status
done

heading "what was loaded, what ran, and the verdicts"
"$python" - "$out" <<'PYTHON'
import json
import pathlib
import sys

for path in sorted(pathlib.Path(sys.argv[1]).glob("*/summary_report.json")):
    report = json.loads(path.read_text())
    seen = set()
    for run in report["runs"]:
        label = run["quantization"]
        facts = run.get("engine_facts")
        if facts and label not in seen:
            seen.add(label)
            print(f"\n{label}: {run['engine']} {run.get('engine_version')}, loaded in {run['engine_load_s']} s")
            print(json.dumps(facts, indent=2))
        reasons = "; ".join(run["reasons"])
        print(f"{label} {run['point']}-{run['repeat']}: {run['status']} {reasons}".rstrip())
PYTHON
date -u "+recorded %Y-%m-%d, results in $out"
exit "$worst"
