//! Error budgets that were measured before, kept while host, cores, build and wait strategy stay the same; and the cpu's own
//! peaks, kept while host and cores do.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::CpuPeaks;
use super::{ErrorBudget, Identity};
use crate::base::atomic_file::{self, Durability};
use crate::base::bounded_file::read_bounded;
use crate::base::owned_folder;

/// Largest file that is read; real ones have a few kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// The budget that was kept for `identity`. One that cannot be read, or is another's, is measured anew.
pub fn cached(cache: &Path, identity: &Identity) -> Option<ErrorBudget> {
    let text = read_bounded(&path(cache, identity), MAX_BYTES).ok()?;
    let budget: ErrorBudget = serde_json::from_slice(&text).ok()?;
    (budget.identity == *identity).then_some(budget)
}

/// Keeps a budget. A cache that cannot be written costs the next command the time of a calibration, no more.
pub fn keep(cache: &Path, identity: &Identity, budget: &ErrorBudget) {
    write(&path(cache, identity), budget);
}

fn write(path: &Path, value: &impl Serialize) {
    let write = || -> std::io::Result<()> {
        owned_folder::make(path.parent().unwrap_or(path))?;
        atomic_file::replace(path, Durability::Process, |out| {
            serde_json::to_writer_pretty(&mut *out, value)?;
            out.write_all(b"\n")
        })
    };
    let _ = write();
}

/// The peaks that were probed on `cores` of `host`.
pub fn cached_cpu_peaks(cache: &Path, host: &str, cores: &[usize]) -> Option<CpuPeaks> {
    let text = read_bounded(&cpu_peaks_path(cache, host, cores), MAX_BYTES).ok()?;
    let peaks: CpuPeaks = serde_json::from_slice(&text).ok()?;
    (peaks.host == host && peaks.cores == cores).then_some(peaks)
}

/// Keeps peaks. Where the cache cannot be written, reports do without them.
pub fn keep_cpu_peaks(cache: &Path, peaks: &CpuPeaks) {
    write(&cpu_peaks_path(cache, &peaks.host, &peaks.cores), peaks);
}

fn cpu_peaks_path(cache: &Path, host: &str, cores: &[usize]) -> PathBuf {
    named(cache, &format!("{host}|{cores:?}|cpu peaks"))
}

/// One file for each host, cores and strategy; a new build takes the place of the old one's.
fn path(cache: &Path, identity: &Identity) -> PathBuf {
    let Identity { host, cores, wait_strategy, .. } = identity;
    named(cache, &format!("{host}|{cores:?}|{wait_strategy:?}"))
}

fn named(cache: &Path, what: &str) -> PathBuf {
    let digest = Sha256::digest(what);
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    cache.join("calibration").join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_place_of_a_kept_file_counts_as_none_without_waiting() {
        let cache = tempfile::tempdir().unwrap();
        let path = cpu_peaks_path(cache.path(), "host", &[0]);
        owned_folder::make(path.parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(cached_cpu_peaks(cache.path(), "host", &[0]), None);
    }
}
