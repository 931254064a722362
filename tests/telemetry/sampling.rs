//! The sampling thread.

use std::time::Duration;

use bench::machine::device::{DeviceClass, Placement};

use super::machine::{Machine, open, placement};

#[test]
fn samples_come_at_the_rate_and_in_order_and_at_both_ends() {
    let machine = Machine::server();
    let began_ns = bench::measurement::ring::clock_ns();
    let sampling = open(&machine.places(), DeviceClass::Cpu).start(20, &placement()).unwrap();
    std::thread::sleep(Duration::from_millis(1_010));
    let stopped_ns = bench::measurement::ring::clock_ns();
    let (_, record, samples) = sampling.stop();
    let ended_ns = bench::measurement::ring::clock_ns();
    // One at the start, one each 50 ms, one at the end; a thread of the lowest priority may miss many.
    assert!((4..=22).contains(&samples.len()), "{}", samples.len());
    assert!(samples.is_sorted_by_key(|sample| sample.at_ns));
    assert!(samples[0].at_ns > began_ns && samples[samples.len() - 1].at_ns > stopped_ns);
    let last = samples[samples.len() - 1];
    assert!(last.at_ns + u64::from(last.took_ns) < ended_ns && last.took_ns > 0);
    assert_eq!(record.rate_hz, 20);
    assert!(record.cpu_ns > 0 && record.cpu_ns < record.wall_ns, "{record:?}");
    // It began to count once the thread ran.
    assert!((500_000_000..ended_ns - began_ns).contains(&record.wall_ns), "{record:?}");
}

#[test]
fn a_stop_does_not_wait_for_the_next_tick() {
    let machine = Machine::bare();
    let sampling = open(&machine.places(), DeviceClass::Cpu).start(1, &placement()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let began = std::time::Instant::now();
    let (_, _, samples) = sampling.stop();
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    assert_eq!(samples.len(), 2);
}

#[test]
fn a_core_that_cannot_be_had_is_told() {
    let machine = Machine::bare();
    let nowhere = Placement { harness_cores: vec![1_000], ..placement() };
    let (_, record, _) = open(&machine.places(), DeviceClass::Cpu).start(1, &nowhere).unwrap().stop();
    let told = record.not_pinned.unwrap();
    assert!(told.starts_with("pinning: telemetry could not be bound to the cores 1000: "), "{told}");
}
