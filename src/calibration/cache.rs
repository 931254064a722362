//! Error budgets that were measured before, kept while host, cores, build and wait strategy stay the same.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{ErrorBudget, Identity};
use crate::atomic_file::{self, Durability};

/// The budget that was kept for `identity`. One that cannot be read, or is another's, is measured anew.
pub fn cached(cache: &Path, identity: &Identity) -> Option<ErrorBudget> {
    let text = fs::read(path(cache, identity)).ok()?;
    let budget: ErrorBudget = serde_json::from_slice(&text).ok()?;
    (budget.identity == *identity).then_some(budget)
}

/// Keeps a budget. A cache that cannot be written costs the next command the time of a calibration, no more.
pub fn keep(cache: &Path, identity: &Identity, budget: &ErrorBudget) {
    let path = path(cache, identity);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(cache))?;
        atomic_file::replace(&path, Durability::Process, |out| {
            serde_json::to_writer_pretty(&mut *out, budget)?;
            out.write_all(b"\n")
        })
    };
    let _ = write();
}

/// One file for each host, cores and strategy; a new build takes the place of the old one's.
fn path(cache: &Path, identity: &Identity) -> PathBuf {
    let Identity { host, cores, wait_strategy, .. } = identity;
    let digest = Sha256::digest(format!("{host}|{cores:?}|{wait_strategy:?}"));
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    cache.join("calibration").join(format!("{name}.json"))
}
