//! What is asked of a whole sweep: in which order it goes, and what is checked between its runs.

/// What is of the whole sweep, and of no point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WholeSweep {
    /// When the sentinel runs.
    pub sentinel: Sentinel,
    /// Whether the state after a reset is compared with a fresh engine, once for each engine.
    pub check_reset: bool,
    /// Whether the runs of device classes alternate; else one class is measured after the other.
    pub interleave_devices: bool,
}

/// When the same work runs again, to show drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sentinel {
    /// Never.
    None,
    /// Where a sweep is long enough to need it.
    #[default]
    Auto,
    /// Before the first run of an epoch, after so many, and after its last one.
    Every(u32),
}
