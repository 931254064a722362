//! TPU chips: on the PCI bus, and as the device nodes that libtpu opens.

use std::collections::BTreeMap;
use std::fs;

use super::pci::{self, PciFunction};
use super::{Check, Machine, Missing};

/// Google's PCI vendor id.
const VENDOR: u16 = 0x1ae0;

/// A generation of TPUs.
struct Generation {
    device_id: u16,
    name: &'static str,
    /// JAX devices on a chip: its TensorCores, or one where two work as one.
    devices_per_chip: u32,
}

/// The generations by their PCI device id. Ids: `jax/_src/hardware_utils.py` of jax 0.11.2. Devices of a chip:
/// `tpu_info/device.py` of tpu-info 0.7.1.
const GENERATIONS: [Generation; 5] = [
    Generation { device_id: 0x005e, name: "v4", devices_per_chip: 1 },
    Generation { device_id: 0x0063, name: "v5e", devices_per_chip: 1 },
    Generation { device_id: 0x0062, name: "v5p", devices_per_chip: 1 },
    Generation { device_id: 0x006f, name: "v6e", devices_per_chip: 1 },
    Generation { device_id: 0x0076, name: "v7x", devices_per_chip: 2 },
];

/// The checks, and the number of JAX devices if it is known.
pub(super) fn look(machine: &Machine) -> (Vec<Check>, Option<u32>) {
    let functions = pci::of_vendor(machine, VENDOR);
    let chips = chips(&functions);
    let of_chips =
        |(_, generation, count): &(u16, Option<&Generation>, u32)| Some(generation.as_ref()?.devices_per_chip * count);
    let devices = chips.iter().map(of_chips).sum::<Option<u32>>().filter(|devices| *devices > 0);
    let checks = vec![on_the_bus(machine, &functions, &chips), device_nodes(machine)];
    (checks, devices)
}

/// Device id, its generation if it is known, and the number of chips. Google's other PCI devices (network and disk of
/// its virtual machines) have the same vendor and are no processing accelerators, so that an unknown id counts only
/// with that class.
fn chips(functions: &[PciFunction]) -> Vec<(u16, Option<&'static Generation>, u32)> {
    const PROCESSING_ACCELERATOR: u8 = 0x12;
    let mut by_id: BTreeMap<u16, Vec<&PciFunction>> = BTreeMap::new();
    for function in functions {
        by_id.entry(function.device_id).or_default().push(function);
    }
    let known = |id: u16| GENERATIONS.iter().find(|generation| generation.device_id == id);
    by_id
        .into_iter()
        .filter(|(id, of_id)| known(*id).is_some() || of_id[0].base_class == PROCESSING_ACCELERATOR)
        .map(|(id, of_id)| (id, known(id), pci::devices(of_id) as u32))
        .collect()
}

fn on_the_bus(
    machine: &Machine,
    functions: &[PciFunction],
    chips: &[(u16, Option<&'static Generation>, u32)],
) -> Check {
    let what = format!("TPU chips on the PCI bus (vendor 0x1ae0 in {}/bus/pci/devices)", machine.sys.display());
    if chips.is_empty() {
        let others = match functions.len() {
            0 => "no device of this vendor".to_owned(),
            others => format!("{others} other devices of this vendor, and no TPU"),
        };
        let remedy = "run on a TPU VM (for Ironwood a tpu7x machine type), or in a container that sees the host's /sys";
        return Check::new(what, Err(Missing::new(others, remedy)));
    }
    let named = chips.iter().map(|(id, generation, count)| match generation {
        Some(generation) => format!(
            "{count} x TPU {} (0x{id:04x}), {} JAX device{} each",
            generation.name,
            generation.devices_per_chip,
            if generation.devices_per_chip == 1 { "" } else { "s" }
        ),
        None => format!("{count} x TPU of an unknown generation (0x{id:04x})"),
    });
    Check::new(what, Ok(named.collect::<Vec<_>>().join(", ")))
}

/// libtpu opens `/dev/vfio/N` from v5 on, `/dev/accelN` before.
fn device_nodes(machine: &Machine) -> Check {
    let dev = machine.dev.display();
    let what = format!("device nodes ({dev}/vfio/N or {dev}/accelN)");
    let numbered = |folder: &str, prefix: &str| -> usize {
        let Ok(entries) = fs::read_dir(machine.dev.join(folder)) else { return 0 };
        let is_numbered = |name: &str| {
            let digits = name.strip_prefix(prefix).unwrap_or_default();
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_numbered)).count()
    };
    let found = match (numbered("vfio", ""), numbered("", "accel")) {
        (0, 0) => {
            let remedy = "load the host's TPU driver (vfio-pci); a container needs the nodes passed in: --privileged, \
                          or --device for each";
            Err(Missing::new("none", remedy))
        }
        (vfio, 0) => Ok(format!("{vfio} in {dev}/vfio")),
        (_, accel) => Ok(format!("{accel} as {dev}/accelN")),
    };
    Check::new(what, found)
}
