//! The samples of runs that were measured a moment ago, so that the numbers of a point need not be read from the disk.

use std::collections::HashMap;

use super::RunEntry;
use crate::analysis::metrics::Samples;

/// Most memory that is spent on it. Samples of runs beyond it are taken from the stored runs.
const MAX_BYTES: usize = 8 << 20;

/// Samples by run.
#[derive(Default)]
pub(super) struct SampleCache {
    of_run: HashMap<(String, u32), Samples>,
    bytes: usize,
}

impl SampleCache {
    /// Keeps the samples of a run, if there is room.
    pub(super) fn put(&mut self, run: &RunEntry, samples: Samples) {
        let bytes = samples.bytes();
        if self.bytes + bytes <= MAX_BYTES {
            self.bytes += bytes;
            self.of_run.insert(key(run), samples);
        }
    }

    /// Hands out what was kept of a run.
    pub(super) fn take(&mut self, run: &RunEntry) -> Option<Samples> {
        let samples = self.of_run.remove(&key(run))?;
        self.bytes -= samples.bytes();
        Some(samples)
    }
}

fn key(run: &RunEntry) -> (String, u32) {
    (run.identity.point.clone(), run.repeat)
}
