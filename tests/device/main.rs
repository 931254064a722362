//! Device classes on machines that a folder stands for, and on this one.

mod doctor;
mod gpus;
mod tpus;

use std::fs;
use std::path::Path;

use bench::machine::device::Machine;

/// A machine with nothing on it but a processor.
fn bare() -> (tempfile::TempDir, Machine) {
    let root = tempfile::tempdir().unwrap();
    for folder in ["sys/bus/pci/devices", "proc", "dev/vfio"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let cpuinfo = "processor\t: 0\nmodel name\t: Test CPU\nflags\t\t: fpu avx2 avx512f\n";
    fs::write(root.path().join("proc/cpuinfo"), cpuinfo).unwrap();
    fs::write(root.path().join("dev/vfio/vfio"), "").unwrap(); // the container device, which is no chip
    let path = |name: &str| root.path().join(name);
    let machine =
        Machine { sys: path("sys"), proc: path("proc"), dev: path("dev"), nvml: path("libnvidia-ml.so.1").into() };
    (root, machine)
}

/// Puts a function on the machine's PCI bus.
fn plug(root: &Path, address: &str, vendor: &str, device: &str, class: &str) {
    let folder = root.join("sys/bus/pci/devices").join(address);
    fs::create_dir_all(&folder).unwrap();
    for (name, value) in [("vendor", vendor), ("device", device), ("class", class)] {
        fs::write(folder.join(name), format!("{value}\n")).unwrap();
    }
}
