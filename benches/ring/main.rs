//! The ring against other ways from one thread to another: same record, same cores, in one run.
//!
//! `cargo bench --bench ring [-- ROUNDS] [--json FILE]` compares it with the raw cache line, a pipe and a Unix socket; with
//! `--features peers`, which needs libclang, also with ZeroMQ and iceoryx2. Every round measures each of them once, in a new
//! order, so that what the machine does meanwhile falls on all. Exits with 1 where the ring misses a limit.

mod bytes;
#[cfg(feature = "peers")]
mod iceoryx;
mod link;
mod measure;
mod ours;
mod table;
#[cfg(feature = "peers")]
mod zeromq;

use bench::machine::device::{Placement, Topology};
use bench::measurement::ring::clock_ns;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use link::Failure;
use measure::{Measured, Way};

/// Rounds without an argument: a minute on two cores.
const ROUNDS: usize = 10;

fn main() -> Result<(), Failure> {
    let (rounds, json) = arguments()?;
    let placement = Placement::choose(&Topology::of_this_machine()?);
    if placement.recorder_core.is_none() {
        return Err("two cores are needed, one for each side".into());
    }
    let mut measured: Vec<Measured> = ways().into_iter().map(Measured::new).collect();
    let mut random = ChaCha8Rng::seed_from_u64(clock_ns());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for index in shuffled(measured.len(), &mut random) {
            measured[index].measure(&placement)?;
        }
    }
    print!("{}", table::render(&measured, &placement));
    if let Some(path) = json {
        std::fs::write(path, table::json(&measured, &placement))?;
    }
    let missed = table::missed(&measured);
    missed.iter().for_each(|limit| eprintln!("missed: {limit}"));
    if missed.is_empty() { Ok(()) } else { std::process::exit(1) }
}

/// The raw line, which is the base, comes first.
fn ways() -> Vec<Way> {
    #[allow(unused_mut, reason = "the feature adds some")]
    let mut ways = vec![
        Way::line(),
        Way::of::<ours::Spinning>(),
        Way::of::<ours::Sleeping>(),
        Way::of::<bytes::SpinningPipe>(),
        Way::of::<bytes::SleepingPipe>(),
        Way::of::<bytes::SpinningSocket>(),
        Way::of::<bytes::SleepingSocket>(),
    ];
    #[cfg(feature = "peers")]
    ways.extend([Way::of::<zeromq::Spinning>(), Way::of::<zeromq::Sleeping>(), Way::of::<iceoryx::Spinning>()]);
    ways
}

fn arguments() -> Result<(usize, Option<String>), Failure> {
    let (mut rounds, mut json) = (ROUNDS, None);
    let mut given = std::env::args().skip(1).filter(|argument| argument != "--bench"); // which cargo gives
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--json" => json = Some(given.next().ok_or("--json needs a file")?),
            count => rounds = count.parse().map_err(|_| format!("'{count}' is no number of rounds"))?,
        }
    }
    Ok((rounds, json))
}

fn shuffled(count: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.next_u64() as usize % (last + 1));
    }
    order
}
