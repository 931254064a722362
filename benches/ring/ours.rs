//! The ring of this package.

use std::os::fd::AsFd;

use bench::measurement::ring::protocol::EVENT_STREAM;
use bench::measurement::ring::{Consumer, Producer, RawRecord, RingMemory};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::link::{CAPACITY, Failure, Link, Received, Receiver, Sender, emitted_ns};

/// Looks in one call, about 100 us.
const LOOKS: u32 = 2_000;
const SLEEP_MS: u32 = 100;

/// The receiver looks all the time.
pub struct Spinning;
/// The receiver looks once, then sleeps until it is woken.
pub struct Sleeping;

/// The consumer, and where it sleeps what wakes it.
pub struct Taker {
    consumer: Consumer,
    wake: Option<EventFd>,
}

impl Link for Spinning {
    type Sender = Producer;
    type Receiver = Taker;
    const NAME: &'static str = "ring";
    const SPINS: bool = true;

    fn connect() -> Result<(Producer, Taker), Failure> {
        let memory = RingMemory::create(EVENT_STREAM, CAPACITY as u32)?;
        Ok((memory.producer(None)?, Taker { consumer: memory.consumer(None)?, wake: None }))
    }
}

impl Link for Sleeping {
    type Sender = Producer;
    type Receiver = Taker;
    const NAME: &'static str = "ring";
    const SPINS: bool = false;

    fn connect() -> Result<(Producer, Taker), Failure> {
        let memory = RingMemory::create(EVENT_STREAM, CAPACITY as u32)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let (producer, consumer) = (memory.producer(Some(wake.as_fd()))?, memory.consumer(Some(wake.as_fd()))?);
        Ok((producer, Taker { consumer, wake: Some(wake) }))
    }
}

impl Sender for Producer {
    /// The push stamps.
    fn send(&mut self, records: &mut [RawRecord]) -> Result<bool, Failure> {
        Ok(self.push(records))
    }
}

impl Receiver for Taker {
    fn receive(&mut self) -> Result<Option<Received>, Failure> {
        if let Some(batch) = self.consumer.pop(if self.wake.is_some() { 1 } else { LOOKS })? {
            let emitted_ns = batch.records.first().map_or(0, emitted_ns);
            return Ok(Some(Received { records: batch.records.len(), emitted_ns, received_ns: batch.received_ns }));
        }
        if self.wake.is_some() {
            self.consumer.wait(SLEEP_MS)?;
        }
        Ok(None)
    }
}
