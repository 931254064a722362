// The tap's side of the event ring: gathers the token events of one engine step and pushes them as one.
#pragma once

#include <cstdint>

#include "ring.hpp"

namespace bench {

// A producer that gathers in the ring's own slots, then stamps and publishes. One thread at a time.
class Tap : public Producer {
 public:
  using Producer::Producer;

  // The next step is step 0 of a new run.
  void begin_run() noexcept { step_ = 0; }

  // Begins a step of at most `events` token events. False if the ring has no room for them, which is counted; the step
  // is then without events.
  bool begin_step(std::uint32_t events) noexcept {
    events_ = 0;
    const std::uint32_t records = records_for(events);
    if (!has_room(records)) [[unlikely]] {
      drop(records);
      return false;
    }
    for (std::uint32_t i = 0; i < records; ++i) __builtin_prefetch(slot(i), 1);
    return true;
  }

  // Takes one token event. Only after begin_step has found room.
  void add(std::uint32_t request, std::uint16_t tokens) noexcept {
    const std::uint32_t at = events_ % kSlots;
    bench_tokens_record* record = record_at(events_++ / kSlots);
    if (at == 0) {
      record->kind = BENCH_KIND_TOKENS;
      record->flags = 0;
      record->step = step_;
    }
    record->request[at] = request;
    record->tokens[at] = tokens;
    record->count = static_cast<std::uint8_t>(at + 1);
  }

  // Ends the step: reads the clock, stamps all its events with it, and makes them visible together.
  void publish_step() noexcept {
    const std::uint32_t records = records_for(events_);
    if (records > 0) [[likely]] {
      prepare();
      const std::uint64_t emitted_ns = clock_ns();
      for (std::uint32_t i = 0; i < records; ++i) record_at(i)->emitted_ns = emitted_ns;
      Producer::publish(records);
    }
    ++step_;
  }

  // Steps ended in this run, and token events of the last one.
  std::uint32_t steps() const noexcept { return step_; }
  std::uint32_t events() const noexcept { return events_; }

 private:
  static constexpr std::uint32_t kSlots = BENCH_TOKENS_PER_RECORD;

  static std::uint32_t records_for(std::uint32_t events) noexcept { return (events + kSlots - 1) / kSlots; }
  bench_tokens_record* record_at(std::uint32_t i) noexcept {
    return reinterpret_cast<bench_tokens_record*>(slot(i));
  }

  std::uint32_t step_ = 0;
  std::uint32_t events_ = 0;
};
static_assert(sizeof(Tap) == kLine);

}  // namespace bench
