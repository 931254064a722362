//! Random sequences of pushes and pops against a plain queue.

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::Duration;

use bench::measurement::ring::protocol::EVENT_STREAM;
use bench::measurement::ring::{Consumer, Producer, RingMemory, clock_ns};
use proptest::prelude::*;

use crate::{emitted_ns, number_of, numbered};

/// What one pop copies at most.
const POP_RECORDS: usize = 256;

#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Pushes so many records, in parts of 64 of twice the capacity, at once.
    Push(u8),
    Pop,
    /// A new handle in place of the old one, as after a restart of that side.
    ReplaceProducer,
    ReplaceConsumer,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        10 => (0..=64u8).prop_map(Operation::Push),
        3 => (0..=3u8).prop_map(Operation::Push),
        10 => Just(Operation::Pop),
        1 => Just(Operation::ReplaceProducer),
        1 => Just(Operation::ReplaceConsumer),
    ]
}

/// A record in the model: its number, and the clock before and after its push.
struct Pushed {
    number: u64,
    within_ns: (u64, u64),
}

struct Model {
    memory: RingMemory,
    producer: Producer,
    consumer: Consumer,
    capacity: usize,
    queue: VecDeque<Pushed>,
    next_number: u64,
    dropped: u64,
    /// Records that the last look made visible and no pop has taken yet, and the stamp of that look.
    seen: usize,
    seen_ns: u64,
    last_emitted_ns: u64,
}

impl Model {
    fn new(capacity: u32) -> Model {
        let memory = RingMemory::create(EVENT_STREAM, capacity).unwrap();
        let (producer, consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
        Model {
            memory,
            producer,
            consumer,
            capacity: capacity as usize,
            queue: VecDeque::new(),
            next_number: 0,
            dropped: 0,
            seen: 0,
            seen_ns: 0,
            last_emitted_ns: 0,
        }
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Push(parts) => self.push((usize::from(parts) * self.capacity * 2).div_ceil(64)),
            Operation::Pop => self.pop(),
            Operation::ReplaceProducer => self.producer = self.memory.producer(None).unwrap(),
            Operation::ReplaceConsumer => {
                self.consumer = self.memory.consumer(None).unwrap();
                self.seen = 0;
            }
        }
        assert_eq!((self.producer.dropped(), self.consumer.dropped()), (self.dropped, self.dropped));
    }

    fn push(&mut self, count: usize) {
        let numbers = self.next_number..self.next_number + count as u64;
        let records: Vec<_> = numbers.clone().map(numbered).collect();
        let before_ns = clock_ns();
        let pushed = self.producer.push(&records);
        let within_ns = (before_ns, clock_ns());
        assert_eq!(pushed, count <= self.capacity - self.queue.len(), "{count} records, {} in use", self.queue.len());
        if pushed {
            self.next_number = numbers.end;
            self.queue.extend(numbers.map(|number| Pushed { number, within_ns }));
        } else {
            self.dropped += count as u64;
        }
    }

    fn pop(&mut self) {
        let before_ns = clock_ns();
        let looks = self.seen == 0;
        if looks {
            self.seen = self.queue.len();
        }
        let take = self.seen.min(POP_RECORDS);
        let Some(batch) = self.consumer.pop(1).unwrap() else {
            assert_eq!(take, 0, "records were there and none was popped");
            return;
        };
        assert_eq!(batch.records.len(), take);
        if looks {
            assert!(
                (before_ns..=clock_ns()).contains(&batch.received_ns),
                "the stamp is of another time than the look"
            );
            self.seen_ns = batch.received_ns;
        }
        assert_eq!(batch.received_ns, self.seen_ns, "records of one look have different stamps");
        let mut last_push_ns = None;
        for (record, pushed) in batch.records.iter().zip(self.queue.drain(..take)) {
            let (first_ns, last_ns) = pushed.within_ns;
            assert_eq!(number_of(record), pushed.number);
            assert!((first_ns..=last_ns).contains(&emitted_ns(record)), "stamped outside its push");
            assert!(self.last_emitted_ns <= emitted_ns(record) && emitted_ns(record) <= batch.received_ns);
            if last_push_ns == Some(pushed.within_ns) {
                assert_eq!(emitted_ns(record), self.last_emitted_ns, "records of one push have different stamps");
            }
            last_push_ns = Some(pushed.within_ns);
            self.last_emitted_ns = emitted_ns(record);
        }
        self.seen -= take;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_behaves_as_a_queue(log_capacity in 1..=11u32, operations in prop::collection::vec(operation(), 1..150)) {
        let mut model = Model::new(1 << log_capacity);
        operations.into_iter().for_each(|operation| model.apply(operation));
    }
}

#[test]
fn what_one_look_saw_keeps_its_stamp_and_what_came_later_gets_another() {
    let memory = RingMemory::create(EVENT_STREAM, 1024).unwrap();
    let (mut producer, mut consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
    let records: Vec<_> = (0..301).map(numbered).collect();
    assert!(producer.push(&records[..300]));
    let mut popped = Vec::new();
    for _ in 0..3 {
        let batch = consumer.pop(1).unwrap().unwrap();
        popped.push((batch.records.len(), batch.received_ns));
        if popped.len() == 1 {
            assert!(producer.push(&records[300..]));
        }
    }
    let [first, second, third] = popped[..] else { panic!("{popped:?}") };
    assert_eq!((first.0, second.0, third.0), (POP_RECORDS, 300 - POP_RECORDS, 1));
    assert_eq!(first.1, second.1);
    assert!(third.1 > second.1);
}

#[test]
fn a_full_ring_counts_what_it_refuses_and_keeps_what_it_has() {
    let memory = RingMemory::create(EVENT_STREAM, 8).unwrap();
    let (mut producer, mut consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
    let records: Vec<_> = (0..9).map(numbered).collect();
    assert!(!producer.push(&records), "a batch larger than the ring");
    assert!(producer.push(&records[..6]));
    assert!(!producer.push(&records[6..]), "half a batch would fit");
    assert!(producer.push(&records[6..8]));
    assert!(!producer.push(&records[8..]));
    assert_eq!(consumer.dropped(), 9 + 3 + 1);
    let batch = consumer.pop(1).unwrap().unwrap();
    assert_eq!(batch.records.iter().map(number_of).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
}

#[test]
fn a_record_became_visible_between_the_last_empty_look_and_its_stamp() {
    let memory = RingMemory::create(EVENT_STREAM, 8).unwrap();
    let (mut producer, mut consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
    assert!(producer.push(&[numbered(0)]));
    let first = consumer.pop(1).unwrap().unwrap();
    assert_eq!((first.not_before_ns, first.poll_gap_ns()), (None, u32::MAX), "there was no look before");
    for number in 1..1_000 {
        assert!(consumer.pop(3).unwrap().is_none());
        let before_push_ns = clock_ns();
        assert!(producer.push(&[numbered(number)]));
        let batch = consumer.pop(1).unwrap().unwrap();
        let not_before_ns = batch.not_before_ns.unwrap();
        assert!(not_before_ns <= before_push_ns && emitted_ns(&batch.records[0]) <= batch.received_ns);
        assert_eq!(u64::from(batch.poll_gap_ns()), batch.received_ns - not_before_ns);
    }
}

#[test]
fn a_reader_that_did_not_look_for_a_while_has_a_hiccup_and_one_that_worked_has_none() {
    let pause = Duration::from_millis(20);
    let memory = RingMemory::create(EVENT_STREAM, 8).unwrap();
    let (mut producer, mut consumer) = (memory.producer(None).unwrap(), memory.consumer(None).unwrap());
    consumer.watch_hiccups(pause.as_nanos() as u64 - 1, 2);
    assert!(consumer.pop(1).unwrap().is_none());
    for number in 0..3 {
        sleep(pause); // between two looks
        assert!(producer.push(&[numbered(number)]));
        let received_ns = consumer.pop(1).unwrap().unwrap().received_ns;
        let (hiccups, count) = consumer.hiccups();
        assert_eq!((hiccups.len(), count), (2.min(number as usize + 1), number as usize + 1));
        if number < 2 {
            let last = hiccups[number as usize];
            assert_eq!(last.ended_ns, received_ns);
            assert!(last.ended_ns - last.began_ns >= pause.as_nanos() as u64);
        }
        sleep(pause); // the reader's own work on what it took
        assert!(consumer.pop(1).unwrap().is_none());
    }
    assert_eq!(consumer.hiccups().1, 3);
}
