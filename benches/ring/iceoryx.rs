//! iceoryx2: publish and subscribe in shared memory, a sample for each call. Its subscriber has no wait of its own.

use bench::measurement::ring::{RawRecord, clock_ns};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use super::link::{BATCH, CAPACITY, Failure, Link, Received, Receiver, Sender, emitted_ns, record};

type Service = ipc_threadsafe::Service;
/// A record as it is, in words.
type Words = [u64; size_of::<RawRecord>() / 8];

/// The receiver looks all the time.
pub struct Spinning;

/// The writing end.
pub struct Publishing(Publisher<Service, [Words], ()>);

/// The reading end.
pub struct Subscribed(Subscriber<Service, [Words], ()>);

impl Link for Spinning {
    type Sender = Publishing;
    type Receiver = Subscribed;
    const NAME: &'static str = "iceoryx2";
    const SPINS: bool = true;

    fn connect() -> Result<(Publishing, Subscribed), Failure> {
        set_log_level(LogLevel::Error); // that it has no file of settings is no news
        let node = NodeBuilder::new().create::<Service>()?;
        let name = format!("bench/ring/{}/{}", std::process::id(), clock_ns());
        let service = node
            .service_builder(&name.as_str().try_into()?)
            .publish_subscribe::<[Words]>()
            .subscriber_max_buffer_size(CAPACITY)
            .enable_safe_overflow(false)
            .max_publishers(1)
            .max_subscribers(1)
            .create()?;
        let subscriber = service.subscriber_builder().buffer_size(CAPACITY).create()?;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(BATCH)
            .backpressure_strategy(BackpressureStrategy::DiscardData)
            .create()?;
        Ok((Publishing(publisher), Subscribed(subscriber)))
    }
}

impl Sender for Publishing {
    /// A sample that finds no room is discarded, and counts as not sent.
    fn send(&mut self, records: &mut [RawRecord]) -> Result<bool, Failure> {
        records[0] = record(clock_ns());
        let sample = self.0.loan_slice_uninit(records.len())?;
        let sample = sample.write_from_slice(bytemuck::cast_slice(records));
        Ok(sample.send()? > 0)
    }
}

impl Receiver for Subscribed {
    fn receive(&mut self) -> Result<Option<Received>, Failure> {
        let Some(sample) = self.0.receive()? else { return Ok(None) };
        let first: RawRecord = bytemuck::cast(sample.payload()[0]);
        let received_ns = clock_ns();
        Ok(Some(Received { records: sample.payload().len(), emitted_ns: emitted_ns(&first), received_ns }))
    }
}
