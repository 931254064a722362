"""What only the class tpu needs: JAX's platform, and the programs that JAX compiles."""

import os
import time
from typing import Any

from .records import EngineError

# vLLM says "tpu" wherever libtpu can be imported, so JAX is asked too. Only tests change this.
PLATFORM = "tpu"
# While it is "1", tpu-inference raises an error instead of compiling the model inside a step.
FORBID_COMPILING = "VLLM_XLA_CHECK_RECOMPILATION"
COMPILED = "/jax/core/compile/backend_compile_duration"
# Of a run whose every step compiles something, this many tell enough.
MAX_COMPILATIONS = 1000


def prepare() -> None:
    """Before an engine is built: asserts that JAX runs on a TPU, and forbids compiling inside a step.

    EngineError with what JAX found. A value of the variable that the user has set is left as it is.
    """
    import jax

    try:
        device = jax.devices()[0]
    except RuntimeError as err:
        raise EngineError(f"JAX cannot use the TPU: {err}") from err
    if device.platform != PLATFORM:
        asked = os.environ.get("JAX_PLATFORMS")
        raise EngineError(
            f"JAX runs on {device.platform}, not on a TPU (JAX_PLATFORMS is {asked or 'not set'}). With "
            "JAX_PLATFORMS=tpu it says why it cannot use the TPU; without, it falls back without a word"
        )
    os.environ.setdefault(FORBID_COMPILING, "1")


def assert_untouched() -> None:
    """A TPU belongs to one process: whoever forks engines must not have opened it. EngineError if it has."""
    from jax._src import xla_bridge

    is_opened = getattr(xla_bridge, "backends_are_initialized", None)
    if is_opened is not None and is_opened():
        raise EngineError("JAX was initialised before the engine process was forked: the TPU cannot be used here")


def facts() -> dict[str, Any]:
    """What JAX is, and what it runs on."""
    import jax

    devices = jax.devices()
    return {
        "jax_version": jax.__version__,
        "jax_platform": devices[0].platform,
        "jax_device_kind": devices[0].device_kind,
        "jax_devices": len(devices),
        "forbids_compiling": os.environ.get(FORBID_COMPILING) == "1",
    }


class Compilations:
    """The programs that JAX compiles, or takes from its cache on the disk, from the moment that this is made."""

    def __init__(self) -> None:
        import jax.monitoring

        self._seen: list[dict[str, Any]] = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def forget(self) -> None:
        """Begins anew."""
        self._seen.clear()

    def seen(self) -> list[dict[str, Any]]:
        """When each was ready, in nanoseconds of CLOCK_MONOTONIC, and its name."""
        return list(self._seen)

    def _listen(self, event: str, _seconds: float, **about: Any) -> None:
        if event == COMPILED and len(self._seen) < MAX_COMPILATIONS:
            self._seen.append({"ready_ns": time.monotonic_ns(), "program": str(about.get("fun_name", "unnamed"))})
