"""The examples on a fresh results folder: what polars and DuckDB find is what the report says."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pytest
from batches import itl_by_batch

HERE = Path(__file__).parent
BENCH = os.environ["BENCH"]
SCRIPT = "requests: [{first_ns: 5000000, gap_ns: 1000000}, {first_ns: 9000000, gap_ns: 2000000}]"
CONFIG = """
standalone_runs:
  - {name: t, mode: vllm_throughput, args: --model some/model, input_len: 16, output_len: 40, repeats: 2,
     matrix: {num_prompts: [4, 6]}}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two points on a scripted engine, exported."""
    folder = tmp_path_factory.mktemp("queries")
    (folder / "script.yaml").write_text(SCRIPT, encoding="utf-8")
    (folder / "sweep.yaml").write_text(CONFIG, encoding="utf-8")
    out = folder / "out"
    engine = ["--engine", f"scripted:{folder / 'script.yaml'}", "--config", str(folder / "sweep.yaml")]
    subprocess.run([BENCH, "engine", *engine, "--out", str(out), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    exported = subprocess.run(
        [BENCH, "export", str(out), "--parquet", "--perfetto"], check=True, capture_output=True, text=True
    )
    assert [Path(line).name for line in exported.stdout.split()] == ["tokens.parquet", "steps.parquet", "trace.json"]
    return out


def points(results: Path) -> dict[str, Any]:
    """The report's points, by label."""
    report = json.loads((results / "summary_report.json").read_text(encoding="utf-8"))
    return {point["point"]: point for point in report["points"]}


def test_sql_finds_what_the_report_says(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same requests, and the same latencies."""
    monkeypatch.chdir(results)
    found = duckdb.execute((HERE / "latency.sql").read_text(encoding="utf-8"))
    columns = [column[0] for column in found.description or []]
    rows = [dict(zip(columns, row, strict=True)) for row in found.fetchall()]
    report = json.loads((results / "summary_report.json").read_text(encoding="utf-8"))
    reported = {(run["point"], run["repeat"]): run for run in report["runs"] if run["status"] == "valid"}
    assert sorted((row["point"], row["repeat"]) for row in rows) == sorted(reported)
    for row in rows:
        run = reported[row["point"], row["repeat"]]
        assert row["requests"] == run["num_prompts"]
        for metric in ("p50_ttft_s", "avg_e2e_s", "avg_itl_s", "p99_itl_s"):
            # A percentile of too few samples is not in the report.
            if run[metric] is not None:
                assert row[metric] == pytest.approx(run[metric], rel=1e-9), metric
        assert run["avg_itl_s"] is not None


def test_polars_joins_each_gap_with_its_step(results: Path) -> None:
    """Every gap is there once, and has a step."""
    found = itl_by_batch(results)
    reported = points(results)
    gaps = {row["point"]: 0 for row in found.iter_rows(named=True)}
    for row in found.iter_rows(named=True):
        gaps[row["point"]] += row["gaps"]
        assert row["avg_step_s"] > 0
        assert row["avg_running"] >= 0
    assert gaps == {label: point["num_prompts"] * 39 for label, point in reported.items()}


def test_trace_has_every_step_and_request_as_tracks(results: Path) -> None:
    """A process for each run, and in it what was recorded."""
    trace = json.loads((results / "trace.json").read_text(encoding="utf-8"))
    events = trace["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in slices)
    reported = points(results)
    requests = sum(point["num_prompts"] for point in reported.values())
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert sum(name.endswith("(measure)") for name in names) == requests
    assert sum(event["name"] == "prefill" and event["tid"] >= 10 for event in slices) == requests
    assert sum(event["name"] == "token" for event in slices) == requests * 39
    steps = duckdb.execute(f"select count(*) from '{results}/steps.parquet'").fetchall()[0][0]
    assert sum(event["tid"] == 1 for event in slices) == steps
    runs = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert len(runs) == 4
    assert len({event["pid"] for event in events}) == 4
    assert any(event["ph"] == "C" and event["name"] == "requests" for event in events)
