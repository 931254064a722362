//! The ring: against a model, between processes, under ThreadSanitizer, going to sleep, corrupted, and through its C ABI.

mod corruption;
mod library;
mod model;
mod native;
mod processes;
mod recorder;
mod thread_sanitizer;
mod wake_up;

use bench::measurement::ring::RawRecord;
use bench::measurement::ring::protocol::EndedRecord;
use bytemuck::Zeroable;

/// A record in which every word but the stamp follows from `number`.
fn numbered(number: u64) -> RawRecord {
    RawRecord::of(&EndedRecord {
        kind: EndedRecord::KIND,
        count: number as u8,
        step: number as u32,
        steps: number,
        reserved: std::array::from_fn(|word| number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(word as u32)),
        ..EndedRecord::zeroed()
    })
}

/// Stamp of a record, whatever its kind.
fn emitted_ns(record: &RawRecord) -> u64 {
    record.view::<EndedRecord>().emitted_ns
}

/// The number of a record that [`numbered`] made; panics if a word of it is not what was pushed.
fn number_of(record: &RawRecord) -> u64 {
    let seen: &EndedRecord = record.view();
    let pushed = numbered(seen.steps);
    assert_eq!(*seen, EndedRecord { emitted_ns: seen.emitted_ns, ..*pushed.view::<EndedRecord>() }, "a torn record");
    seen.steps
}
