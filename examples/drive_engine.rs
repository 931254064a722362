//! Drives a vLLM engine from Rust, without the command line: start, submit, read token events, shut down.
//!
//!     cargo run --release --example drive_engine -- PYTHON PACKAGE_DIR RING_LIBRARY
use std::time::Duration;

use bench::device::{Placement, Topology};
use bench::plan::{Drive, Limits, StepApi};
use bench::session::{EngineSpec, Event, RequestSpec, Sidecar, SidecarOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let options = SidecarOptions {
        python: args.next().unwrap().into(),
        package: args.next().unwrap().into(),
        ring_library: args.next().unwrap().into(),
        placement: Placement::choose(&Topology::of_this_machine()?),
        log: std::env::temp_dir().join("drive_engine.log"),
        env: Vec::new(),
    };
    let mut sidecar = Sidecar::start(&options).await?;
    let argv = "--model configs/models/tiny-llama --load-format dummy --skip-tokenizer-init --enforce-eager --max-model-len 2048 --max-num-seqs 64 --kv-cache-memory-bytes 1073741824 --dtype float32";
    let spec = EngineSpec { argv: shlex::split(argv).unwrap(), step_api: StepApi::EngineCore };
    let mut engine = sidecar.load(&spec).await?;
    println!("{:?}", engine.facts());
    for batch in [1u32, 8, 64] {
        let requests: Vec<_> = (0..batch)
            .map(|i| RequestSpec { prompt: (0..128).map(|t| (t * 7 + i) % 2000).collect(), output_tokens: 64 })
            .collect();
        engine.reset().await?;
        engine.stage(&requests, "example").await?;
        let mut window = engine.begin(Limits::default(), Drive::Free).await?;
        let submitted_ns = window.submit(&(0..batch).collect::<Vec<_>>())?;
        let mut open = batch;
        let mut events = Vec::new();
        let mut transport = Vec::new();
        let mut tap = Vec::new();
        let mut first = 0;
        while open > 0 {
            events.clear();
            window.wait_for_events(&mut events, Duration::from_secs(60))?;
            for event in &events {
                match event {
                    Event::Token { emitted_ns, received_ns, .. } => {
                        transport.push(received_ns - emitted_ns);
                        if first == 0 {
                            first = received_ns - submitted_ns
                        }
                    }
                    Event::Step(step) => tap.push(step.tap_push_ns),
                    Event::Finish(_) => open -= 1,
                    _ => {}
                }
            }
        }
        window.end()?;
        let ended = engine.ended(window, None, &mut sidecar).await?;
        transport.sort();
        tap.sort();
        println!(
            "batch {batch}: ttft {first} transport p50 {} p99 {} tap p50 {} {ended:?}",
            transport[transport.len() / 2],
            transport[transport.len() * 99 / 100],
            tap[tap.len() / 2]
        );
    }
    engine.shutdown().await;
    sidecar.shutdown().await;
    Ok(())
}
