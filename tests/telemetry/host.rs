//! The host's files.

use bench::machine::device::DeviceClass;
use bench::measurement::telemetry::{DeviceKind, Quantity};

use super::machine::{Machine, open, series, twice};

#[test]
fn everything_that_a_host_has_is_read() {
    let machine = Machine::server();
    let (_, record, samples) = twice(open(&machine.places(), DeviceClass::Cpu), || {
        machine.write("proc/pressure/io", "some avg10=0.00 avg60=0.00 avg300=0.00 total=123456789\nfull total=1\n");
        machine.write("proc/stat", "cpu  10 20 30 40 50 60 70 12 90 100\n");
        machine.write("sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "3\n");
    });
    assert_eq!((record.devices[0].kind, record.devices.len()), (DeviceKind::Host, 1));
    let of = |quantity| series(&samples, 0, quantity);
    // The mean of cores 1 and 2.
    assert_eq!(of(Quantity::ClockKhz), [Some(2_500_000); 2]);
    // Cores 1 and 2, and a package each.
    assert_eq!(of(Quantity::ThrottleTotal), [Some(1 + 2 + 10 + 10), Some(3 + 2 + 10 + 10)]);
    assert_eq!(of(Quantity::PressureCpuTotalUs), [Some(5); 2]);
    assert_eq!(of(Quantity::PressureMemoryTotalUs), [Some(6); 2]);
    assert_eq!(of(Quantity::PressureIoTotalUs), [Some(7), Some(123_456_789)]);
    assert_eq!(of(Quantity::StealTotalUs), [Some(80_000), Some(120_000)]);
    assert_eq!(of(Quantity::TemperatureC), [None; 2]);
    assert!(record.missing.is_empty(), "{:?}", record.missing);
    assert_eq!(record.sources.len(), 5, "{:?}", record.sources);
    assert!(record.sources.iter().any(|source| source == "RAPL (dram, package-0, package-1)"), "{:?}", record.sources);
}

#[test]
fn energy_is_that_of_packages_and_memory_and_survives_the_end_of_a_counter() {
    let machine = Machine::server();
    let zone = |zone: &str, energy_uj: u64| {
        machine.write(&format!("sys/class/powercap/intel-rapl:{zone}/energy_uj"), &format!("{energy_uj}\n"));
    };
    let (telemetry, _, samples) = twice(open(&machine.places(), DeviceClass::Cpu), || {
        zone("0", 150); // 50 more
        zone("0:1", 20); // from 900 over 10,000 to 20: 9,120 more
        zone("1", 2_001); // 1 more
        zone("0:0", 9_000); // a part of the package
        zone("2", 9_000); // the whole platform
    });
    assert_eq!(series(&samples, 0, Quantity::EnergyTotalUj), [Some(0), Some(9_171)]);
    // The next run goes on from there.
    let (_, _, samples) = twice(telemetry, || zone("1", 2_005));
    assert_eq!(series(&samples, 0, Quantity::EnergyTotalUj), [Some(9_171), Some(9_175)]);
}

#[test]
fn a_part_of_the_packages_is_no_energy_of_the_host() {
    let machine = Machine::server();
    machine.remove("sys/class/powercap/intel-rapl:1/energy_uj");
    let (_, record, samples) = twice(open(&machine.places(), DeviceClass::Cpu), || ());
    assert_eq!(series(&samples, 0, Quantity::EnergyTotalUj), [None; 2]);
    assert!(record.missing[0].contains("package-1): the counters cannot be read"), "{:?}", record.missing);
}

#[test]
fn a_counter_that_goes_away_is_not_known_from_then_on() {
    let machine = Machine::server();
    let (_, _, samples) = twice(open(&machine.places(), DeviceClass::Cpu), || {
        machine.write("sys/class/powercap/intel-rapl:1/energy_uj", "gone\n");
        machine.write("sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq", "<unknown>\n");
    });
    assert_eq!(series(&samples, 0, Quantity::EnergyTotalUj), [Some(0), None]);
    assert_eq!(series(&samples, 0, Quantity::ClockKhz), [Some(2_500_000), None]);
}

#[test]
fn what_is_not_there_is_said_and_null() {
    let machine = Machine::bare();
    let (_, record, samples) = twice(open(&machine.places(), DeviceClass::Cpu), || ());
    assert!(record.sources.is_empty());
    assert_eq!(record.missing.len(), 5, "{:?}", record.missing);
    let known = samples.iter().flat_map(|sample| sample.values).filter(|value| *value != u64::MAX).count();
    assert_eq!((samples.len(), known), (2, 0));
}
