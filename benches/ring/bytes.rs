//! Pipes and Unix sockets: a stream of bytes, cut into records again.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use bench::measurement::ring::{RawRecord, clock_ns};
use bytemuck::Zeroable;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::link::{BATCH, Failure, Link, Received, Receiver, Sender, emitted_ns, record};

/// A pipe of which the reader does not block and looks all the time.
pub struct SpinningPipe;
/// A pipe of which the reader blocks.
pub struct SleepingPipe;
/// A stream socket of which the reader does not block and looks all the time.
pub struct SpinningSocket;
/// A stream socket of which the reader blocks.
pub struct SleepingSocket;

/// The writing end.
pub struct Writer<W>(W);

/// The reading end, with the beginning of a record that was cut.
pub struct Reader<R> {
    stream: R,
    records: [RawRecord; BATCH],
    filled_bytes: usize,
}

impl<R> Reader<R> {
    fn new(stream: R) -> Self {
        Reader { stream, records: [RawRecord::zeroed(); BATCH], filled_bytes: 0 }
    }
}

impl Link for SpinningPipe {
    type Sender = Writer<PipeWriter>;
    type Receiver = Reader<PipeReader>;
    const NAME: &'static str = "pipe";
    const SPINS: bool = true;

    fn connect() -> Result<(Self::Sender, Self::Receiver), Failure> {
        let (reader, writer) = std::io::pipe()?;
        do_not_block(writer.as_fd())?;
        do_not_block(reader.as_fd())?;
        Ok((Writer(writer), Reader::new(reader)))
    }
}

impl Link for SleepingPipe {
    type Sender = Writer<PipeWriter>;
    type Receiver = Reader<PipeReader>;
    const NAME: &'static str = "pipe";
    const SPINS: bool = false;

    fn connect() -> Result<(Self::Sender, Self::Receiver), Failure> {
        let (reader, writer) = std::io::pipe()?;
        do_not_block(writer.as_fd())?;
        Ok((Writer(writer), Reader::new(reader)))
    }
}

impl Link for SpinningSocket {
    type Sender = Writer<UnixStream>;
    type Receiver = Reader<UnixStream>;
    const NAME: &'static str = "Unix socket";
    const SPINS: bool = true;

    fn connect() -> Result<(Self::Sender, Self::Receiver), Failure> {
        let (writer, reader) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        Ok((Writer(writer), Reader::new(reader)))
    }
}

impl Link for SleepingSocket {
    type Sender = Writer<UnixStream>;
    type Receiver = Reader<UnixStream>;
    const NAME: &'static str = "Unix socket";
    const SPINS: bool = false;

    fn connect() -> Result<(Self::Sender, Self::Receiver), Failure> {
        let (writer, reader) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        Ok((Writer(writer), Reader::new(reader)))
    }
}

fn do_not_block(fd: BorrowedFd<'_>) -> Result<(), Failure> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl<W: Write + Send> Sender for Writer<W> {
    fn send(&mut self, records: &mut [RawRecord]) -> Result<bool, Failure> {
        records[0] = record(clock_ns());
        let mut rest: &[u8] = bytemuck::cast_slice(records);
        let whole = rest.len();
        while !rest.is_empty() {
            match self.0.write(rest) {
                Ok(bytes) => rest = &rest[bytes..],
                Err(full) if full.kind() == ErrorKind::WouldBlock && rest.len() == whole => return Ok(false),
                // What was begun must be finished, or the records would be cut.
                Err(full) if full.kind() == ErrorKind::WouldBlock => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(true)
    }
}

impl<R: Read + Send> Receiver for Reader<R> {
    fn receive(&mut self) -> Result<Option<Received>, Failure> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.records);
        let read = match self.stream.read(&mut bytes[self.filled_bytes..]) {
            Ok(0) => return Err("the sender has left".into()),
            Ok(read) => read,
            Err(empty) if empty.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(failure) => return Err(failure.into()),
        };
        let received_ns = clock_ns();
        let filled_bytes = self.filled_bytes + read;
        let records = filled_bytes / size_of::<RawRecord>();
        let emitted_ns = emitted_ns(&self.records[0]);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.records);
        bytes.copy_within(records * size_of::<RawRecord>()..filled_bytes, 0);
        self.filled_bytes = filled_bytes % size_of::<RawRecord>();
        Ok((records > 0).then_some(Received { records, emitted_ns, received_ns }))
    }
}
