//! The C++ ring as cxx links it. Only [`super`] uses it.
#![allow(unsafe_code)] // cxx's bridge; the C++ side checks lengths, indices and headers itself

#[cxx::bridge(namespace = "bench")]
pub mod bridge {
    unsafe extern "C++" {
        include!("ring_cxx.h");

        type SharedRing;

        fn push(self: Pin<&mut SharedRing>, words: &[u64]) -> bool;
        fn pop(
            self: Pin<&mut SharedRing>,
            out: &mut [u64],
            looks: u32,
            received_ns: &mut u64,
            not_before_ns: &mut u64,
        ) -> i64;
        fn wait(self: Pin<&mut SharedRing>, timeout_ms: u32) -> i32;
        fn watch_hiccups(self: Pin<&mut SharedRing>, longer_than_ns: u64, capacity: usize);
        fn hiccups(self: &SharedRing) -> &[u64];
        fn hiccup_count(self: &SharedRing) -> usize;
        fn is_locked(self: &SharedRing) -> bool;
        fn dropped(self: &SharedRing) -> u64;

        fn attach_ring(fd: i32, wake_fd: i32, stream: u32, is_producer: bool) -> Result<UniquePtr<SharedRing>>;
        fn format_ring(fd: i32, stream: u32, capacity: u32) -> Result<()>;
        fn ring_bytes(capacity: u32) -> usize;
        fn ring_abi_version() -> u32;
        fn ring_clock_ns() -> u64;
        fn ring_message(status: i32) -> String;
    }
}

// SAFETY: a SharedRing is a mapping and indices, none of them bound to a thread. It is used by one thread at a time,
// which `&mut` on the Rust side enforces; it is not Sync.
unsafe impl Send for bridge::SharedRing {}
