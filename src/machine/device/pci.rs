//! The PCI bus as sysfs shows it.

use std::collections::BTreeSet;
use std::fs;

use super::Machine;

/// A function on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PciFunction {
    /// Domain, bus, device and function: `0000:00:04.0`.
    pub address: String,
    pub device_id: u16,
    /// Base class: 3 is a display controller.
    pub base_class: u8,
}

/// All functions of a vendor, in the order of their addresses. What cannot be read is left out.
pub(super) fn of_vendor(machine: &Machine, vendor_id: u16) -> Vec<PciFunction> {
    let Ok(entries) = fs::read_dir(machine.sys.join("bus/pci/devices")) else { return Vec::new() };
    let function = |entry: fs::DirEntry| {
        let number = |file: &str| {
            let text = fs::read_to_string(entry.path().join(file)).ok()?;
            u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
        };
        if number("vendor")? != u32::from(vendor_id) {
            return None;
        }
        Some(PciFunction {
            address: entry.file_name().into_string().ok()?,
            device_id: u16::try_from(number("device")?).ok()?,
            base_class: number("class").map_or(0, |class| (class >> 16) as u8),
        })
    };
    let mut functions: Vec<PciFunction> = entries.flatten().filter_map(function).collect();
    functions.sort_by(|one, other| one.address.cmp(&other.address));
    functions
}

/// How many devices these functions belong to: the functions of one differ in the last digit alone.
pub(super) fn devices<'a>(functions: impl IntoIterator<Item = &'a PciFunction>) -> usize {
    let base = |function: &'a PciFunction| function.address.split('.').next();
    functions.into_iter().filter_map(base).collect::<BTreeSet<_>>().len()
}
