"""vLLM, and nothing else: the only file that imports it.

It builds an `LLMEngine` with a tap in its executor, and offers what the driver needs of it: stage, submit, step, drain,
reset. Names that differ between vLLM versions are looked up before they are relied on; `self_test` says what was found.
"""

import argparse
import contextlib
import difflib
import functools
import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import vllm
from vllm import EngineArgs, SamplingParams
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.executor import Executor

from . import failures, log, model_check, protocol, settings, tpu, weights
from .records import ABORT, EngineError, Finish, Staged, handle_of, to_ns
from .tap import Tap, no_push, tapped
from .workers import Workers, deaf_to_a_job

# The version that everything below was read off and tested with.
KNOWN_VERSION = "0.32.0"
# Imported by the first engine anyway; done once in the fork server, each engine process has them for nothing.
LAZY_MODULES = (
    "vllm.v1.engine.core",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.executor.uniproc_executor",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.model_loader.dummy_loader",
)
# The same by device. On a GPU the worker's modules are left to the engine process: what they touch of the device on
# import must not happen before the fork. Those of a TPU don't start JAX, which is asserted after the fork.
LAZY_MODULES_OF_DEVICE = {
    "cpu": ("vllm.v1.worker.cpu_worker", "vllm.v1.worker.cpu_model_runner"),
    "tpu": ("tpu_inference.worker.tpu_worker",),
}
MAX_DRAIN_STEPS = 10_000
# What of a model's configuration its parameters and the costs of a token follow from.
MODEL_KEYS = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "attention_bias",
    "mlp_bias",
    "sliding_window",
)

# The arguments that a report has as labels of its own, or that decide how many ranks an engine has.
LABELS = (
    "model",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "prefill_context_parallel_size",
    "data_parallel_size",
    "quantization",
)

Message = dict[str, Any]


class _ArgumentError(Exception):
    pass


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM's types are not followed
    """vLLM's own parser, raising instead of leaving the process."""

    # The names of the arguments that were given, in a file of `--config` too.
    given: frozenset[str] = frozenset()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        """As vLLM's `parse_args` calls it, once it has brought the flags into their usual form."""
        self.given = frozenset(self._names(args))
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            raise _ArgumentError("vLLM does not know " + ", ".join(map(repr, unknown)) + self._nearest(unknown[0]))
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """What argparse would print before it leaves."""
        raise _ArgumentError(message)

    def _names(self, words: Sequence[str]) -> Iterator[str]:
        """The name of each argument among `words`. argparse would take an abbreviation too, and its label would not
        know: _ArgumentError names the whole flag.
        """
        known = self._known()
        for word in words:
            flag = word.partition("=")[0]
            if flag in known:
                yield known[flag]
            elif (whole := [each for each in known if each.startswith(flag)]) and _is_flag(flag):
                raise _ArgumentError(f"{flag} is an abbreviation: give the whole flag, {' or '.join(sorted(whole))}")

    def _known(self) -> dict[str, str]:
        """All flags, each with the name of its argument."""
        return {option: action.dest for action in self._actions for option in action.option_strings}

    def _nearest(self, flag: str) -> str:
        near = difflib.get_close_matches(flag.split("=")[0], self._known(), n=1)
        return f"; did you mean {near[0]}?" if near else ""


def _is_flag(word: str) -> bool:
    """Whether argparse would look for a flag in `word`: not in a number, in a text, or where the flags end."""
    return word.startswith("-") and not word[1:2].isdigit() and " " not in word and word not in ("-", "--")


class Arguments(NamedTuple):
    """What vLLM's parser makes of an engine's arguments."""

    engine: EngineArgs
    # Those that were given, by name.
    given: dict[str, Any]


def preload() -> None:
    """Imports what an engine process will need. A module that this version does not have is left to the engine."""
    for name in LAZY_MODULES + LAZY_MODULES_OF_DEVICE.get(device_of_vllm(), ()):
        try:
            importlib.import_module(name)
        except ImportError as err:
            log.say(f"{name} was not preloaded: {err}")


def _device_kind() -> str | None:
    """The name of the accelerator as its driver gives it; None for the host's own processors."""
    from vllm.platforms import current_platform

    if current_platform.is_cuda():
        return str(current_platform.get_device_name())
    if current_platform.is_tpu():
        return str(importlib.import_module("jax").devices()[0].device_kind)
    return None


def _model_config(config: Any) -> Message:
    """What the costs of a token follow from, as the loaded model has it."""
    return {key: getattr(config, key, None) for key in MODEL_KEYS}


def device_of_vllm() -> str:
    """The class of device that this vLLM was built for, or found: `cpu`, `cuda`, `tpu`, or another one of its own."""
    from vllm.platforms import current_platform

    return str(current_platform.device_type)


def assert_device(device: str) -> None:
    """EngineError unless this vLLM runs on `device`: under a wrong label every number is wrong."""
    if (found := device_of_vllm()) != device:
        raise EngineError(
            f"this vLLM runs on {found}, and {device} was asked for; give --python one that was installed for {device}"
        )


def vllm_version() -> str:
    """vLLM's own version, without a local part (`+cpu`)."""
    return str(vllm.__version__).split("+")[0]


def vllm_file() -> str | None:
    """The file that vLLM was imported from, without symbolic links."""
    return os.path.realpath(vllm.__file__) if vllm.__file__ else None


@functools.cache  # making it takes most of the time of a check
def _parser() -> _Parser:
    parser = _Parser(prog="vllm", add_help=False, allow_abbrev=False)
    EngineArgs.add_cli_args(parser)
    return parser


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """`argv` through vLLM's own parser. EngineError with its message, in which an unknown flag is named, or with the
    explanation of what vLLM refuses.
    """
    parser = _parser()
    try:
        options = parser.parse_args(list(argv))
    except (_ArgumentError, argparse.ArgumentTypeError, ValueError, TypeError, OSError) as err:
        raise EngineError(str(err)) from None
    given = {name: getattr(options, name, None) for name in parser.given}
    try:
        return Arguments(EngineArgs.from_cli_args(options), given)  # looks for the model where the hub is offline
    except (ValueError, TypeError, OSError) as err:
        raise EngineError(failures.explain(err) or str(err)) from err


def check_arguments(argv: Sequence[str]) -> Message:
    """What is wrong with `argv` (`error`: null if nothing is), and the values of LABELS that vLLM's parser reads
    (`parsed`, without those that this version does not have). A model whose files say that it cannot be measured is an
    error, too.
    """
    try:
        arguments = parse_arguments(argv)
    except EngineError as err:
        return {"error": {"message": str(err)}}
    problem = check_model(arguments.engine)
    if problem is not None:
        return {"error": {"message": problem}}
    # Where the hub is offline, vLLM puts the model's folder in the place of its name: what was given is the label.
    read = {**vars(arguments.engine), **arguments.given}
    parsed = {label: read[label] for label in LABELS if label in read}
    return {"error": None, "parsed": parsed}


class Engine:
    """One loaded engine. Everything is called from one thread."""

    def __init__(self, argv: Sequence[str], step_api: str, device: str | None = None) -> None:
        self.warnings: list[str] = []
        self.tap = Tap()
        if device is not None:
            assert_device(device)
        arguments = parse_arguments(argv)
        self._assert_untouched_device()
        config, executor = self._build(arguments.engine)
        self.config = config
        self._given = arguments.given
        self.executor_name = executor.__name__
        self._vocab_size = int(config.model_config.get_vocab_size())
        self.core = self.llm.engine_core.engine_core
        self.scheduler = self.core.scheduler
        self.workers = Workers(getattr(self.core, "model_executor", None))
        self._limits = _live_limits(self.scheduler)
        self._built = {name: getattr(self.scheduler, attribute) for name, attribute in self._limits.items()}
        self._staged: dict[int, Staged] = {}
        self._outputs: Any = None
        self.compilations = tpu.Compilations() if self._is_jax_here else None
        self.speculates = getattr(config, "speculative_config", None) is not None
        self._use_llm_step = step_api == "llm_engine"
        if self._use_llm_step:
            self._keep_core_outputs()

    def _build(self, arguments: EngineArgs) -> tuple[Any, type[Any]]:
        """Loads the engine; gives its configuration and the executor that the platform chose."""
        config = arguments.create_engine_config()
        # Workers in processes of their own hold the TPU, and this one must not ask for it.
        self._is_jax_here = device_of_vllm() == "tpu" and config.parallel_config.distributed_executor_backend == "uni"
        if self._is_jax_here:
            tpu.prepare()
        executor = Executor.get_class(config)
        with deaf_to_a_job() if config.parallel_config.world_size > 1 else contextlib.nullcontext():
            self.llm = LLMEngine(vllm_config=config, executor_class=tapped(executor, self.tap), log_stats=True)
        return config, executor

    # ---- what it is ----

    def facts(self) -> Message:
        """What the report says of this engine."""
        import torch

        cache, scheduler, model = self.config.cache_config, self.config.scheduler_config, self.config.model_config
        caching = bool(cache.enable_prefix_caching)
        return {
            "vllm_version": vllm_version(),
            "prefix_block_size": int(cache.block_size) if caching else None,
            "max_model_len": int(model.max_model_len),
            "vocab_size": self._vocab_size,
            "num_kv_blocks": int(cache.num_gpu_blocks) if cache.num_gpu_blocks else None,
            "async_scheduling": bool(scheduler.async_scheduling),
            "prefix_caching": caching,
            "max_num_seqs": int(self._built["max_num_seqs"]),
            "max_num_batched_tokens": int(self._built["max_num_batched_tokens"]),
            "weights": self._weights(),
            "settings": self._settings(),
            "other": {
                "dtype": str(model.dtype).removeprefix("torch."),
                "executor": self.executor_name,
                "torch_version": torch.__version__,
                "torch_threads": torch.get_num_threads(),
                "engine_cores": sorted(os.sched_getaffinity(0)),
                "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
                "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
                "enforce_eager": bool(model.enforce_eager),
                "chunked_prefill": bool(scheduler.enable_chunked_prefill),
                "kv_cache_dtype": str(cache.cache_dtype),
                "world_size": int(self.config.parallel_config.world_size),
                "device_kind": _device_kind(),
                "model_config": _model_config(model.hf_text_config),
                "sampling": "greedy, ignore_eos",
                **(tpu.facts() if self._is_jax_here else {}),
            },
        }

    def _weights(self) -> Message | None:
        """What the workers found their models to hold; None, with a warning, where that does not work."""
        try:
            found = weights.combine(self.core.model_executor.collective_rpc(weights.describe))
        except Exception as err:  # of any kind: no reason not to measure, and the verdict asks for what is missing
            self.warnings.append(f"the loaded weights could not be looked at: {type(err).__name__}: {err}")
            return None
        if found is None:
            self.warnings.append("the loaded weights could not be looked at: a worker of an unknown kind")
        return found

    def _settings(self) -> list[Message] | None:
        """What the arguments ask for and what the loaded engine has; None, with a warning, where that does not work."""
        try:
            workers = settings.combine(self.core.model_executor.collective_rpc(settings.describe))
            return settings.compare(self._given, settings.Loaded(self.config, self.scheduler, workers))
        except Exception as err:  # as for the weights
            self.warnings.append(f"the loaded settings could not be looked at: {type(err).__name__}: {err}")
            return None

    def self_test(self) -> list[str]:
        """Generates a few tokens and checks what the rest of this file relies on; returns what was checked.

        EngineError names what is missing.
        """
        needed = {
            "EngineCore.step_fn": (self.core, "step_fn"),
            "EngineCore.post_step": (self.core, "post_step"),
            "EngineCore.preprocess_add_request": (self.core, "preprocess_add_request"),
            "EngineCore.reset_prefix_cache": (self.core, "reset_prefix_cache"),
            "Scheduler.has_requests": (self.scheduler, "has_requests"),
            "Scheduler.finish_requests": (self.scheduler, "finish_requests"),
            "InputProcessor.process_inputs": (self.llm.input_processor, "process_inputs"),
        }
        missing = [name for name, (owner, attribute) in needed.items() if not hasattr(owner, attribute)]
        if missing:
            raise EngineError(f"vLLM {vllm_version()} lacks what bench relies on: {', '.join(missing)}")
        checked = [*needed, *(f"Scheduler.{attribute}" for attribute in self._limits.values())]
        if (tokens := self._generate()) > 0:
            checked.append(f"{tokens} tokens through the tap, equal to the engine's outputs")
        if vllm_version() != KNOWN_VERSION:
            self.warnings.append(
                f"vLLM {vllm_version()} is not the version this sidecar was tested with ({KNOWN_VERSION}); "
                f"checked at load: {', '.join(checked)}"
            )
        return checked

    def _generate(self) -> int:
        """Generates a few tokens, as many as the model has room for; gives how many."""
        prompt, wanted = _test_request(int(self.config.model_config.max_model_len), self._vocab_size)
        if wanted == 0:
            self.warnings.append("max_model_len 1 leaves no room for a token: the engine was not tested at its load")
            return 0
        seen: list[int] = []
        given: list[int] = []
        self.tap.push = lambda _ns, _ids, sampled: seen.extend(token for row in sampled for token in row)
        self.stage(0, prompt, wanted, salt="self-test")
        self.submit(0)
        finished = None
        for _ in range(64):
            ended = self.step()
            given.extend(token for output in self._core_outputs() for token in output.new_token_ids)
            if ended:
                finished = ended[0]
                break
        self.tap.push = no_push
        self.drain()
        self.reset()
        if finished is None or finished.output_tokens != wanted or seen[:wanted] != given or len(given) != wanted:
            raise EngineError(
                f"the self-test asked for {wanted} tokens; the engine gave {len(given)}, the tap saw {len(seen)}: "
                f"this vLLM ({vllm_version()}) cannot be measured"
            )
        if finished.queued_ns == protocol.ABSENT_NS or finished.scheduled_ns == protocol.ABSENT_NS:
            self.warnings.append("the engine gives no QUEUED and SCHEDULED stamps: queue and prefill times are null")
        return wanted

    # ---- requests ----

    def stage(self, handle: int, prompt: list[int], output_tokens: int, salt: str) -> None:
        """Builds vLLM's request objects, so that a submit in the window is a handle. EngineError if vLLM refuses."""
        room = self.config.model_config.max_model_len - len(prompt)
        if 0 < room < output_tokens:  # vLLM takes it, and stops early without a word
            raise EngineError(f"max_model_len would cut request {handle} to {room} of {output_tokens} output tokens")
        if prompt and max(prompt) >= self._vocab_size:  # without a tokenizer vLLM takes it, and fails inside a step
            raise EngineError(
                f"request {handle} has token id {max(prompt)}, outside the vocabulary of {self._vocab_size} ids "
                f"(0 to {self._vocab_size - 1})"
            )
        params = SamplingParams(temperature=0.0, max_tokens=output_tokens, ignore_eos=True, detokenize=False)
        try:
            core_request = self.llm.input_processor.process_inputs(
                f"{handle}-{salt}",
                {"type": "token", "prompt_token_ids": prompt},
                params,
                supported_tasks=self.llm.get_supported_tasks(),
            )
            core_request.cache_salt = salt
            core_request.external_req_id = core_request.request_id
            request, _wave = self.core.preprocess_add_request(core_request)
        except Exception as err:  # vLLM's validation errors share no base class
            raise EngineError(f"vLLM refuses request {handle}: {err}") from err
        self._staged[handle] = Staged(handle, core_request, request)

    def unstage(self) -> None:
        """Forgets all staged requests of the run before."""
        self._staged.clear()

    def submit(self, handle: int) -> bool:
        """Hands a staged request to the engine; False if there is no such request or it was submitted before."""
        staged = self._staged.get(handle)
        if staged is None or staged.is_submitted:
            return False
        staged.is_submitted = True
        if self._use_llm_step:
            self.llm.output_processor.add_request(staged.core_request, None, None, 0)
        self.core.add_request(staged.request)
        return True

    def submit_to_both(self, handle: int) -> None:
        """Hands a staged request to the core, and to LLMEngine's output side too, so that either can be stepped."""
        staged = self._staged[handle]
        staged.is_submitted = True
        self.llm.output_processor.add_request(staged.core_request, None, None, 0)
        self.core.add_request(staged.request)

    def forget_outputs(self) -> None:
        """Takes all requests out of LLMEngine's output side."""
        ids = [staged.request.request_id for staged in self._staged.values()]
        self.llm.output_processor.abort_requests(ids, internal=True)

    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.scheduler.has_requests() or self.core.batch_queue)

    # ---- stepping ----

    def is_under_way(self) -> bool:
        """Whether a batch was handed to the model whose tokens are to come: only under async scheduling."""
        return self.tap.under_way > 0

    def step(self) -> list[Finish]:
        """One engine step; gives the requests that ended in it. Whatever vLLM raises comes through; the engine is dead
        then.
        """
        self.tap.executed = None
        if self._use_llm_step:
            self.llm.step()
        else:
            outputs, executed = self.core.step_fn()
            self.core.post_step(executed)
            self._outputs = outputs.get(0) if outputs else None
        return self._collect_finished()

    def executed(self) -> Any:
        """The SchedulerOutput whose tokens came out of the last step; None if none came."""
        return self.tap.executed

    def statistics(self) -> Any:
        """The SchedulerStats after the last step; None if it gave none."""
        return self._outputs.scheduler_stats if self._outputs is not None else None

    def drafted(self) -> tuple[int, int, int] | None:
        """Drafts, tokens drafted, tokens accepted in the last step; None if nothing was, or this vLLM does not say."""
        stats = getattr(self.statistics(), "spec_decoding_stats", None)
        if stats is None:
            return None
        return int(stats.num_drafts), int(stats.num_draft_tokens), int(stats.num_accepted_tokens)

    def _keep_core_outputs(self) -> None:
        """`LLMEngine.step` hides the core's outputs: keep them as they pass."""
        client = self.llm.engine_core
        get_output = client.get_output

        def keep() -> Any:
            self._outputs = get_output()
            return self._outputs

        client.get_output = keep

    def _core_outputs(self) -> list[Any]:
        return self._outputs.outputs if self._outputs is not None else []

    def _collect_finished(self) -> list[Finish]:
        """Takes the engine's stamps from the outputs of the step, and what ended in it."""
        finished: list[Finish] = []
        for output in self._core_outputs():
            if output.events is None and output.prefill_stats is None and output.finish_reason is None:
                continue
            staged = self._staged.get(handle_of(output.request_id))
            if staged is None:
                continue
            finish = staged.take(output, to_ns(self._outputs.timestamp))
            if finish is not None:
                finished.append(finish)
        return finished

    # ---- between runs ----

    def lower_limits(self, limits: dict[str, int | None]) -> None:
        """Sets the scheduler's live limits; those not given are as built. EngineError above what was built."""
        for name, attribute in self._limits.items():
            built = self._built[name]
            value = limits.get(name)
            if value is not None and not 1 <= value <= built:
                raise EngineError(f"{name} {value} is not between 1 and the {built} that the engine was built with")
            setattr(self.scheduler, attribute, built if value is None else value)

    def drain(self) -> list[Finish]:
        """Aborts what is unfinished and steps until nothing is left; returns the aborted ones.

        Tokens of steps that are still under way are the engine's to discard, so they are kept from the tap.
        """
        open_requests = [s for s in self._staged.values() if s.is_submitted and not s.request.is_finished()]
        if open_requests:
            ids = [staged.request.request_id for staged in open_requests]
            if self._use_llm_step:
                self.llm.output_processor.abort_requests(ids, internal=True)
            self.core.abort_requests(ids)
        push, self.tap.push = self.tap.push, no_push
        try:
            self._step_until_idle()
        finally:
            self.tap.push = push
        return [staged.finish(ABORT, protocol.ABSENT_NS) for staged in open_requests]

    def _step_until_idle(self) -> None:
        for _ in range(MAX_DRAIN_STEPS):
            if not self.has_work():
                return
            self.step()
        raise EngineError(f"the engine still has work {MAX_DRAIN_STEPS} steps after everything was aborted")

    def reset(self) -> bool:
        """Empties the prefix cache and the multimodal caches; False if the engine would not."""
        self.drain()  # a synchronous engine lets go of finished requests one step later
        done = bool(self.core.reset_prefix_cache())
        self.llm.reset_mm_cache()
        return done

    def _assert_untouched_device(self) -> None:
        """A forked process cannot use a CUDA context of its parent: the import must not have made one."""
        import torch

        if torch.cuda.is_initialized():
            raise EngineError("CUDA was initialised before the engine process was forked: it cannot be used here")
        if device_of_vllm() == "tpu":
            tpu.assert_untouched()


def _test_request(max_model_len: int, vocab_size: int) -> tuple[list[int], int]:
    """A prompt and a number of tokens to generate: three and two, or as many as the model has room for."""
    wanted = max(min(2, max_model_len - 1), 0)
    return [token % vocab_size for token in range(1, 1 + min(3, max_model_len - wanted))], wanted


def _live_limits(scheduler: Any) -> dict[str, str]:
    """Our name of each live limit, and the scheduler's attribute of this version. EngineError if there is none."""
    found = {}
    for name, candidates in {
        "max_num_seqs": ("max_num_active_reqs", "max_num_running_reqs"),
        "max_num_batched_tokens": ("max_num_scheduled_tokens",),
    }.items():
        attribute = next((each for each in candidates if hasattr(scheduler, each)), None)
        if attribute is None:
            raise EngineError(f"this vLLM's scheduler has none of {', '.join(candidates)}")
        found[name] = attribute
    return found


def check_model(arguments: EngineArgs) -> str | None:
    """Why the model of these arguments cannot be measured, as far as its files on this machine tell; None otherwise."""
    hub = importlib.import_module("huggingface_hub")
    model = str(arguments.model)
    if "://" in model or os.environ.get("VLLM_USE_MODELSCOPE", "0").lower() in ("1", "true"):
        return None  # read from somewhere else
    cached = None
    if not os.path.exists(model):
        try:
            found = hub.try_to_load_from_cache(model, "config.json", revision=getattr(arguments, "revision", None))
        except ValueError:  # no name that the hub could have
            return None
        cached = os.path.dirname(found) if isinstance(found, str) else None
    return model_check.refusal(model_check.Asked.of(arguments, cached), _known_models())


@functools.cache
def _known_models() -> model_check.Known:
    """What is known of models here, by tables of names. A table that this version does not have refuses nothing."""
    import torch

    transformers = importlib.import_module("transformers")
    try:
        registry = importlib.import_module("vllm.model_executor.models.registry")
        supported = frozenset(registry.ModelRegistry.get_supported_archs())
    except (ImportError, AttributeError):
        registry, supported = None, frozenset()

    def names(*tables: str) -> frozenset[str]:
        return frozenset(name for table in tables for name in getattr(registry, table, ()))

    def has_kernel(name: str) -> bool:
        # Every build has this one: without it the library is not loaded, and nothing can be said.
        return hasattr(torch.ops._C, name) or not hasattr(torch.ops._C, "rms_norm")

    return model_check.Known(
        device=device_of_vllm(),
        generating=names("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS"),
        pooling=names(
            "_EMBEDDING_MODELS",
            "_LATE_INTERACTION_MODELS",
            "_REWARD_MODELS",
            "_TOKEN_CLASSIFICATION_MODELS",
            "_SEQUENCE_CLASSIFICATION_MODELS",
        ),
        architectures=supported,
        removed=dict(getattr(registry, "_PREVIOUSLY_SUPPORTED_MODELS", {})),
        model_types=_model_types(),
        has_class=frozenset(dir(transformers)).__contains__,
        has_kernel=has_kernel,
    )


def _model_types() -> frozenset[str]:
    """Model types whose configuration is read without code of the model's own. Plugins have registered theirs."""
    try:
        of_vllm = importlib.import_module("vllm.transformers_utils.config")._CONFIG_REGISTRY
        of_transformers = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    except (ImportError, AttributeError):
        return frozenset()
    return frozenset(of_vllm) | frozenset(of_transformers)
