// The ring: one single-producer single-consumer queue in shared memory, for both processes.
//
// Memory: one page of header, then `capacity` records. The producer's index and the consumer's index count records
// since the ring was made and never wrap in practice (2^64 records); a slot is index % capacity.
//
// Orderings, each with its partner:
//   producer: head.store(release)   <->  consumer: head.load(acquire)   records are whole before they are seen
//   consumer: tail.store(release)   <->  producer: tail.load(acquire)   records are read before they are overwritten
//   producer: fence(seq_cst) after head.store  <->  consumer: fence(seq_cst) after waiting.store
//             either the producer sees the consumer waiting, or the consumer sees the new head: no wake-up is lost
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "bench_ring.h"

namespace bench {

inline constexpr std::size_t kHeaderBytes = 4096;
inline constexpr std::size_t kLine = 64;
inline constexpr std::size_t kSeparation = 128;  // two lines: the adjacent-line prefetcher moves lines in pairs

// What stands at the start of the shared memory.
struct Header {
  std::uint64_t magic;
  std::uint32_t abi_version;
  std::uint32_t record_size;
  std::uint32_t capacity;
  std::uint32_t stream;
  alignas(kSeparation) std::atomic<std::uint64_t> head;     // written by the producer
  std::atomic<std::uint64_t> dropped;                       // written by the producer
  alignas(kSeparation) std::atomic<std::uint64_t> tail;     // written by the consumer
  alignas(kSeparation) std::atomic<std::uint32_t> waiting;  // consumer: 1 before it sleeps; producer: 0 as it wakes
};
static_assert(sizeof(Header) <= kHeaderBytes);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);

std::uint64_t clock_ns() noexcept;

// A mapped ring; owns the mapping. Used through Producer or Consumer, never through both.
class Mapping {
 public:
  // Maps and checks; on failure the status says why and the mapping is empty.
  static int open(int fd, std::uint32_t stream, Mapping* out) noexcept;
  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  Header* header = nullptr;
  bench_record* records = nullptr;
  std::uint64_t mask = 0;
  bool locked = false;

 private:
  std::size_t bytes_ = 0;
};

// Writes records. One thread at a time. All that a push reads lies in one cache line, and its code in its caller: after
// milliseconds of other work each line costs a trip to memory, between the event and its stamp.
class alignas(kLine) Producer {
 public:
  Producer(Mapping* mapping, int wake_fd) noexcept;

  // Room for `n` more records? Looks at the consumer's index only when the last one seen leaves too little.
  bool has_room(std::uint32_t n) noexcept {
    if (limit_ - head_ >= n) [[likely]] return true;
    look_for_room();
    return limit_ - head_ >= n;
  }
  // The slot of the `i`-th record after the published ones. Only after has_room(i + 1).
  bench_record* slot(std::uint32_t i) noexcept { return &records_[(head_ + i) & mask_]; }
  // Asks for the line of the header that `publish` writes, which the consumer's looks have taken.
  void prepare() noexcept { __builtin_prefetch(&header_->head, 1); }
  // Makes the next `n` slots visible together, and wakes a sleeping consumer.
  void publish(std::uint32_t n) noexcept {
    head_ += n;
    header_->head.store(head_, std::memory_order_release);  // partner: Consumer::pop
    if (wake_fd_ >= 0) wake();
  }
  // Counts `n` records that found no room.
  void drop(std::uint32_t n) noexcept;
  std::uint32_t push(const bench_record* records, std::uint32_t n) noexcept;
  // Pushes records that are needed even late: waits for room, so long at most. That they found none is counted once.
  bool push_in_the_end(const bench_record* records, std::uint32_t n, std::uint64_t limit_ns) noexcept;

 private:
  // Takes the limit from the consumer's index.
  void look_for_room() noexcept;
  // Wakes a consumer that says it sleeps.
  void wake() noexcept;

  Header* header_;  // these three are the mapping's
  bench_record* records_;
  std::uint64_t mask_;
  std::uint64_t head_;   // next index to write
  std::uint64_t limit_;  // the index up to which there was room as last seen, never below `head_`
  int wake_fd_;
};

// Reads records. One thread at a time.
class Consumer {
 public:
  Consumer(Mapping* mapping, int wake_fd) noexcept;

  int pop(bench_record* out, std::uint32_t max, std::uint32_t* n, bench_look* look) noexcept;
  int wait(std::uint32_t timeout_ms) noexcept;

 private:
  Mapping* mapping_;
  int wake_fd_;
  std::uint64_t tail_;       // next index to read
  std::uint64_t seen_head_;  // the producer's index as last seen
  bench_look seen_;          // when that was, and when it was not there yet
  std::uint64_t looked_ns_;  // before the last look
};

}  // namespace bench
