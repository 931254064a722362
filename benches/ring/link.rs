//! What every way has: two ends for one record at a time, or for many at once.

use bench::measurement::ring::RawRecord;
use bench::measurement::ring::protocol::EndedRecord;
use bytemuck::Zeroable;

/// What goes wrong goes to the user as it is.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Records in one call at most.
pub const BATCH: usize = 64;
/// Records that a way holds, where it can be told.
pub const CAPACITY: usize = 4096;

/// The end on the engine's core.
pub trait Sender: Send {
    /// Reads the clock, and hands over `records` with that stamp in the first one. False if there is no room now.
    fn send(&mut self, records: &mut [RawRecord]) -> Result<bool, Failure>;
}

/// The end on the recorder's core.
pub trait Receiver: Send {
    /// What is there, after a look or, where it sleeps, a bounded wait; `None` if nothing is.
    fn receive(&mut self) -> Result<Option<Received>, Failure>;
}

/// What one receive took.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Records.
    pub records: usize,
    /// The sender's clock in the first of them.
    pub emitted_ns: u64,
    /// The receiver's clock, once it could read the record.
    pub received_ns: u64,
}

/// A way between two threads.
pub trait Link {
    /// The end on the engine's core.
    type Sender: Sender;
    /// The end on the recorder's core.
    type Receiver: Receiver;
    /// As the table calls it.
    const NAME: &'static str;
    /// Whether the receiver looks all the time.
    const SPINS: bool;

    /// Both ends, connected.
    fn connect() -> Result<(Self::Sender, Self::Receiver), Failure>;
}

/// An event as they go through the ring.
pub fn record(emitted_ns: u64) -> RawRecord {
    RawRecord::of(&EndedRecord { kind: EndedRecord::KIND, emitted_ns, ..Zeroable::zeroed() })
}

/// The stamp of a record.
pub fn emitted_ns(record: &RawRecord) -> u64 {
    record.view::<EndedRecord>().emitted_ns
}
