//! TPU hosts.

use std::fs;
use std::path::Path;

use bench::machine::device::DeviceClass;

use crate::{bare, plug};

const GOOGLE: &str = "0x1ae0";

/// Chips as a TPU VM shows them, each with a node in /dev/vfio.
fn chips(root: &Path, device: &str, count: usize) {
    for chip in 0..count {
        plug(root, &format!("0000:00:0{}.0", chip + 4), GOOGLE, device, "0x120000");
        fs::write(root.join(format!("dev/vfio/{chip}")), "").unwrap();
    }
}

#[test]
fn generations_are_told_by_their_pci_id_and_chips_are_not_cores() {
    for (id, count, said, devices) in [
        ("0x0076", 4, "4 x TPU v7x (0x0076), 2 JAX devices each", 8),
        ("0x006f", 8, "8 x TPU v6e (0x006f), 1 JAX device each", 8),
        ("0x0063", 1, "1 x TPU v5e (0x0063), 1 JAX device each", 1),
    ] {
        let (root, machine) = bare();
        chips(root.path(), id, count);
        let finding = machine.look_for(DeviceClass::Tpu);
        assert!(finding.is_present, "{finding:?}");
        assert_eq!(finding.checks[0].found.as_deref(), Ok(said));
        assert_eq!(finding.tensor_parallel, Some(devices), "{id}");
    }
}

#[test]
fn two_functions_of_one_chip_are_one_chip() {
    let (root, machine) = bare();
    chips(root.path(), "0x0076", 2);
    plug(root.path(), "0000:00:04.1", GOOGLE, "0x0076", "0x120000");
    assert_eq!(machine.look_for(DeviceClass::Tpu).tensor_parallel, Some(4));
}

#[test]
fn other_devices_of_the_vendor_are_no_tpus_and_an_unknown_generation_is_one_without_a_number() {
    let (root, machine) = bare();
    plug(root.path(), "0000:00:03.0", GOOGLE, "0x0042", "0x020000"); // a network card
    let finding = machine.look_for(DeviceClass::Tpu);
    assert_eq!(finding.tensor_parallel, None);
    let (check, missing) = finding.missing().next().unwrap();
    assert!(check.what.contains("vendor 0x1ae0"), "{check:?}");
    assert_eq!(missing.missing, "1 other devices of this vendor, and no TPU");
    assert!(!finding.is_present);

    chips(root.path(), "0x0999", 1);
    let finding = machine.look_for(DeviceClass::Tpu);
    assert_eq!(finding.checks[0].found.as_deref(), Ok("1 x TPU of an unknown generation (0x0999)"));
    assert_eq!((finding.is_present, finding.tensor_parallel), (true, None));
}

#[test]
fn chips_without_device_nodes_are_said_with_what_to_do() {
    let (root, machine) = bare();
    plug(root.path(), "0000:00:04.0", GOOGLE, "0x006f", "0x120000");
    let finding = machine.look_for(DeviceClass::Tpu);
    let (check, missing) = finding.missing().next().unwrap();
    assert!(check.what.starts_with("device nodes"), "{check:?}");
    assert!(missing.remedy.contains("vfio-pci") && missing.remedy.contains("--privileged"), "{missing:?}");
    assert!(!finding.is_present);
    fs::write(root.path().join("dev/accel0"), "").unwrap();
    assert!(machine.look_for(DeviceClass::Tpu).is_present, "older generations have /dev/accelN");
}
