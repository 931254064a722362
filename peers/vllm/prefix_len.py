#!/usr/bin/env python3
"""What `--prefix-len` of `vllm bench throughput` really gives: lengths of the prompts, and which of them hit the cache.

usage: "$(target/release/bench env --device cpu)" peers/vllm/prefix_len.py [--keep DIR] [--json FILE]

The workload that is meant: 64 prompts of 512 tokens, of which the first 475 are shared (summarization-4k, an
eighth), all submitted at once, blocks of 32 tokens. Each row is one command on a new engine. The cached tokens of
each request are what the engine itself counted (`RequestOutput.num_cached_tokens`). `bench` measures the same with
`configs/workloads-cpu.yaml`.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from common import PeerError, Vllm, machine, run_as_command, table, write_json, write_model

PROMPTS = 64
INPUT_TOKENS = 512
PREFIX_TOKENS = 475
OUTPUT_TOKENS = 32
BLOCK_TOKENS = 32
MAX_BATCHED_TOKENS = 2048
ENGINE_ARGUMENTS = [
    *("--load-format", "dummy"),
    "--enforce-eager",
    *("--dtype", "float32"),
    *("--max-model-len", "2048"),
    *("--max-num-seqs", str(PROMPTS)),
    *("--max-num-batched-tokens", str(MAX_BATCHED_TOKENS)),
    *("--block-size", str(BLOCK_TOKENS)),
    *("--kv-cache-memory-bytes", "1073741824"),
    "--enable-prefix-caching",
]
# Keeps what the engine counted of the measured requests, which come last.
KEEP_COUNTS = """
import json, os
import vllm.benchmarks.throughput as throughput
measured = throughput._run_vllm_requests
def keeping(*args, **given):
    elapsed, outputs = measured(*args, **given)
    counts = [[len(each.prompt_token_ids), each.num_cached_tokens] for each in outputs]
    open(os.environ["KEEP_COUNTS"], "w").write(json.dumps(counts))
    return elapsed, outputs
throughput._run_vllm_requests = keeping
"""


@dataclass
class Found:
    """What one command ran."""

    command: str
    prompt_tokens: int
    cached_tokens: list[int]

    def row(self) -> list[str]:
        """Of the table: the design is that of the workload that is meant."""
        design = (PREFIX_TOKENS // BLOCK_TOKENS) * BLOCK_TOKENS
        rate = sum(self.cached_tokens) / (self.prompt_tokens * len(self.cached_tokens))
        missed = sum(tokens == 0 for tokens in self.cached_tokens)
        per_request = f"{min(self.cached_tokens)} to {max(self.cached_tokens)}"
        cells = [self.command, str(self.prompt_tokens), per_request, str(missed), f"{rate * 100:.1f}"]
        return [*cells, f"{design / INPUT_TOKENS * 100:.1f}"]


def run(vllm: Vllm, model: Path, name: str, lengths: list[str]) -> Found:
    """`vllm bench throughput` with these lengths. PeerError if prompts differ in length or hits were not counted."""
    counts = vllm.folder / f"{name}.json"
    arguments = ["bench", "throughput", "--dataset-name", "random", "--num-prompts", str(PROMPTS), *lengths]
    arguments += ["--random-output-len", str(OUTPUT_TOKENS), "--disable-detokenize"]
    arguments += ["--model", str(model), *ENGINE_ARGUMENTS]
    vllm.run(arguments, name, KEEP_COUNTS, KEEP_COUNTS=str(counts))
    found = json.loads(counts.read_text())
    prompts = {prompt for prompt, _ in found}
    if len(prompts) != 1 or any(cached is None for _, cached in found):
        raise PeerError(f"{name}: prompts of {sorted(prompts)} tokens, or hits that were not counted")
    return Found(" ".join(lengths), prompts.pop(), [cached for _, cached in found])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What --prefix-len of vllm bench throughput really gives.")
    parser.add_argument("--json", type=Path, help="raw figures")
    parser.add_argument("--keep", type=Path, help="folder for results and logs [default: one that is removed]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        vllm = Vllm(folder)
        model = folder / "model"
        write_model(model)
        rest = INPUT_TOKENS - PREFIX_TOKENS
        prefix = ["--random-prefix-len", str(PREFIX_TOKENS)]
        found = [
            run(vllm, model, "as-meant", ["--random-input-len", str(INPUT_TOKENS), *prefix]),
            run(vllm, model, "by-hand", ["--random-input-len", str(rest), *prefix]),
            run(vllm, model, "warmed", ["--random-input-len", str(rest), *prefix, "--num-warmups", "4"]),
        ]
    print(f"vLLM {vllm.version}; {machine()}\n")
    header = ["lengths given", "prompt tokens", "cached per request", "requests without a hit", "hit rate %", "meant %"]
    print(table(header, [each.row() for each in found]))
    write_json(args.json, {"vllm": vllm.version, "machine": machine(), "commands": [asdict(each) for each in found]})


if __name__ == "__main__":
    run_as_command(main)
