//! The ring between the two cores: one record at a time at a given pace, and as many as go through.

use bytemuck::Zeroable;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsFd;

use super::pair::{GIVE_UP_NS, on_both, wait_until};
use super::{CalibrationError, Cores, Effort, RingTimes, StrategyCost, Times};
use crate::machine::device::{Placement, WaitStrategy};
use crate::measurement::clock::thread_cpu_ns;
use crate::measurement::ring::protocol::{EVENT_STREAM, EndedRecord};
use crate::measurement::ring::{Consumer, Producer, RawRecord, RingError, RingMemory, clock_ns};

const CAPACITY: u32 = 1 << 12;
/// Looks between two looks at the time limit, about 100 us.
const LOOKS: u32 = 2_000;
const SLEEP_MS: u32 = 100;
/// More than the caches of a core hold.
const LOAD_BYTES: usize = 32 << 20;
const BATCH: usize = 64;

/// A series of single records.
#[derive(Clone, Copy)]
struct Pace {
    gap_ns: u64,
    count: usize,
    /// Whether the producer goes through much memory between two records.
    loaded: bool,
}

/// The ring at its three paces, and its throughput.
pub(super) fn measure(placement: &Placement, effort: Effort) -> Result<RingTimes, CalibrationError> {
    let pace = |gap_ns, count, loaded| {
        let measured = Cores::of(placement)
            .are_two()
            .then(|| paced(placement, Pace { gap_ns, count, loaded }, WaitStrategy::Spin));
        measured.transpose().map(|measured| measured.and_then(|(times, _)| times))
    };
    Ok(RingTimes {
        gap_3us_ns: pace(3_000, effort.pick(5_000, 50_000), false)?,
        gap_1ms_ns: pace(1_000_000, effort.pick(100, 2_000), false)?,
        gap_1ms_loaded_ns: pace(1_000_000, effort.pick(50, 1_000), true)?,
        records_per_s: match effort {
            Effort::Full if Cores::of(placement).are_two() => Some(throughput(placement)?),
            _ => None,
        },
    })
}

/// What each strategy costs, with a record every millisecond.
pub(super) fn strategies(placement: &Placement) -> Result<Vec<StrategyCost>, CalibrationError> {
    let pace = Pace { gap_ns: 1_000_000, count: 1_000, loaded: false };
    let all = WaitStrategy::ALL
        .into_iter()
        .filter(|strategy| Cores::of(placement).are_two() || *strategy != WaitStrategy::Spin);
    let measured = all.map(|strategy| {
        let (transport_ns, cpu_share) = paced(placement, pace, strategy)?;
        Ok(StrategyCost { strategy, transport_ns, cpu_share })
    });
    measured.collect()
}

/// One-way times of single records, and the share of a core that the consumer used.
fn paced(placement: &Placement, pace: Pace, strategy: WaitStrategy) -> Result<(Option<Times>, f64), CalibrationError> {
    let memory = RingMemory::create(EVENT_STREAM, CAPACITY)?;
    let wake = eventfd()?;
    let wake_fd = (strategy != WaitStrategy::Spin).then(|| wake.as_fd());
    let (mut producer, mut consumer) = (memory.producer(wake_fd)?, memory.consumer(wake_fd)?);
    let (_, received) = on_both(placement, || send(&mut producer, pace), || receive(&mut consumer, pace, strategy))?;
    let (samples_ns, cpu_share) = received?;
    Ok((Times::of(samples_ns), cpu_share))
}

fn send(producer: &mut Producer, pace: Pace) {
    let mut load = vec![1u8; if pace.loaded { LOAD_BYTES } else { 0 }];
    let record = RawRecord::of(&EndedRecord { kind: EndedRecord::KIND, ..Zeroable::zeroed() });
    let mut due_ns = clock_ns();
    for _ in 0..pace.count {
        load.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
        due_ns = wait_until(due_ns.max(clock_ns()) + pace.gap_ns);
        // The consumer gives up by the clock if one is missing.
        let _ = producer.push(&[record]);
    }
    std::hint::black_box(&load);
}

fn receive(consumer: &mut Consumer, pace: Pace, strategy: WaitStrategy) -> Result<(Vec<i64>, f64), RingError> {
    let looks = if strategy == WaitStrategy::Sleep { 1 } else { LOOKS };
    let mut samples_ns = Vec::with_capacity(pace.count);
    let (began_ns, cpu_before_ns) = (clock_ns(), thread_cpu_ns());
    let give_up_ns = began_ns + GIVE_UP_NS + 10 * pace.count as u64 * pace.gap_ns;
    while samples_ns.len() < pace.count && clock_ns() < give_up_ns {
        match consumer.pop(looks)? {
            Some(batch) => {
                let received_ns = batch.received_ns;
                let emitted = batch.records.iter().map(|record| record.view::<EndedRecord>().emitted_ns);
                samples_ns.extend(emitted.map(|emitted_ns| received_ns as i64 - emitted_ns as i64));
            }
            None if strategy != WaitStrategy::Spin => consumer.wait(SLEEP_MS)?,
            None => {}
        }
    }
    let cpu_share = (thread_cpu_ns() - cpu_before_ns) as f64 / (clock_ns() - began_ns) as f64;
    Ok((samples_ns, cpu_share))
}

/// Records a second in batches of 64, the producer as fast as there is room.
fn throughput(placement: &Placement) -> Result<f64, CalibrationError> {
    const RECORDS: usize = 20_000_000;
    let memory = RingMemory::create(EVENT_STREAM, CAPACITY)?;
    let (mut producer, mut consumer) = (memory.producer(None)?, memory.consumer(None)?);
    let record = RawRecord::of(&EndedRecord { kind: EndedRecord::KIND, ..Zeroable::zeroed() });
    let batch = [record; BATCH];
    let give_up_ns = clock_ns() + GIVE_UP_NS;
    let (_, taken) = on_both(
        placement,
        || {
            for _ in 0..RECORDS / BATCH {
                while !producer.push(&batch) {
                    if clock_ns() > give_up_ns {
                        return;
                    }
                }
            }
        },
        || -> Result<(usize, u64), RingError> {
            let (mut taken, began_ns) = (0, clock_ns());
            while taken < RECORDS && clock_ns() < give_up_ns {
                taken += consumer.pop(LOOKS)?.map_or(0, |batch| batch.records.len());
            }
            Ok((taken, clock_ns() - began_ns))
        },
    )?;
    let (taken, took_ns) = taken?;
    Ok(taken as f64 / (took_ns as f64 / 1e9))
}

fn eventfd() -> Result<EventFd, RingError> {
    EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
        .map_err(|source| RingError::System { what: "eventfd", source })
}
