//! The shared-memory rings between this process and the engine: single producer, single consumer, fixed-size records.
//!
//! The implementation is C++ (`ffi/ring.hpp`), the same code in both processes. Here are its safe faces.

mod ffi;
pub mod protocol;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};
use cxx::UniquePtr;
use ffi::bridge;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A ring could not be made or attached, or its peer has broken it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The library refused the memory, with its reason.
    #[error("ring: {0}")]
    Refused(String),
    /// A system call failed.
    #[error("ring: {what}: {source}")]
    System {
        /// Which call.
        what: &'static str,
        /// What the kernel said.
        source: nix::Error,
    },
}

/// CLOCK_MONOTONIC in nanoseconds, by the same code that stamps in C++.
pub fn clock_ns() -> u64 {
    bridge::ring_clock_ns()
}

/// ABI version of the ring that is linked.
pub fn abi_version() -> u32 {
    bridge::ring_abi_version()
}

/// One record before its kind is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RawRecord {
    words: [u64; protocol::RECORD_SIZE / 8],
}

impl RawRecord {
    /// The first byte.
    pub fn kind(&self) -> u8 {
        (self.words[0] & 0xFF) as u8
    }

    /// The record as one of its kind, which the caller has looked at.
    pub fn view<T: AnyBitPattern>(&self) -> &T {
        bytemuck::from_bytes(bytemuck::bytes_of(self))
    }

    /// A record of any kind as a raw one.
    pub fn of<T: NoUninit>(record: &T) -> RawRecord {
        *bytemuck::from_bytes(bytemuck::bytes_of(record))
    }
}

/// The sealed memory of a ring, to be passed to the other process.
#[derive(Debug)]
pub struct RingMemory {
    fd: OwnedFd,
    stream: u32,
}

impl RingMemory {
    /// An empty ring of `capacity` records (a power of two), sealed against resizing.
    pub fn create(stream: u32, capacity: u32) -> Result<RingMemory, RingError> {
        let bytes = bridge::ring_bytes(capacity);
        let fd = sealed_memory("bench-ring", bytes, |fd| {
            bridge::format_ring(fd.as_raw_fd(), stream, capacity).map_err(refused)
        })?;
        Ok(RingMemory { fd, stream })
    }

    /// Attaches as the consumer. `wake` is an eventfd if it may sleep.
    pub fn consumer(&self, wake: Option<BorrowedFd<'_>>) -> Result<Consumer, RingError> {
        Consumer::attach(self.fd.as_fd(), wake, self.stream)
    }

    /// Attaches as the producer. `wake` is the eventfd of a consumer that may sleep.
    pub fn producer(&self, wake: Option<BorrowedFd<'_>>) -> Result<Producer, RingError> {
        Producer::attach(self.fd.as_fd(), wake, self.stream)
    }
}

impl AsFd for RingMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A memfd of `bytes`, filled by `fill` and then sealed against every change of size.
pub fn sealed_memory(
    name: &str,
    bytes: usize,
    fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), RingError>,
) -> Result<OwnedFd, RingError> {
    let system = |what| move |source| RingError::System { what, source };
    let name = CString::new(name).map_err(|err| RingError::Refused(err.to_string()))?;
    let fd = memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
        .map_err(system("memfd_create"))?;
    nix::unistd::ftruncate(&fd, bytes as nix::libc::off_t).map_err(system("ftruncate"))?;
    fill(fd.as_fd())?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(system("sealing the memory"))?;
    Ok(fd)
}

/// All records that one look made visible, and when.
#[derive(Debug)]
pub struct Batch<'a> {
    /// CLOCK_MONOTONIC, read before anything was copied.
    pub received_ns: u64,
    /// The look before: the records were not there yet. `None` on a ring's first look.
    pub not_before_ns: Option<u64>,
    /// The records, in the order in which they were pushed.
    pub records: &'a [RawRecord],
}

impl Batch<'_> {
    /// The records became visible at most this long before `received_ns`; `u32::MAX` if that is not known, or is 4.29 s
    /// or more.
    pub fn poll_gap_ns(&self) -> u32 {
        let gap_ns = self.not_before_ns.map(|not_before_ns| self.received_ns.saturating_sub(not_before_ns));
        gap_ns.and_then(|gap_ns| u32::try_from(gap_ns).ok()).unwrap_or(u32::MAX)
    }
}

/// A time in which a reader that looks all the time did not look: its core did something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Hiccup {
    /// The last look before it, CLOCK_MONOTONIC.
    pub began_ns: u64,
    /// The first look after it.
    pub ended_ns: u64,
}

/// The reading side of a ring.
pub struct Consumer {
    ring: UniquePtr<bridge::SharedRing>,
    buffer: Box<[RawRecord]>,
}

/// Records that one pop copies at most; what is left keeps its stamp for the next.
const POP_RECORDS: usize = 256;

impl Consumer {
    /// Attaches to the ring in `fd`; refuses a header that is not exactly what this version makes.
    pub fn attach(fd: BorrowedFd<'_>, wake: Option<BorrowedFd<'_>>, stream: u32) -> Result<Consumer, RingError> {
        let ring = bridge::attach_ring(fd.as_raw_fd(), raw(wake), stream, false).map_err(refused)?;
        Ok(Consumer { ring, buffer: vec![RawRecord::zeroed(); POP_RECORDS].into_boxed_slice() })
    }

    /// Looks up to `looks` times for records; `None` if none came. Allocates nothing, calls no system call but the clock's.
    pub fn pop(&mut self, looks: u32) -> Result<Option<Batch<'_>>, RingError> {
        let (mut received_ns, mut not_before_ns) = (0, 0);
        let out: &mut [u64] = bytemuck::cast_slice_mut(&mut self.buffer);
        let n = self.ring.pin_mut().pop(out, looks, &mut received_ns, &mut not_before_ns);
        match n {
            0 => Ok(None),
            1.. => Ok(Some(Batch {
                received_ns,
                not_before_ns: (not_before_ns > 0).then_some(not_before_ns),
                records: &self.buffer[..n as usize],
            })),
            _ => Err(RingError::Refused(bridge::ring_message(-n as i32))),
        }
    }

    /// Sleeps until a record is there or `timeout_ms` has passed. Only if attached with an eventfd.
    pub fn wait(&mut self, timeout_ms: u32) -> Result<(), RingError> {
        match self.ring.pin_mut().wait(timeout_ms) {
            0 => Ok(()),
            status => Err(RingError::Refused(bridge::ring_message(status))),
        }
    }

    /// From now on keeps every gap between two looks that is longer than `longer_than_ns`, up to `capacity` of them.
    pub fn watch_hiccups(&mut self, longer_than_ns: u64, capacity: usize) {
        self.ring.pin_mut().watch_hiccups(longer_than_ns, capacity);
    }

    /// The gaps kept, in order, and how many there were, kept or not.
    pub fn hiccups(&self) -> (&[Hiccup], usize) {
        (bytemuck::cast_slice(self.ring.hiccups()), self.ring.hiccup_count())
    }

    /// Records that found the ring full, as the producer counted them.
    pub fn dropped(&self) -> u64 {
        self.ring.dropped()
    }

    /// Whether the memory is locked.
    pub fn is_locked(&self) -> bool {
        self.ring.is_locked()
    }
}

/// The writing side of a ring.
pub struct Producer {
    ring: UniquePtr<bridge::SharedRing>,
}

impl Producer {
    /// Attaches to the ring in `fd`; refuses a header that is not exactly what this version makes.
    pub fn attach(fd: BorrowedFd<'_>, wake: Option<BorrowedFd<'_>>, stream: u32) -> Result<Producer, RingError> {
        let ring = bridge::attach_ring(fd.as_raw_fd(), raw(wake), stream, true).map_err(refused)?;
        Ok(Producer { ring })
    }

    /// Stamps the records' `emitted_ns` and publishes them together; false if they found no room, which is counted.
    #[must_use]
    pub fn push(&mut self, records: &[RawRecord]) -> bool {
        self.ring.pin_mut().push(bytemuck::cast_slice(records))
    }

    /// Whether the memory is locked.
    pub fn is_locked(&self) -> bool {
        self.ring.is_locked()
    }

    /// Records that found the ring full.
    pub fn dropped(&self) -> u64 {
        self.ring.dropped()
    }
}

fn raw(wake: Option<BorrowedFd<'_>>) -> i32 {
    wake.map_or(-1, |fd| fd.as_raw_fd())
}

fn refused(err: cxx::Exception) -> RingError {
    RingError::Refused(err.what().to_owned())
}
