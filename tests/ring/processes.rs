//! The ring between two processes: the other one is this test binary, run again.
#![allow(unsafe_code)] // descriptors that were inherited exist only as numbers

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench::measurement::ring::protocol::{EVENT_STREAM, REQUEST_STREAM};
use bench::measurement::ring::{Consumer, Producer, RawRecord, RingMemory};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{emitted_ns, number_of, numbered};

const ROLE: &str = "BENCH_RING_ROLE";
const DESCRIPTORS: &str = "BENCH_RING_DESCRIPTORS";
/// Only that the test is over soon where the other process has died: a wake-up that was lost takes this long.
const SLEEP_MS: u32 = 5_000;
const RECORDS: u64 = 5_000_000;
const ROUNDS: u64 = 50_000;

/// Runs this binary as `role`, with `descriptors` in that order.
fn start(role: &str, descriptors: &[BorrowedFd<'_>]) -> Child {
    // A duplicate is inherited; what RingMemory and eventfd made is closed on exec.
    let inherited: Vec<OwnedFd> = descriptors.iter().map(|fd| nix::unistd::dup(fd).unwrap()).collect();
    let numbers: Vec<String> = inherited.iter().map(|fd| std::os::fd::AsRawFd::as_raw_fd(fd).to_string()).collect();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::the_other_process", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env(DESCRIPTORS, numbers.join(","))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the other process of the tests here"]
fn the_other_process() {
    let (Ok(role), Ok(numbers)) = (std::env::var(ROLE), std::env::var(DESCRIPTORS)) else { return };
    // SAFETY: the parent has opened each of them for this process alone, and this is the only place that owns them.
    let own = |number: &str| unsafe { OwnedFd::from_raw_fd(number.parse().unwrap()) };
    let descriptors: Vec<OwnedFd> = numbers.split(',').map(own).collect();
    match (role.as_str(), &descriptors[..]) {
        ("stream", [ring]) => stream(ring.as_fd(), None),
        ("stream", [ring, wake]) => stream(ring.as_fd(), Some(wake.as_fd())),
        ("endless", [ring]) => endless(ring.as_fd()),
        ("echo", [requests, asked, events, answered]) => {
            let consumer = Consumer::attach(requests.as_fd(), Some(asked.as_fd()), REQUEST_STREAM).unwrap();
            echo(consumer, Producer::attach(events.as_fd(), Some(answered.as_fd()), EVENT_STREAM).unwrap());
        }
        _ => panic!("no such role: {role}"),
    }
}

/// Pushes all of `records`, trying again while the ring is full; returns how many records were refused.
fn push_all(producer: &mut Producer, records: &[RawRecord]) -> u64 {
    let mut refused = 0;
    while !producer.push(records) {
        refused += records.len() as u64;
        std::thread::yield_now();
    }
    refused
}

/// Pushes RECORDS in batches of 1 to 64, and last how many records found no room. Pauses now and then.
fn stream(ring: BorrowedFd<'_>, wake: Option<BorrowedFd<'_>>) {
    let mut producer = Producer::attach(ring, wake, EVENT_STREAM).unwrap();
    let (mut next, mut refused, mut batch) = (0, 0, Vec::new());
    for round in 0.. {
        if next == RECORDS {
            break;
        }
        let end = RECORDS.min(next + 1 + round % 64);
        batch.clear();
        batch.extend((next..end).map(numbered));
        refused += push_all(&mut producer, &batch);
        next = end;
        if wake.is_some() && round % 1_000 == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    while !producer.push(&[numbered(refused)]) {
        refused += 1;
        std::thread::yield_now();
    }
}

fn endless(ring: BorrowedFd<'_>) {
    let mut producer = Producer::attach(ring, None, EVENT_STREAM).unwrap();
    for first in (0..).step_by(7) {
        let batch: [RawRecord; 7] = std::array::from_fn(|i| numbered(first + i as u64));
        push_all(&mut producer, &batch);
    }
}

/// Sends every record back, until number ROUNDS has come.
fn echo(mut requests: Consumer, mut events: Producer) {
    loop {
        let number = next_number(&mut requests, 1);
        push_all(&mut events, &[numbered(number)]);
        if number == ROUNDS {
            return;
        }
    }
}

/// The one record that comes next. Looks a few times, then sleeps.
fn next_number(consumer: &mut Consumer, looks: u32) -> u64 {
    loop {
        if let Some(batch) = consumer.pop(looks).unwrap() {
            assert_eq!(batch.records.len(), 1);
            return number_of(&batch.records[0]);
        }
        sleep(consumer);
    }
}

fn sleep(consumer: &mut Consumer) {
    let began = Instant::now();
    consumer.wait(SLEEP_MS).unwrap();
    assert!(began.elapsed() < Duration::from_millis(u64::from(SLEEP_MS)), "a wake-up was lost, or the other has died");
}

/// Takes a whole stream from another process; returns how often it slept.
fn take_stream(consumer: &mut Consumer, child: &mut Child, sleeps: bool) -> u64 {
    let (mut expected, mut slept, mut last_ns, began) = (0, 0, 0, Instant::now());
    let refused = 'stream: loop {
        let Some(batch) = consumer.pop(1_000).unwrap() else {
            if sleeps {
                sleep(consumer);
                slept += 1;
            }
            assert!(began.elapsed() < Duration::from_secs(50), "{expected} records in {:?}", began.elapsed());
            continue;
        };
        for record in batch.records {
            if expected == RECORDS {
                break 'stream number_of(record);
            }
            assert_eq!(number_of(record), expected);
            assert!(last_ns <= emitted_ns(record) && emitted_ns(record) <= batch.received_ns, "stamps out of order");
            last_ns = emitted_ns(record);
            expected += 1;
        }
    };
    let rate = RECORDS as f64 / began.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.1} million records/s, {refused} refused by a full ring, slept {slept} times");
    assert!(child.wait().unwrap().success());
    assert!(consumer.dropped() >= refused, "a full ring was not counted");
    assert_eq!(consumer.dropped(), refused);
    slept
}

#[test]
fn millions_of_records_reach_a_consumer_that_spins() {
    let memory = RingMemory::create(EVENT_STREAM, 4096).unwrap();
    let mut consumer = memory.consumer(None).unwrap();
    let mut child = start("stream", &[memory.as_fd()]);
    take_stream(&mut consumer, &mut child, false);
}

#[test]
fn millions_of_records_reach_a_consumer_that_sleeps() {
    let memory = RingMemory::create(EVENT_STREAM, 4096).unwrap();
    let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    let mut consumer = memory.consumer(Some(wake.as_fd())).unwrap();
    let mut child = start("stream", &[memory.as_fd(), wake.as_fd()]);
    assert!(take_stream(&mut consumer, &mut child, true) > 0, "it never slept, so that this showed nothing");
}

#[test]
fn no_wake_up_is_lost_where_both_sides_sleep() {
    let (requests, events) =
        (RingMemory::create(REQUEST_STREAM, 8).unwrap(), RingMemory::create(EVENT_STREAM, 8).unwrap());
    let asked = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    let answered = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    let mut producer = requests.producer(Some(asked.as_fd())).unwrap();
    let mut consumer = events.consumer(Some(answered.as_fd())).unwrap();
    let mut child = start("echo", &[requests.as_fd(), asked.as_fd(), events.as_fd(), answered.as_fd()]);
    for number in 0..=ROUNDS {
        assert!(producer.push(&[numbered(number)]));
        // Another number of looks each time, so that going to sleep meets the push at every point.
        assert_eq!(next_number(&mut consumer, (1 + number * 37 % 400) as u32), number);
    }
    assert!(child.wait().unwrap().success());
}

#[test]
#[expect(clippy::zombie_processes, reason = "it is waited for where it is killed, and the loop ends only after that")]
fn a_producer_that_was_killed_leaves_a_readable_ring() {
    for records_before in [1, 1_000, 100_000] {
        let memory = RingMemory::create(EVENT_STREAM, 64).unwrap();
        let mut consumer = memory.consumer(None).unwrap();
        let mut child = start("endless", &[memory.as_fd()]);
        let (mut expected, mut killed, deadline) = (0, false, Instant::now() + Duration::from_secs(20));
        loop {
            let Some(batch) = consumer.pop(100).unwrap() else {
                if killed {
                    break;
                }
                assert!(Instant::now() < deadline, "{expected} records came");
                continue;
            };
            for record in batch.records {
                assert_eq!(number_of(record), expected);
                expected += 1;
            }
            if expected >= records_before && !killed {
                child.kill().unwrap();
                child.wait().unwrap();
                killed = true;
            }
        }
        assert_eq!(expected % 7, 0, "part of a batch was published");
        // Another producer goes on where the dead one stopped.
        assert!(memory.producer(None).unwrap().push(&[numbered(expected)]));
        assert_eq!(number_of(&consumer.pop(1).unwrap().unwrap().records[0]), expected);
    }
}
