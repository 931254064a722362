//! The shared library that the sidecar loads is the ring that is linked here.
#![allow(unsafe_code)] // a library that is opened at run time, and its C functions

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bench::measurement::ring::protocol::{ABI_VERSION, EVENT_STREAM};
use bench::measurement::ring::{Consumer, RawRecord, RingMemory, abi_version, sealed_memory};
use bytemuck::Zeroable;
use libloading::{Library, Symbol};

use crate::{number_of, numbered};

type Attach = unsafe extern "C" fn(c_int, c_int, u32, c_int, *mut *mut c_void) -> c_int;
type Push = unsafe extern "C" fn(*mut c_void, *const RawRecord, u32) -> u32;
type Wait = unsafe extern "C" fn(*mut c_void, u32) -> c_int;
type Pop = unsafe extern "C" fn(*mut c_void, *mut RawRecord, u32, *mut u32, *mut [u64; 2]) -> c_int;

/// `libbench_ring.so` as build.rs has made it.
struct RingLibrary(Library);

impl RingLibrary {
    fn open() -> RingLibrary {
        // SAFETY: the library runs nothing as it is loaded, and of the Python functions in it none is called.
        RingLibrary(unsafe { Library::new(concat!(env!("OUT_DIR"), "/libbench_ring.so")) }.unwrap())
    }

    /// A function, with the type that `bench_ring.h` gives it.
    fn function<T>(&self, name: &str) -> Symbol<'_, T> {
        // SAFETY: every caller names the type as the header declares it.
        unsafe { self.0.get(name) }.unwrap()
    }

    fn attach(&self, fd: BorrowedFd<'_>, is_producer: bool) -> Result<*mut c_void, String> {
        let attach = self.function::<Attach>("bench_ring_attach");
        let mut ring = std::ptr::null_mut();
        // SAFETY: the descriptor is open, and `ring` outlives the call.
        match unsafe { attach(fd.as_raw_fd(), -1, EVENT_STREAM, c_int::from(is_producer), &mut ring) } {
            0 => Ok(ring),
            status => Err(self.message(status)),
        }
    }

    fn close(&self, ring: *mut c_void) {
        // SAFETY: `ring` came from attach, and its caller does not use it again.
        unsafe { self.function::<unsafe extern "C" fn(*mut c_void)>("bench_ring_close")(ring) }
    }

    fn message(&self, status: c_int) -> String {
        let message = self.function::<unsafe extern "C" fn(c_int) -> *const c_char>("bench_ring_message");
        // SAFETY: the function takes any status and gives a string that lives as long as the library.
        unsafe { CStr::from_ptr(message(status)) }.to_str().unwrap().to_owned()
    }

    fn bytes(&self, capacity: u32) -> usize {
        // SAFETY: a function of its argument alone.
        unsafe { self.function::<unsafe extern "C" fn(u32) -> usize>("bench_ring_bytes")(capacity) }
    }
}

#[test]
fn both_have_one_version_and_one_layout() {
    let library = RingLibrary::open();
    // SAFETY: a function without arguments.
    let version = unsafe { library.function::<unsafe extern "C" fn() -> u32>("bench_ring_abi_version")() };
    assert_eq!((version, abi_version()), (ABI_VERSION, ABI_VERSION));
    for capacity in [2, 64, 1 << 20] {
        let memory = RingMemory::create(EVENT_STREAM, capacity).unwrap();
        let size = nix::sys::stat::fstat(&memory).unwrap().st_size;
        assert_eq!(library.bytes(capacity), size as usize);
    }
}

#[test]
fn both_say_the_same_of_memory_that_is_no_ring() {
    let library = RingLibrary::open();
    for bytes in [0, 4096 + 64 * 2] {
        let memory = sealed_memory("no ring", bytes, |_| Ok(())).unwrap();
        let linked = Consumer::attach(memory.as_fd(), None, EVENT_STREAM).err().unwrap().to_string();
        assert_eq!(library.attach(memory.as_fd(), false).map_err(|message| format!("ring: {message}")), Err(linked));
    }
    let messages: Vec<String> = (0..=9).map(|status| library.message(status)).collect();
    assert_eq!((messages[0].as_str(), messages[9].as_str()), ("no error", "unknown status"));
    assert!((1..10).all(|at| !messages[..at].contains(&messages[at])), "two statuses say the same: {messages:?}");
}

#[test]
fn what_the_library_pushes_is_popped_here() {
    let library = RingLibrary::open();
    let memory = RingMemory::create(EVENT_STREAM, 64).unwrap();
    let mut consumer = memory.consumer(None).unwrap();
    let ring = library.attach(memory.as_fd(), true).unwrap();
    let records: Vec<_> = (0..65).map(numbered).collect();
    let push = library.function::<Push>("bench_ring_push");
    // SAFETY: `ring` is attached, and as many records are there as are claimed.
    let pushed = unsafe { [push(ring, records.as_ptr(), 65), push(ring, records.as_ptr(), 40)] };
    assert_eq!(pushed, [0, 40]);
    let batch = consumer.pop(1).unwrap().unwrap();
    assert!(batch.records.iter().map(number_of).eq(0..40));
    assert_eq!(consumer.dropped(), 65);
    library.close(ring);
}

#[test]
fn what_is_pushed_here_is_popped_by_the_library_that_made_the_ring() {
    let library = RingLibrary::open();
    let memory = sealed_memory("bench-ring", library.bytes(64), |fd| {
        let format = library.function::<unsafe extern "C" fn(c_int, u32, u32) -> c_int>("bench_ring_format");
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { format(fd.as_raw_fd(), EVENT_STREAM, 64) }, 0);
        Ok(())
    })
    .unwrap();
    let mut producer = bench::measurement::ring::Producer::attach(memory.as_fd(), None, EVENT_STREAM).unwrap();
    let ring = library.attach(memory.as_fd(), false).unwrap();
    assert!(producer.push(&(0..40).map(numbered).collect::<Vec<_>>()));
    let (mut records, mut n, mut look) = ([RawRecord::zeroed(); 64], 0, [0; 2]);
    let pop = library.function::<Pop>("bench_ring_pop");
    // SAFETY: `ring` is attached, and there is room for as many records as are asked for.
    assert_eq!(unsafe { pop(ring, records.as_mut_ptr(), 64, &mut n, &mut look) }, 0);
    assert!(records[..n as usize].iter().map(number_of).eq(0..40));
    let [received_ns, not_before_ns] = look;
    assert!(received_ns > crate::emitted_ns(&records[0]));
    assert_eq!(not_before_ns, 0, "there was no look before");
    library.close(ring);
}

#[test]
fn a_handle_of_one_side_refuses_the_functions_of_the_other() {
    let library = RingLibrary::open();
    let memory = RingMemory::create(EVENT_STREAM, 64).unwrap();
    let (mut producer, mut consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
    assert!(producer.push(&[numbered(1)]));
    let [to, from] = [true, false].map(|is_producer| library.attach(memory.as_fd(), is_producer).unwrap());
    let (mut record, mut n, mut look) = (numbered(2), 7, [7; 2]);
    // SAFETY: both handles are attached, and there is the one record that is claimed.
    let said = unsafe {
        assert_eq!(library.function::<Push>("bench_ring_push")(from, &record, 1), 0);
        let popped = library.function::<Pop>("bench_ring_pop")(to, &mut record, 1, &mut n, &mut look);
        [popped, library.function::<Wait>("bench_ring_wait")(to, 0)]
    };
    assert_eq!(said.map(|status| library.message(status)), ["the handle is of the ring's other side"; 2]);
    assert_eq!((number_of(&record), n), (2, 0), "something was popped");
    library.close(to);
    library.close(from);
    assert_eq!(consumer.dropped(), 0, "a refused push is no dropped record");
    assert!(consumer.pop(1).unwrap().unwrap().records.iter().map(number_of).eq([1]), "the ring was touched");
}
