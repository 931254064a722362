"""Greedy tokens of an engine in this process: reads `{argv, prompts, output_tokens}`, prints a list per prompt."""

import json
import sys

from bench_sidecar.engine import Engine


def main() -> None:
    asked = json.load(sys.stdin)
    engine = Engine(asked["argv"], "engine_core")
    tokens: dict[str, list[int]] = {}

    def keep(_entered_ns: int, requests: list[str], sampled: list[list[int]]) -> None:
        for request, row in zip(requests, sampled, strict=True):
            tokens.setdefault(request.partition("-")[0], []).extend(row)

    engine.tap.push = keep
    for handle, prompt in enumerate(asked["prompts"]):
        engine.stage(handle, prompt, asked["output_tokens"], "greedy")
        engine.submit(handle)
    while engine.has_work():
        engine.step()
    print(json.dumps([tokens[str(handle)] for handle in range(len(asked["prompts"]))]))


if __name__ == "__main__":
    main()
