//! Single records at a pace, and as many as go through.

use bench::machine::device::Placement;
use bench::measurement::calibration::{Times, cache_line, on_both, wait_until};
use bench::measurement::ring::{RawRecord, clock_ns};

use super::link::{BATCH, Failure, Link, Receiver, Sender, record};

/// Time between two records: as between tokens of many requests, and as between steps.
const FAST_NS: u64 = 3_000;
const SLOW_NS: u64 = 1_000_000;
/// Records of a round.
const FAST: usize = 20_000;
const SLOW: usize = 200;
const SINGLE: usize = 200_000;
const BATCHED: usize = 2_000_000;
/// How long either side may wait for what never comes.
const GIVE_UP_NS: u64 = 10_000_000_000;

type Paced = fn(&Placement, u64, usize) -> Result<Vec<i64>, Failure>;
type Throughput = fn(&Placement, usize, usize) -> Result<f64, Failure>;

/// A way, and how it is measured.
pub struct Way {
    pub name: &'static str,
    pub spins: bool,
    paced: Paced,
    /// `None` where every record may overwrite the one before.
    throughput: Option<Throughput>,
}

impl Way {
    /// A time stamp in a cache line, with nothing around it.
    pub fn line() -> Way {
        let paced: Paced = |placement, gap_ns, count| Ok(cache_line(placement, gap_ns, count)?);
        Way { name: "raw cache line", spins: true, paced, throughput: None }
    }

    /// A link.
    pub fn of<L: Link>() -> Way {
        Way { name: L::NAME, spins: L::SPINS, paced: paced::<L>, throughput: Some(throughput::<L>) }
    }
}

/// What all rounds gave.
pub struct Measured {
    pub way: Way,
    /// The median of each round, of records every 3 us.
    fast_p50_ns: Vec<i64>,
    fast_ns: Vec<i64>,
    slow_ns: Vec<i64>,
    single_per_s: Vec<f64>,
    batched_per_s: Vec<f64>,
}

impl Measured {
    pub fn new(way: Way) -> Measured {
        let (fast_p50_ns, fast_ns, slow_ns) = (vec![], vec![], vec![]);
        Measured { way, fast_p50_ns, fast_ns, slow_ns, single_per_s: vec![], batched_per_s: vec![] }
    }

    /// One round.
    pub fn measure(&mut self, placement: &Placement) -> Result<(), Failure> {
        let fast_ns = (self.way.paced)(placement, FAST_NS, FAST)?;
        self.fast_p50_ns.extend(Times::of(fast_ns.clone()).map(|times| times.p50));
        self.fast_ns.extend(fast_ns);
        self.slow_ns.extend((self.way.paced)(placement, SLOW_NS, SLOW)?);
        if let Some(throughput) = self.way.throughput {
            self.single_per_s.push(throughput(placement, SINGLE, 1)?);
            self.batched_per_s.push(throughput(placement, BATCHED, BATCH)?);
        }
        Ok(())
    }

    /// One way, a record every 3 us.
    pub fn fast(&self) -> Option<Times> {
        Times::of(self.fast_ns.clone())
    }

    /// How many times as long as `base` a record every 3 us takes: the median of the rounds' ratios, since a virtual
    /// machine's cores move nearer and farther during the rounds.
    pub fn times(&self, base: &Measured) -> Option<f64> {
        let ratios = self.fast_p50_ns.iter().zip(&base.fast_p50_ns).map(|(own, base)| *own as f64 / *base as f64);
        median(&ratios.collect::<Vec<_>>())
    }

    /// One way, a record every millisecond.
    pub fn slow(&self) -> Option<Times> {
        Times::of(self.slow_ns.clone())
    }

    /// Records a second, one in each call; the median round.
    pub fn single_per_s(&self) -> Option<f64> {
        median(&self.single_per_s)
    }

    /// Records a second, 64 in each call; the median round.
    pub fn batched_per_s(&self) -> Option<f64> {
        median(&self.batched_per_s)
    }
}

fn median(rounds: &[f64]) -> Option<f64> {
    let mut rounds = rounds.to_vec();
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied()
}

/// Times from the sender's clock to the receiver's.
fn paced<L: Link>(placement: &Placement, gap_ns: u64, count: usize) -> Result<Vec<i64>, Failure> {
    let (mut sender, mut receiver) = L::connect()?;
    let give_up_ns = clock_ns() + GIVE_UP_NS + count as u64 * gap_ns;
    let send = || -> Result<L::Sender, Failure> {
        let mut due_ns = clock_ns();
        for _ in 0..count {
            due_ns += gap_ns;
            wait_until(due_ns);
            hand_over::<L>(&mut sender, &mut [record(0)], give_up_ns)?;
        }
        Ok(sender) // which must stay until the receiver has all
    };
    let receive = || -> Result<Vec<i64>, Failure> {
        let mut samples_ns = Vec::with_capacity(count);
        while samples_ns.len() < count {
            match receiver.receive()? {
                // Of records that were taken together each has waited; the table wants them all, and the first has the stamp.
                Some(received) => {
                    let transport_ns = received.received_ns as i64 - received.emitted_ns as i64;
                    samples_ns.extend(std::iter::repeat_n(transport_ns, received.records));
                }
                None if clock_ns() > give_up_ns => return Err(lost::<L>()),
                None => {}
            }
        }
        Ok(samples_ns)
    };
    let (sent, received) = on_both(placement, send, receive)?;
    let received = received?; // whose failure is the cause of the sender's
    sent?;
    Ok(received)
}

/// Records a second in calls of `batch`, the sender as fast as there is room.
fn throughput<L: Link>(placement: &Placement, count: usize, batch: usize) -> Result<f64, Failure> {
    let (mut sender, mut receiver) = L::connect()?;
    let give_up_ns = clock_ns() + GIVE_UP_NS;
    let send = || -> Result<L::Sender, Failure> {
        let mut records: [RawRecord; BATCH] = [record(0); BATCH];
        for _ in 0..count / batch {
            hand_over::<L>(&mut sender, &mut records[..batch], give_up_ns)?;
        }
        Ok(sender)
    };
    let receive = || -> Result<f64, Failure> {
        let (mut taken, began_ns) = (0, clock_ns());
        while taken < count / batch * batch {
            match receiver.receive()? {
                Some(received) => taken += received.records,
                None if clock_ns() > give_up_ns => return Err(lost::<L>()),
                None => {}
            }
        }
        Ok(taken as f64 * 1e9 / (clock_ns() - began_ns) as f64)
    };
    let (sent, received) = on_both(placement, send, receive)?;
    let received = received?; // whose failure is the cause of the sender's
    sent?;
    Ok(received)
}

fn hand_over<L: Link>(sender: &mut L::Sender, records: &mut [RawRecord], give_up_ns: u64) -> Result<(), Failure> {
    while !sender.send(records)? {
        if clock_ns() > give_up_ns {
            return Err(format!("{}: the receiver takes nothing", L::NAME).into());
        }
    }
    Ok(())
}

fn lost<L: Link>() -> Failure {
    format!("{}: not all records came within the time", L::NAME).into()
}
