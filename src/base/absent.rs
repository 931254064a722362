//! The value that stands for what is not known in records of fixed size.

/// Stands in a field for a time or a count that is not known. Times are nanoseconds since boot, so no real
/// value reaches it.
pub const ABSENT: u64 = u64::MAX;

/// `None` for [`ABSENT`].
pub fn known(value: u64) -> Option<u64> {
    (value != ABSENT).then_some(value)
}
