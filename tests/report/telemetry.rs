//! What telemetry says of a window, with samples drawn by hand.

use bench::analysis::metrics::Samples;
use bench::measurement::telemetry::{DeviceKind, Quantity, Sample, SampledDevice, TelemetryRecord};
use bench::measurement::timeline::Timeline;
use bench::measurement::timeline::store::{StoreError, read_run, run_folder, write_run};
use bench::presentation::report::{Ruler, RunEntry};
use serde_json::{Value, json};

use super::sketch::{Request, timeline};
use super::store::as_unsealed;

/// How long every sketched look takes.
const TOOK_NS: u32 = 2;

/// How a machine with these devices was sampled.
fn record(devices: &[(DeviceKind, &str)]) -> TelemetryRecord {
    let device = |(kind, name): &(DeviceKind, &str)| SampledDevice { kind: *kind, name: (*name).to_owned() };
    TelemetryRecord {
        rate_hz: 10,
        devices: devices.iter().map(device).collect(),
        sources: vec!["a source".to_owned()],
        missing: vec!["another one".to_owned()],
        cpu_ns: 5,
        wall_ns: 1_000,
        not_pinned: None,
    }
}

/// A sample in the middle of whose readings it is `at_ns`.
fn sample(device: u32, at_ns: u64, values: &[(Quantity, u64)]) -> Sample {
    let mut sample = Sample::unknown(device, at_ns - u64::from(TOOK_NS) / 2);
    sample.took_ns = TOOK_NS;
    values.iter().for_each(|(quantity, value)| sample.set(*quantity, Some(*value)));
    sample
}

/// A window from 1,000 ns to 5,000 ns with four tokens, on a host sampled at these times.
fn sampled(quantity: Quantity, samples: &[(u64, u64)]) -> Timeline {
    let mut run = timeline(&[Request::new(1_000, 1_000, 32, &[(2_000, 1), (3_000, 1), (4_000, 1), (5_000, 1)])]);
    run.run.telemetry = Some(record(&[(DeviceKind::Host, "host")]));
    run.telemetry = samples.iter().map(|(at_ns, value)| sample(0, *at_ns, &[(quantity, *value)])).collect();
    run
}

/// A run with every quantity sampled on a host, before its window, in it and after it.
pub fn with_everything_sampled(mut run: Timeline) -> Timeline {
    let window = Samples::of(&run).window.unwrap();
    run.run.telemetry = Some(record(&[(DeviceKind::Host, "host")]));
    let middle_ns = (window.first_submit_ns + window.last_token_ns) / 2;
    for (at_ns, value) in [(window.first_submit_ns - 10, 4), (middle_ns, 6), (window.last_token_ns + 10, 8)] {
        let mut sample = sample(0, at_ns, &[]);
        sample.values = [value; Quantity::COUNT];
        run.telemetry.push(sample);
    }
    run
}

fn entry(run: &Timeline) -> RunEntry {
    RunEntry::of(run, Ruler::UNKNOWN)
}

fn telemetry(run: &Timeline) -> Value {
    serde_json::to_value(entry(run).telemetry).unwrap()
}

#[test]
fn a_gauge_is_averaged_over_the_samples_in_the_window() {
    // Those at 900 and 5,100 are outside; so are those whose readings are cut by an end.
    let run = sampled(
        Quantity::PowerMw,
        &[(900, 1), (1_000, 7), (1_500, 3_000), (4_000, 5_000), (4_999, 10_000), (5_000, 7), (5_100, 1)],
    );
    let found = telemetry(&run);
    assert_eq!(found["devices"][0]["power_w"], json!({"avg": 6.0, "min": 3.0, "max": 10.0}));
    assert_eq!(found["samples"], 3);
    assert_eq!(found["max_gap_s"], 2_500e-9);
    assert_eq!((&found["rate_hz"], &found["cpu_share"]), (&json!(10), &json!(0.005)));
    assert_eq!((&found["sources"], &found["missing"]), (&json!(["a source"]), &json!(["another one"])));
    assert_eq!(found["devices"][0]["temperature_c"], Value::Null);
    assert_eq!(telemetry(&sampled(Quantity::PowerMw, &[(900, 1), (5_100, 1)]))["devices"][0]["power_w"], Value::Null);
}

#[test]
fn energy_is_counted_between_the_ends_of_the_window_with_its_bounds() {
    // 100 uJ before it; in the window from 200 to 800; after it 1,200 uJ.
    let run = sampled(
        Quantity::EnergyTotalUj,
        &[(500, 100), (1_500, 200_100), (3_000, 500_100), (4_500, 800_100), (5_500, 1_200_100)],
    );
    let found = telemetry(&run);
    // At 1,000 half of the first 200 mJ, at 5,000 half of the last 400 mJ.
    let rounded = |counted: &Value| ["value", "low", "high"].map(|key| (counted[key].as_f64().unwrap() * 1e9).round());
    assert_eq!(rounded(&found["energy_j"]), [0.9e9, 0.6e9, 1.2e9]);
    assert_eq!(found["devices"][0]["energy_j"], found["energy_j"]);
    assert_eq!(rounded(&found["energy_per_output_token_j"]), [0.225e9, 0.15e9, 0.3e9]);
}

#[test]
fn a_window_shorter_than_the_samples_are_apart_is_bounded_by_zero() {
    let found = telemetry(&sampled(Quantity::EnergyTotalUj, &[(500, 0), (8_500, 8_000_000)]));
    assert_eq!(found["energy_j"], json!({"value": 4.0, "low": 0.0, "high": 8.0}));
    assert_eq!((&found["samples"], &found["max_gap_s"]), (&json!(0), &json!(8_000e-9)));
}

#[test]
fn a_counter_without_both_sides_or_that_goes_back_says_nothing() {
    for samples in [&[(500, 1), (3_000, 2)][..], &[(1_500, 1), (5_500, 2)], &[(500, 1), (3_000, 9), (5_500, 2)], &[]] {
        let found = telemetry(&sampled(Quantity::EnergyTotalUj, samples));
        assert_eq!(
            (&found["energy_j"], &found["energy_per_output_token_j"]),
            (&Value::Null, &Value::Null),
            "{samples:?}"
        );
    }
}

#[test]
fn pressure_and_stolen_time_are_shares_of_the_window() {
    // The window has 4 us.
    let found = telemetry(&sampled(Quantity::PressureIoTotalUs, &[(1_000 - 1, 10), (5_000 + 1, 11)]));
    assert_eq!(found["devices"][0]["pressure_io"]["high"], 0.25);
    let found = telemetry(&sampled(Quantity::StealTotalUs, &[(1_000 - 1, 10), (5_000 + 1, 18)]));
    assert_eq!(found["devices"][0]["stolen_cores"]["high"], 2.0);
}

#[test]
fn energy_of_an_accelerator_is_that_of_all_its_devices_and_not_the_hosts() {
    let counted = |second_gpu: bool| {
        let mut run = sampled(Quantity::EnergyTotalUj, &[(999, 0), (5_001, 9_000_000)]);
        run.run.engine_key.device = bench::machine::device::DeviceClass::Cuda;
        run.run.telemetry = Some(record(&[(DeviceKind::Host, "host"), (DeviceKind::Gpu, "a"), (DeviceKind::Gpu, "b")]));
        for (at_ns, value) in [(999, 0), (5_001, 4_000_000)] {
            run.telemetry.push(sample(1, at_ns, &[(Quantity::EnergyTotalUj, value)]));
            run.telemetry.push(sample(2, at_ns, if second_gpu { &[(Quantity::EnergyTotalUj, 5)] } else { &[] }));
        }
        telemetry(&run)
    };
    let found = counted(true);
    assert_eq!((&found["energy_j"]["high"], &found["devices"][0]["energy_j"]["high"]), (&json!(4.0), &json!(9.0)));
    assert_eq!(counted(false)["energy_j"], Value::Null, "half of the GPUs is not the engine");
}

#[test]
fn throttling_in_the_window_is_a_warning() {
    // Power cap (4) in two samples, heat (0x20) in one; idle (1) and set clocks (2) are no throttling. Outside: 0x40.
    let bits = [(999, 0x40), (1_500, 1 | 2), (2_000, 4), (3_000, 4 | 0x20), (5_001, 0x40)];
    let run = entry(&sampled(Quantity::ThrottleReasonBits, &bits));
    let found = serde_json::to_value(&run.telemetry).unwrap();
    let reasons = &found["devices"][0]["throttle_reasons"];
    assert_eq!(reasons.as_array().unwrap().len(), 4, "{reasons}");
    assert_eq!(reasons[2], json!({"reason": "sw_power_cap", "samples": 2, "of": 3}));
    assert_eq!(
        run.warnings,
        [
            "throttling: host: sw_power_cap in some samples of the window",
            "throttling: host: sw_thermal_slowdown in some samples of the window"
        ]
    );
    let capped = entry(&sampled(Quantity::ThrottleReasonBits, &[(2_000, 4), (3_000, 4)]));
    assert_eq!(capped.warnings, ["throttling: host: sw_power_cap in all samples of the window"]);
    let calm = entry(&sampled(Quantity::ThrottleReasonBits, &[(1_500, 1), (2_000, 2), (3_000, 0)]));
    assert_eq!((calm.warnings, calm.status), (Vec::new(), run.status));

    let count = |samples| entry(&sampled(Quantity::ThrottleTotal, samples)).warnings;
    assert_eq!(
        count(&[(900, 7), (1_500, 7), (4_000, 9), (5_100, 9)]),
        ["throttling: host: the engine's cores were throttled for heat 2 times"]
    );
    assert_eq!(
        count(&[(900, 7), (1_500, 8), (4_000, 9), (5_100, 9)]),
        ["throttling: host: the engine's cores were throttled for heat 1 to 2 times"]
    );
    assert_eq!(count(&[(500, 6), (900, 7), (5_100, 7), (6_000, 8)]), Vec::<String>::new());
}

#[test]
fn a_run_without_telemetry_has_none() {
    let mut run = sampled(Quantity::PowerMw, &[(1_500, 1)]);
    run.run.telemetry = None;
    assert_eq!(telemetry(&run), Value::Null);
}

#[test]
fn samples_come_back_as_they_were_and_a_run_of_before_has_none() {
    let results = tempfile::tempdir().unwrap();
    let run = sampled(Quantity::PowerMw, &[(1_500, 1), (2_500, u64::MAX - 1)]);
    write_run(results.path(), &run).unwrap();
    let folder = run_folder(results.path(), "p", 0);
    let read = read_run(&folder).unwrap();
    assert_eq!((read.run.telemetry, read.telemetry), (run.run.telemetry, run.telemetry));

    // As an older version stored it: without the key, the file and the checksum.
    as_unsealed(&folder, |stored| {
        stored.remove("telemetry");
        stored["point"].as_object_mut().unwrap().remove("telemetry_hz");
    });
    std::fs::remove_file(folder.join("telemetry.bin")).unwrap();
    let read = read_run(&folder).unwrap();
    assert_eq!((read.run.telemetry, read.telemetry, read.run.point.telemetry_hz), (None, Vec::new(), 0));
}

#[test]
fn damaged_telemetry_is_refused() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 6] = [
        (|bytes| bytes.truncate(20), "cut off"),
        (|bytes| bytes.truncate(bytes.len() - 1), "cut off"),
        (|bytes| bytes[0] ^= 1, "does not begin with the mark"),
        (|bytes| bytes[8] ^= 0xff, "other byte order"),
        (|bytes| bytes[12] = 9, "version 9"),
        (|bytes| bytes[60] ^= 1, "checksum"),
    ];
    for (change, expected) in changes {
        let results = tempfile::tempdir().unwrap();
        write_run(results.path(), &sampled(Quantity::PowerMw, &[(1_500, 1), (2_500, 2)])).unwrap();
        let folder = run_folder(results.path(), "p", 0);
        let path = folder.join("telemetry.bin");
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        match read_run(&folder) {
            Err(StoreError::Damaged { path: named, problem }) => {
                assert!(named == path && problem.contains(expected), "{problem}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    let results = tempfile::tempdir().unwrap();
    let mut run = sampled(Quantity::PowerMw, &[(1_500, 1)]);
    run.telemetry[0].device = 1;
    write_run(results.path(), &run).unwrap();
    let problem = read_run(&run_folder(results.path(), "p", 0)).unwrap_err().to_string();
    assert!(problem.contains("sample 0 is of device 1, and there are 1"), "{problem}");
}
