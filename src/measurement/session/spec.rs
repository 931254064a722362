//! What a sidecar is started with, and what an engine is loaded with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Registry;
use super::watchdog::Pace;
use crate::machine::device::{DeviceClass, Placement};
use crate::machine::environment::VllmSource;
use crate::question::config::Script;
use crate::question::fingerprint::named_files;
use crate::question::plan::StepApi;

/// What a sidecar is started with.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    /// The class of every engine that it loads.
    pub device: DeviceClass,
    /// An interpreter that can import vLLM.
    pub python: PathBuf,
    /// The vLLM that was looked up in it. A sidecar that has imported another one is refused.
    pub vllm: VllmSource,
    /// Folder that holds the package `bench_sidecar`.
    pub package: PathBuf,
    /// `libbench_ring.so` of this build.
    pub ring_library: PathBuf,
    /// Where the threads of the measurement run.
    pub placement: Placement,
    /// Where the sidecar's output goes.
    pub log: PathBuf,
    /// Added to the sidecar's environment.
    pub env: Vec<(String, String)>,
    /// Whether vLLM is imported; without it only scripted engines can be loaded.
    pub with_vllm: bool,
    /// How long an engine with work may give no sign before its run is given up.
    pub stall_limit: Duration,
    /// Whether a sidecar of an earlier command may be used, or this one be left behind; `None`: neither.
    pub warm: Option<Warm>,
}

/// The use of warm sidecars.
#[derive(Clone, Debug)]
pub struct Warm {
    /// Where they are found.
    pub registry: Registry,
    /// For how long the sidecar stays after the command, without another one; `None`: one that is started anew ends with it.
    pub keep: Option<Duration>,
    /// Version of vLLM's package as Python's metadata have it, for the commands that follow.
    pub vllm_package: Option<String>,
}

impl SidecarOptions {
    /// A step of the largest prefill on the slowest device takes less.
    pub const STALL_LIMIT: Duration = Duration::from_secs(120);

    /// Every variable that is set for the sidecar, over what it inherits; of two with one name the last counts.
    pub fn variables(&self) -> Vec<(String, String)> {
        let package = self.package.display();
        let python_path =
            self.vllm.python_path.as_ref().map_or(package.to_string(), |users| format!("{package}:{users}"));
        let mut variables = vec![
            ("PYTHONPATH".to_owned(), python_path),
            // Without it the working folder comes first: a `json.py` or a checkout's `vllm` there would be imported.
            ("PYTHONSAFEPATH".to_owned(), "1".to_owned()),
            ("PYTHONUNBUFFERED".to_owned(), "1".to_owned()),
            // Python takes an empty value for none.
            ("PYTHONWARNINGS".to_owned(), String::new()),
            ("PYTHONHOME".to_owned(), String::new()),
            ("VLLM_ENABLE_V1_MULTIPROCESSING".to_owned(), "0".to_owned()),
            ("VLLM_NO_USAGE_STATS".to_owned(), "1".to_owned()),
        ];
        let openmp = self.placement.openmp_environment(self.device);
        variables.extend(openmp.into_iter().map(|(name, value)| (name.to_owned(), value)));
        variables.extend(self.env.iter().cloned());
        variables
    }
}

/// The columns of `truth.csv`: a row for each token, as the script meant it and as the engine emitted it.
pub const TRUTH_HEADER: &str = "run,request,token,intended_ns,emitted_ns\n";

/// What an engine is loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineSpec {
    /// vLLM.
    Vllm {
        /// For vLLM's own parser: the model and everything that needs a reload.
        argv: Vec<String>,
        /// Which step function is called.
        step_api: StepApi,
        /// Added to the environment of the engine's process.
        env: Vec<(String, String)>,
    },
    /// Tokens on a schedule, in place of vLLM's.
    Scripted {
        /// What its requests do.
        script: Arc<Script>,
        /// Where it appends what it really did, `truth.csv`; the file exists.
        truth: PathBuf,
    },
}

impl EngineSpec {
    /// The engine's name in records and reports: `vllm` or `scripted`.
    pub fn engine_name(&self) -> &'static str {
        match self {
            EngineSpec::Vllm { .. } => "vllm",
            EngineSpec::Scripted { .. } => "scripted",
        }
    }

    /// What is known of its steps before the first: a script may let an engine be silent.
    pub(super) fn pace(&self) -> Pace {
        match self {
            EngineSpec::Vllm { .. } => Pace::default(),
            EngineSpec::Scripted { script, .. } => Pace::known(script.longest_gap_ns()),
        }
    }

    /// All that the engine depends on: a loaded engine is used again for a message that is the same.
    pub(super) fn load_message(&self, device: DeviceClass, placement: &Placement) -> serde_json::Value {
        let mut message = match self {
            EngineSpec::Vllm { argv, step_api, env } => {
                let env: BTreeMap<_, _> = env.iter().cloned().collect();
                let files = named_files(argv);
                serde_json::json!({"argv": argv, "step_api": step_api, "env": env, "device": device, "files": files})
            }
            EngineSpec::Scripted { script, truth } => serde_json::json!({"script": **script, "truth": truth}),
        };
        message["op"] = "load".into();
        message["cores"] = serde_json::json!(placement.engine_cores);
        message["nice"] = serde_json::json!(placement.engine_nice());
        // A command that measures refuses a folder that is not UTF-8; without it the engine stays where the sidecar is.
        let here = std::env::current_dir().ok().and_then(|here| here.into_os_string().into_string().ok());
        message["cwd"] = serde_json::json!(here);
        message
    }
}
