#!/usr/bin/env python3
"""TTFT and E2E of `bench engine` beside vLLM's own stamps of the same requests.

usage: python3 peers/vllm/own_stamps.py RESULTS [--json FILE]

RESULTS is a folder that `bench engine` made. Of each measured request of a valid run, in microseconds:
  way in        the engine's QUEUED stamp - submitted
  seen earlier  the engine's stamp of the step of the first token - received(first token)
  TTFT          ours (received(first) - submitted) - the engine's (first token - QUEUED): way in - seen earlier
  E2E           the same with the last token

The engine stamps a step when it has ended, after the tap has seen its tokens, so "seen earlier" is positive.
"""

import argparse
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import PeerError, Spread, run_as_command, table, write_json

# Header and records of timeline.bin, as in src/timeline/store.rs and src/timeline/event.rs.
HEADER = struct.Struct("=8s6I4Q")
REQUEST = struct.Struct("=8Q7I4B")
TOKEN = struct.Struct("=2Q4I")
MAGIC = b"BENCHTL\0"
VERSION = 2
MEASURE = 2
ABSENT = 2**64 - 1


class Difference(NamedTuple):
    """Of one request, in microseconds; see the head of this file."""

    way_in_us: float
    seen_earlier_us: float
    ttft_us: float
    e2e_us: float


def differences(path: Path) -> Iterator[Difference]:
    """Of each measured request of a stored run that the engine stamped. PeerError if the file is of another version."""
    data = path.read_bytes()
    magic, _order, version, request_bytes, token_bytes, *_, requests, tokens, _steps, _hiccups = HEADER.unpack_from(
        data.ljust(HEADER.size, b"\0")
    )
    if (magic, version, request_bytes, token_bytes) != (MAGIC, VERSION, REQUEST.size, TOKEN.size):
        raise PeerError(f"{path}: not a timeline of version {VERSION}, which is all that this script reads")
    begin = HEADER.size + requests * REQUEST.size
    end = begin + tokens * TOKEN.size
    if len(data) < end:
        raise PeerError(f"{path} is cut short")
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for received_ns, _emitted_ns, request, *_ in TOKEN.iter_unpack(data[begin:end]):
        first.setdefault(request, received_ns)
        last[request] = received_ns
    for index, record in enumerate(REQUEST.iter_unpack(data[HEADER.size : begin])):
        _scheduled, submitted, _, _, queued, _, engine_first, engine_last = record[:8]
        if record[15] == MEASURE and index in first and ABSENT not in (submitted, queued, engine_first, engine_last):
            yield Difference(
                (queued - submitted) / 1e3,
                (engine_first - first[index]) / 1e3,
                (first[index] - submitted - (engine_first - queued)) / 1e3,
                (last[index] - submitted - (engine_last - queued)) / 1e3,
            )


def by_point(results: Path) -> dict[str, list[Difference]]:
    """Of each point the differences of all its valid runs."""
    try:
        runs = json.loads((results / "summary_report.json").read_text())["runs"]
    except (OSError, ValueError) as err:
        raise PeerError(f"{results} is not a results folder of `bench engine`: {err}") from err
    valid = [run for run in runs if run["status"] == "valid"]
    if not valid:
        raise PeerError(f"{results} has no valid run")
    points: dict[str, list[Difference]] = {}
    for run in valid:
        folder = results / "runs" / f"{run['point']}-{run['repeat']}"
        points.setdefault(run["point"], []).extend(differences(folder / "timeline.bin"))
    return points


def spreads(rows: list[Difference]) -> dict[str, Spread]:
    """Of each difference its spread over requests."""
    return {name: Spread.of(column) for name, column in zip(Difference._fields, zip(*rows, strict=True), strict=True)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare TTFT and E2E of bench with vLLM's own stamps.")
    parser.add_argument("results", type=Path, help="results folder of `bench engine`")
    parser.add_argument("--json", type=Path, help="raw figures")
    args = parser.parse_args()
    found = {point: spreads(rows) for point, rows in by_point(args.results).items() if rows}
    if not found:
        raise PeerError(f"the engine gave no stamps in {args.results}")
    print("Differences in us, min / p50 / p99 / max over the requests of all valid runs\n")
    rows = []
    for point, columns in found.items():
        cells = [f"{each.min:.0f} / {each.p50:.0f} / {each.p99:.0f} / {each.max:.0f}" for each in columns.values()]
        rows.append([point, str(columns["ttft_us"].samples), *cells])
    print(table(["point", "requests", "way in", "seen earlier", "TTFT: ours - engine's", "E2E: ours - engine's"], rows))
    figures = {point: {name: each.as_json() for name, each in columns.items()} for point, columns in found.items()}
    write_json(args.json, {"points": figures})


if __name__ == "__main__":
    run_as_command(main)
