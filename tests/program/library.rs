//! The library without the command line.

use std::time::Duration;

use bench::machine::device::{DeviceClass, Placement, Topology};
use bench::machine::environment::{Host, Lock, assets, managed};
use bench::measurement::session::{Engine, EngineSpec, Event, RequestSpec, SessionError, Sidecar, SidecarOptions};
use bench::question::config::BUILTIN_MODEL_CONFIG;
use bench::question::plan::{Drive, Limits, StepApi};

use crate::{ARGS, one_engine};

fn options(folder: &std::path::Path) -> SidecarOptions {
    let host = Host::of_process();
    let python = managed(&host, &Lock::of_device(DeviceClass::Cpu), &mut |_| {}).unwrap();
    let assets = assets::lay_out(&host.cache_dir().unwrap()).unwrap();
    std::fs::write(folder.join("config.json"), BUILTIN_MODEL_CONFIG).unwrap();
    SidecarOptions {
        device: DeviceClass::Cpu,
        vllm: python.vllm_source(),
        python: python.path,
        package: assets.package,
        ring_library: assets.ring_library,
        placement: Placement::choose(&Topology::of_this_machine().unwrap()),
        log: folder.join("sidecar.log"),
        env: vec![("HF_HUB_OFFLINE".into(), "1".into())],
        with_vllm: true,
        stall_limit: SidecarOptions::STALL_LIMIT,
        warm: None,
    }
}

fn request(prompt: Vec<u32>, output_tokens: u32) -> RequestSpec {
    RequestSpec { prompt, output_tokens }
}

#[test]
fn a_request_that_cannot_be_served_is_refused_and_the_engine_goes_on() {
    let _one = one_engine();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let mut sidecar = Sidecar::start(&options(folder.path())).await.unwrap();
        let args = ARGS.replace("builtin:tiny-llama", &folder.path().display().to_string());
        let argv = args.split_ascii_whitespace().map(str::to_owned).collect();
        let mut engine =
            sidecar.load(&EngineSpec::Vllm { argv, step_api: StepApi::EngineCore, env: Vec::new() }).await.unwrap();
        let vocabulary = engine.facts().vocab_size;

        let good = request(vec![0, vocabulary - 1], 3);
        let foreign = request(vec![1, vocabulary, 2], 1);
        refused(&mut engine, [good.clone(), foreign], &["request 1", &format!("token id {vocabulary}"), "vocabulary"])
            .await;
        let long = request(vec![1; 2049], 1);
        refused(&mut engine, [good.clone(), long], &["request 1", "2049 prompt", "1 output", "max_model_len 2048"])
            .await;
        let long = request(vec![1; 2000], 49);
        refused(&mut engine, [long, good.clone()], &["request 0", "2000 prompt", "49 output", "max_model_len 2048"])
            .await;

        assert_eq!(tokens_of(&mut engine, &mut sidecar, good).await, 3);
        engine.shutdown().await;
        sidecar.shutdown().await;
    });
}

async fn refused(engine: &mut Engine, requests: [RequestSpec; 2], wanted: &[&str]) {
    let error = engine.stage(&requests, "refused").await.unwrap_err();
    assert!(matches!(error, SessionError::Refused(_)), "{error}");
    for text in wanted {
        assert!(error.to_string().contains(text), "{text:?} is not in: {error}");
    }
}

/// Output tokens that a request gives.
async fn tokens_of(engine: &mut Engine, sidecar: &mut Sidecar, request: RequestSpec) -> u32 {
    engine.stage(&[request], "good").await.unwrap();
    let mut window = engine.begin("test", Limits::default(), Drive::Free).await.unwrap();
    window.submit(&[0]).unwrap();
    let (mut tokens, mut is_over, mut events) = (0, false, Vec::new());
    while !is_over {
        events.clear();
        assert!(window.wait_for_events(&mut events, Duration::from_secs(60)).unwrap(), "the engine gives no sign");
        for event in &events {
            match event {
                Event::Token { count, .. } => tokens += count,
                Event::Finish(_) => window.end().unwrap(),
                Event::Ended => is_over = true,
                Event::Step(_) => {}
            }
        }
    }
    engine.ended(window, None, sidecar).await.unwrap();
    tokens
}
