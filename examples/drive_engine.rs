//! Drives a vLLM engine from Rust, without the command line: start it, submit, read token events, shut down.
//!
//!     cargo run --release --example drive_engine
//!
//! It runs on the managed Python environment, which is made first if need be, with a tiny model of random weights.

use std::time::Duration;

use bench::machine::device::{DeviceClass, Placement, Topology};
use bench::machine::environment::{Host, Lock, assets, managed};
use bench::measurement::session::{EngineSpec, Event, RequestSpec, Sidecar, SidecarOptions};
use bench::question::config::BUILTIN_MODEL_CONFIG;
use bench::question::plan::{Drive, Limits, StepApi};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A Python that has vLLM, the sidecar's files, and a model: a folder with nothing but its config.json.
    let host = Host::of_process();
    let python = managed(&host, &Lock::of_device(DeviceClass::Cpu), &mut |progress| eprintln!("{progress}"))?;
    let assets = assets::lay_out(&host.cache_dir()?)?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config.json"), BUILTIN_MODEL_CONFIG)?;

    let mut sidecar = Sidecar::start(&SidecarOptions {
        device: DeviceClass::Cpu,
        vllm: python.vllm_source(),
        python: python.path,
        package: assets.package,
        ring_library: assets.ring_library,
        placement: Placement::choose(&Topology::of_this_machine()?),
        log: folder.path().join("sidecar.log"),
        env: vec![("HF_HUB_OFFLINE".into(), "1".into())],
        with_vllm: true,
        stall_limit: SidecarOptions::STALL_LIMIT,
        warm: None,
    })
    .await?;
    let flags = "--load-format dummy --skip-tokenizer-init --enforce-eager --dtype float32 --max-model-len 1024 \
                 --kv-cache-memory-bytes 268435456";
    let mut argv = vec!["--model".to_owned(), folder.path().display().to_string()];
    argv.extend(flags.split_ascii_whitespace().map(str::to_owned));
    let mut engine = sidecar.load(&EngineSpec::Vllm { argv, step_api: StepApi::EngineCore, env: Vec::new() }).await?;
    let version = engine.facts().vllm_version.as_deref().unwrap_or("of unknown version");
    println!("vLLM {version}, loaded in {:.1} s", engine.load_s());

    // Prompts are token ids. The handle of a request is its place in the list.
    let prompt = |first: u32| (first..first + 32).collect();
    let requests = [0, 100].map(|first| RequestSpec { prompt: prompt(first), output_tokens: 8 });
    engine.stage(&requests, "example").await?;
    let mut window = engine.begin("example", Limits::default(), Drive::Free).await?;
    let submitted_ns = window.submit(&[0, 1])?;
    let (mut unfinished, mut tokens, mut events) = (requests.len(), 0, Vec::new());
    while unfinished > 0 {
        events.clear();
        if !window.wait_for_events(&mut events, Duration::from_secs(60))? {
            return Err("the engine has given no sign for a minute".into());
        }
        for event in &events {
            match event {
                Event::Token { request, step, count, emitted_ns, received_ns } => {
                    tokens += count;
                    let since_submit_us = (received_ns - submitted_ns) / 1000;
                    let transport_ns = received_ns - emitted_ns;
                    println!(
                        "step {step}: request {request}, {since_submit_us} us after submit, transport {transport_ns} ns"
                    );
                }
                Event::Finish(_) => unfinished -= 1,
                Event::Step(_) | Event::Ended => {}
            }
        }
    }
    window.end()?;
    let ended = engine.ended(window, None, &mut sidecar).await?;
    println!("{tokens} tokens in {} steps", ended.steps);
    assert_eq!(tokens, 16, "each request gives exactly what was asked");
    engine.shutdown().await;
    sidecar.shutdown().await;
    Ok(())
}
