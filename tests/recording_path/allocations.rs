//! What a thread allocates, counted: in Rust by the global allocator, in C++ by `operator new`.
#![allow(unsafe_code)] // an allocator is unsafe by its nature; both hand on to the system's

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;

use bench::machine::device::WaitStrategy;
use bench::measurement::ring::RingMemory;
use bench::measurement::ring::protocol::EVENT_STREAM;
use nix::libc;

use crate::rehearsal::Rehearsal;

thread_local! {
    // Made at compile time and never dropped, so that counting allocates nothing.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Allocations that `work` makes on this thread.
fn allocations<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = COUNT.get();
    let result = work();
    (result, COUNT.get() - before)
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's duties are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from System, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: `memory` came from System, with this layout.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

/// C++'s `operator new(std::size_t)`, which a program may replace. Its `operator delete` frees what malloc gave.
// SAFETY: the signature is that of the symbol on 64-bit systems; it gives memory for any object of `bytes`, or none at all.
#[unsafe(export_name = "_Znwm")]
extern "C" fn operator_new(bytes: usize) -> *mut c_void {
    COUNT.set(COUNT.get() + 1);
    // SAFETY: malloc takes any size.
    let memory = unsafe { libc::malloc(bytes.max(1)) };
    if memory.is_null() {
        std::process::abort(); // C++ would throw, through frames of Rust
    }
    memory
}

#[test]
fn the_count_sees_both_languages_and_its_own_thread_alone() {
    assert_eq!(allocations(|| drop(black_box(Vec::<u8>::with_capacity(8)))).1, 1);
    let memory = RingMemory::create(EVENT_STREAM, 2).unwrap();
    let mut consumer = memory.consumer(None).unwrap();
    assert_eq!(allocations(|| consumer.watch_hiccups(1, 8)).1, 1, "a std::vector of C++");
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || drop((wait.recv(), black_box(Vec::<u8>::with_capacity(8)))));
    assert_eq!(allocations(|| drop(go)).1, 0);
    other.join().unwrap();
}

#[test]
fn a_whole_run_allocates_nothing() {
    for wait in [WaitStrategy::Spin, WaitStrategy::SpinThenSleep, WaitStrategy::Sleep] {
        for stepped in [false, true] {
            let mut rehearsal = Rehearsal::begin(wait, stepped);
            let (result, count) = allocations(|| rehearsal.run());
            result.unwrap();
            rehearsal.check();
            assert_eq!(count, 0, "{wait:?}, stepped: {stepped}");
        }
    }
}
