//! Memory that is no sound ring is refused, and a ring that its peer breaks later is not followed.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bench::measurement::ring::protocol::{EVENT_STREAM, MAX_CAPACITY, REQUEST_STREAM};
use bench::measurement::ring::{Consumer, Producer, RingMemory, sealed_memory};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::{number_of, numbered};

const CAPACITY: u32 = 512;
const HEADER_BYTES: usize = 4096;
/// Offsets in the header, as `Header` in `ffi/ring.hpp` lays it out.
const CAPACITY_AT: u64 = 16;
const HEAD_AT: u64 = 128;
const TAIL_AT: u64 = 256;

const TOO_SMALL: &str = "ring: the shared memory is too small or cannot be mapped";
const NO_RING: &str = "ring: the shared memory does not hold a ring";
const OTHER_VERSION: &str = "ring: the ring was made by another version of bench";
const OTHER_LAYOUT: &str = "ring: the ring has another record size, capacity or stream than expected";
const BAD_INDEX: &str = "ring: the ring's index is impossible: the other process is broken";
const NOT_SEALED: &str = "ring: the shared memory is not sealed against resizing";
const SYSTEM: &str = "ring: a system call on the ring failed";

fn file(fd: &impl AsFd) -> File {
    File::from(fd.as_fd().try_clone_to_owned().unwrap())
}

fn write(memory: &RingMemory, at: u64, bytes: &[u8]) {
    file(memory).write_all_at(bytes, at).unwrap();
}

/// Whether both sides refuse `fd` with this message.
fn assert_refused(fd: &impl AsFd, message: &str) {
    let consumer = Consumer::attach(fd.as_fd(), None, EVENT_STREAM).err().map(|err| err.to_string());
    let producer = Producer::attach(fd.as_fd(), None, EVENT_STREAM).err().map(|err| err.to_string());
    assert_eq!((consumer.as_deref(), producer.as_deref()), (Some(message), Some(message)));
}

#[test]
fn each_corrupted_field_of_the_header_is_refused() {
    let word = |value: u32| value.to_ne_bytes().to_vec();
    let index = |value: u64| value.to_ne_bytes().to_vec();
    let cases = [
        ("magic", 0, index(0), NO_RING),
        ("ABI version 0", 8, word(0), OTHER_VERSION),
        ("next ABI version", 8, word(bench::measurement::ring::abi_version() + 1), OTHER_VERSION),
        ("record size", 12, word(128), OTHER_LAYOUT),
        ("capacity 0", CAPACITY_AT, word(0), OTHER_LAYOUT),
        ("capacity 1", CAPACITY_AT, word(1), OTHER_LAYOUT),
        ("capacity that is no power of two", CAPACITY_AT, word(CAPACITY - 1), OTHER_LAYOUT),
        ("capacity beyond the memory", CAPACITY_AT, word(CAPACITY * 2), OTHER_LAYOUT),
        ("capacity short of the memory", CAPACITY_AT, word(CAPACITY / 2), OTHER_LAYOUT),
        ("largest capacity", CAPACITY_AT, word(u32::MAX), OTHER_LAYOUT),
        ("stream", 20, word(REQUEST_STREAM), OTHER_LAYOUT),
        ("head beyond the capacity", HEAD_AT, index(u64::from(CAPACITY) + 1), BAD_INDEX),
        ("tail ahead of head", TAIL_AT, index(1), BAD_INDEX),
    ];
    for (field, at, bytes, message) in cases {
        println!("{field}");
        let memory = RingMemory::create(EVENT_STREAM, CAPACITY).unwrap();
        write(&memory, at, &bytes);
        assert_refused(&memory, message);
    }
    let sound = RingMemory::create(EVENT_STREAM, CAPACITY).unwrap();
    write(&sound, HEAD_AT, &index(u64::from(CAPACITY)));
    assert!(sound.consumer(None).is_ok(), "a full ring is sound");
}

#[test]
fn a_capacity_that_agrees_with_the_memory_but_is_no_power_of_two_is_refused() {
    let odd = sealed_memory("odd", HEADER_BYTES + 3 * 64, |fd| {
        let mut header = vec![0; HEADER_BYTES];
        file(&RingMemory::create(EVENT_STREAM, 4).unwrap()).read_exact_at(&mut header, 0).unwrap();
        header[CAPACITY_AT as usize] = 3;
        file(&fd).write_all_at(&header, 0).unwrap();
        Ok(())
    });
    assert_refused(&odd.unwrap(), OTHER_LAYOUT);
}

#[test]
fn a_ring_of_an_impossible_capacity_is_not_made() {
    for capacity in [0, 1, 3, 12, MAX_CAPACITY + 1, MAX_CAPACITY * 2] {
        let made = RingMemory::create(EVENT_STREAM, capacity).map(|_| capacity).map_err(|err| err.to_string());
        assert_eq!(made, Err(OTHER_LAYOUT.to_owned()), "{capacity}");
    }
}

#[test]
fn memory_of_the_wrong_size_is_refused() {
    let sized = |bytes| sealed_memory("sized", bytes, |_| Ok(())).unwrap();
    for bytes in [0, 1, HEADER_BYTES, HEADER_BYTES + 64] {
        assert_refused(&sized(bytes), TOO_SMALL);
    }
    // Not a page of it is taken: it is refused for its size alone.
    assert_refused(&sized(HEADER_BYTES + 64 * (MAX_CAPACITY as usize + 1)), OTHER_LAYOUT);
}

/// A ring, sound but for its seals.
fn with_seals(seals: SealFlag) -> OwnedFd {
    let memory = RingMemory::create(EVENT_STREAM, CAPACITY).unwrap();
    let mut bytes = vec![0; HEADER_BYTES + 64 * CAPACITY as usize];
    file(&memory).read_exact_at(&mut bytes, 0).unwrap();
    let copy = memfd_create("copy", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    file(&copy).write_all_at(&bytes, 0).unwrap();
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    copy
}

#[test]
fn memory_that_could_still_shrink_is_refused() {
    let (shrink, grow, seal) = (SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_SEAL);
    for seals in [SealFlag::empty(), shrink, grow | seal, shrink | seal, shrink | grow] {
        assert_refused(&with_seals(seals), NOT_SEALED);
    }
    assert!(Consumer::attach(with_seals(shrink | grow | seal).as_fd(), None, EVENT_STREAM).is_ok());
}

#[test]
fn what_is_no_shared_memory_is_refused() {
    let memory = RingMemory::create(EVENT_STREAM, CAPACITY).unwrap();
    let mut bytes = vec![0; HEADER_BYTES + 64 * CAPACITY as usize];
    file(&memory).read_exact_at(&mut bytes, 0).unwrap();
    let mut on_disk = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    on_disk.write_all(&bytes).unwrap();
    assert_refused(&on_disk, NOT_SEALED);
    assert_refused(&EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap(), TOO_SMALL);
    assert_refused(&nix::unistd::pipe().unwrap().0, TOO_SMALL);
}

#[test]
fn an_index_that_breaks_later_is_an_error_and_not_followed() {
    for head in [299, 300 + u64::from(CAPACITY) + 1, u64::MAX, 1 << 63] {
        let memory = RingMemory::create(EVENT_STREAM, CAPACITY).unwrap();
        let (mut producer, mut consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
        assert!(producer.push(&(0..300).map(numbered).collect::<Vec<_>>()));
        let mut popped = consumer.pop(1).unwrap().unwrap().records.len();
        write(&memory, HEAD_AT, &head.to_ne_bytes());
        // What the last sound look saw is still there to take.
        popped += consumer.pop(1).unwrap().unwrap().records.len();
        assert_eq!(popped, 300);
        for _ in 0..2 {
            assert_eq!(consumer.pop(1).unwrap_err().to_string(), BAD_INDEX, "head {head}");
        }
    }
}

#[test]
fn a_broken_consumer_makes_no_room() {
    for tail in [u64::from(CAPACITY) + 1, u64::MAX, 1 << 63] {
        let memory = RingMemory::create(EVENT_STREAM, CAPACITY).unwrap();
        let (mut producer, mut consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
        assert!(producer.push(&(0..u64::from(CAPACITY)).map(numbered).collect::<Vec<_>>()));
        write(&memory, TAIL_AT, &tail.to_ne_bytes());
        for refused in 1..=3 {
            assert!(!producer.push(&[numbered(9_999)]), "tail {tail}");
            assert_eq!(producer.dropped(), refused);
        }
        let batch = consumer.pop(1).unwrap().unwrap();
        assert!(batch.records.iter().map(number_of).eq(0..256), "unread records were overwritten");
    }
}

#[test]
fn a_consumer_that_goes_back_makes_no_room() {
    let memory = RingMemory::create(EVENT_STREAM, 2).unwrap();
    let (mut producer, mut consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
    for number in 0..10 {
        assert!(producer.push(&[numbered(number)]));
        assert_eq!(consumer.pop(1).unwrap().unwrap().records.len(), 1);
    }
    write(&memory, TAIL_AT, &0u64.to_ne_bytes());
    let results: Vec<bool> = (10..15).map(|number| producer.push(&[numbered(number)])).collect();
    // The producer may first use the room that it had already seen.
    assert_eq!(results.iter().skip_while(|pushed| **pushed).filter(|pushed| **pushed).count(), 0, "{results:?}");
    assert!(producer.dropped() >= 3, "{results:?}");
}

#[test]
fn a_capacity_that_changes_later_changes_nothing() {
    let memory = RingMemory::create(EVENT_STREAM, 4).unwrap();
    let (mut producer, mut consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
    write(&memory, CAPACITY_AT, &MAX_CAPACITY.to_ne_bytes());
    for number in 0..20 {
        assert!(producer.push(&[numbered(number)]));
        assert_eq!(number_of(&consumer.pop(1).unwrap().unwrap().records[0]), number);
    }
    assert!(!producer.push(&(0..5).map(numbered).collect::<Vec<_>>()));
}

#[test]
fn a_sleep_ends_whatever_it_was_given_to_be_woken_with() {
    let memory = RingMemory::create(EVENT_STREAM, 4).unwrap();
    let wait = |wake: Option<&dyn Fn() -> OwnedFd>, timeout_ms| {
        let wake = wake.map(|open| open());
        let mut consumer = memory.consumer(wake.as_ref().map(AsFd::as_fd)).unwrap();
        consumer.wait(timeout_ms).map_err(|err| err.to_string())
    };
    let (done, waited) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let blocking = || OwnedFd::from(EventFd::from_flags(EfdFlags::empty()).unwrap());
            done.send(wait(Some(&blocking), 10)).unwrap();
        });
        let result = waited.recv_timeout(Duration::from_secs(5));
        if result.is_err() {
            eprintln!("the consumer hangs on a blocking eventfd");
            std::process::exit(1); // the thread would never be joined
        }
        assert_eq!(result.unwrap(), Ok(()));
    });
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    assert_eq!(wait(Some(&null), 10), Err(SYSTEM.to_owned()), "no eventfd");
    assert_eq!(wait(None, 10), Err(SYSTEM.to_owned()), "attached without one");
}
