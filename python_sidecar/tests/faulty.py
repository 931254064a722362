"""A part of the model that fails when the test wants it: vLLM loads it by name (`--logits-processors`)."""

from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor


class RaisesInABatchOfThree(LogitsProcessor):  # type: ignore[misc]  # vLLM's types are not followed
    def __init__(self, *_: Any) -> None:
        pass

    def is_argmax_invariant(self) -> bool:
        return False  # greedy sampling would pass it by

    def update_state(self, batch_update: Any) -> None:
        pass

    def apply(self, logits: Any) -> Any:
        if len(logits) == 3:
            raise ArithmeticError("on purpose")
        return logits
