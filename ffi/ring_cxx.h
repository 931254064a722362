// The ring's face for cxx: one side of a ring as an object that Rust owns.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bench_ring.h"
#include "rust/cxx.h"

namespace bench {

class SharedRing {
 public:
  explicit SharedRing(bench_ring* ring) noexcept : ring_(ring) {}
  SharedRing(const SharedRing&) = delete;
  SharedRing& operator=(const SharedRing&) = delete;
  ~SharedRing() { bench_ring_close(ring_); }

  // Whole records as words; returns whether they found room.
  bool push(rust::Slice<const std::uint64_t> words) noexcept;
  // Looks up to `looks` times; returns the number of records copied, or minus a status. The times are those of
  // bench_look, set when there are records.
  std::int64_t pop(rust::Slice<std::uint64_t> out, std::uint32_t looks, std::uint64_t& received_ns,
                   std::uint64_t& not_before_ns) noexcept;
  // Sleeps until a record is there or the time has passed; returns a status.
  std::int32_t wait(std::uint32_t timeout_ms) noexcept;
  // From now on keeps each gap between two looks that is longer than this, up to `capacity` of them.
  void watch_hiccups(std::uint64_t longer_than_ns, std::size_t capacity);
  // What was kept, begin and end one after the other; and how many there were, kept or not.
  rust::Slice<const std::uint64_t> hiccups() const noexcept;
  std::size_t hiccup_count() const noexcept { return hiccup_count_; }
  bool is_locked() const noexcept { return bench_ring_is_locked(ring_) != 0; }
  std::uint64_t dropped() const noexcept { return bench_ring_dropped(ring_); }

 private:
  void note_gap(std::uint64_t now_ns) noexcept;

  bench_ring* ring_;
  std::uint64_t looked_ns_ = 0;            // the last empty look; 0 if something else was done since
  std::uint64_t hiccup_ns_ = ~std::uint64_t{0};
  std::vector<std::uint64_t> hiccups_;
  std::size_t hiccup_count_ = 0;
};

// Attaches to the ring in `fd`; throws std::runtime_error with bench_ring_message.
std::unique_ptr<SharedRing> attach_ring(std::int32_t fd, std::int32_t wake_fd, std::uint32_t stream, bool is_producer);
// Formats the memory of `fd` as an empty ring; throws likewise.
void format_ring(std::int32_t fd, std::uint32_t stream, std::uint32_t capacity);
std::size_t ring_bytes(std::uint32_t capacity) noexcept;
std::uint32_t ring_abi_version() noexcept;
std::uint64_t ring_clock_ns() noexcept;
rust::String ring_message(std::int32_t status);

}  // namespace bench
