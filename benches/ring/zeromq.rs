//! ZeroMQ: PUSH and PULL over `ipc://`, a message for each call.

use bench::measurement::ring::{RawRecord, clock_ns};

use super::link::{BATCH, CAPACITY, Failure, Link, Received, Receiver, Sender, emitted_ns, record};

const WAIT_MS: i32 = 100;

/// The receiver does not block and looks all the time.
pub struct Spinning;
/// The receiver blocks.
pub struct Sleeping;

/// The writing end.
pub struct Push(zmq::Socket);

/// The reading end, whose folder holds the socket's name.
pub struct Pull {
    socket: zmq::Socket,
    flags: i32,
    records: [RawRecord; BATCH],
    _folder: tempfile::TempDir,
}

impl Link for Spinning {
    type Sender = Push;
    type Receiver = Pull;
    const NAME: &'static str = "ZeroMQ";
    const SPINS: bool = true;

    fn connect() -> Result<(Push, Pull), Failure> {
        connect(zmq::DONTWAIT)
    }
}

impl Link for Sleeping {
    type Sender = Push;
    type Receiver = Pull;
    const NAME: &'static str = "ZeroMQ";
    const SPINS: bool = false;

    fn connect() -> Result<(Push, Pull), Failure> {
        connect(0)
    }
}

fn connect(flags: i32) -> Result<(Push, Pull), Failure> {
    let folder = tempfile::tempdir()?;
    let address = format!("ipc://{}", folder.path().join("socket").display());
    let context = zmq::Context::new();
    let (push, pull) = (context.socket(zmq::PUSH)?, context.socket(zmq::PULL)?);
    push.set_sndhwm((CAPACITY / 2) as i32)?;
    pull.set_rcvhwm((CAPACITY / 2) as i32)?;
    pull.set_rcvtimeo(WAIT_MS)?;
    pull.bind(&address)?;
    push.connect(&address)?;
    let records = [bytemuck::Zeroable::zeroed(); BATCH];
    Ok((Push(push), Pull { socket: pull, flags, records, _folder: folder }))
}

impl Sender for Push {
    fn send(&mut self, records: &mut [RawRecord]) -> Result<bool, Failure> {
        records[0] = record(clock_ns());
        match self.0.send(bytemuck::cast_slice::<RawRecord, u8>(records), zmq::DONTWAIT) {
            Ok(()) => Ok(true),
            Err(zmq::Error::EAGAIN) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl Receiver for Pull {
    fn receive(&mut self) -> Result<Option<Received>, Failure> {
        match self.socket.recv_into(bytemuck::cast_slice_mut(&mut self.records), self.flags) {
            Ok(bytes) => {
                let received_ns = clock_ns();
                let records = bytes / size_of::<RawRecord>();
                Ok(Some(Received { records, emitted_ns: emitted_ns(&self.records[0]), received_ns }))
            }
            Err(zmq::Error::EAGAIN) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }
}
