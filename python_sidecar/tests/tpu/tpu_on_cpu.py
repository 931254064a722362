"""A sidecar whose TPU backend runs on JAX's CPU platform: `python tpu_on_cpu.py --socket PATH --ring-library PATH`.

For tests: platform, executor, runner and model are tpu-inference's own code, and their speed means nothing. `install`
replaces what needs the hardware; devices without coordinates are named by an engine argument, `DEVICE_INDEXES`.
"""

import json
import os
import sys
import time
from typing import Any

# Set before JAX is imported. The TPU_* keep libtpu from asking a metadata server what this machine is.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "tpu7x-8",
    "TPU_NAME": "fake",
    "TPU_WORKER_ID": "0",
}
DEVICE_INDEXES = {"sharding": {"sharding_strategy": {"device_indexes": [0]}}}
HBM_BYTES = 200 << 20  # really allocated, most of it as KV cache
# Names the file to which the witness writes.
WITNESS = "BENCH_TEST_WITNESS"


def install() -> None:
    """Replaces what only a TPU has. Before any engine is configured, and before the modules below are imported."""
    assert "tpu_inference.models.common.model_loader" not in sys.modules, "it holds the compiler options already"
    import jax
    import numpy as np
    import tpu_inference.layers.common.attention_interface as attention
    import tpu_inference.models.common.compiler_options as compiler
    import tpu_inference.utils
    from bench_sidecar import tpu
    from paged_attention import ragged_paged_attention

    tpu.PLATFORM = "cpu"
    compiler.get_step_fn_compiler_options = dict  # XLA for CPU refuses the options of XLA for TPU
    compiler.get_sampling_compiler_options = dict
    tpu_inference.utils.get_device_hbm_limit = lambda: HBM_BYTES  # a CPU device has no memory statistics
    attention.ragged_paged_attention = ragged_paged_attention

    # To a TPU an array is copied; to a CPU, JAX hands over the memory itself where it is aligned. The runner fills the
    # same buffers for the next step while this one still reads them: on a busy machine its tokens were others.
    put = tpu_inference.utils.general_device_put

    def put_a_copy(tensors: Any, *args: Any, **settings: Any) -> Any:
        copies = jax.tree_util.tree_map(lambda t: t.copy() if isinstance(t, np.ndarray) else t, tensors)
        return put(copies, *args, **settings)

    tpu_inference.utils.general_device_put = put_a_copy


def watch_transfers(path: str) -> None:
    """Has each transfer of tokens from the device to the host written to a file: a witness that knows no tap."""
    from tpu_inference.runner.tpu_runner import AsyncTPUModelRunnerOutput

    get_output = AsyncTPUModelRunnerOutput.get_output

    def watched(self: Any) -> Any:
        asked_ns = time.monotonic_ns()
        output = get_output(self)
        line = {"asked_ns": asked_ns, "there_ns": time.monotonic_ns(), "tokens": output.sampled_token_ids}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "requests": output.req_ids}) + "\n")
        return output

    AsyncTPUModelRunnerOutput.get_output = watched


if __name__ == "__main__":
    install()
    watch_transfers(os.environ[WITNESS])
    from bench_sidecar.__main__ import main

    main()
