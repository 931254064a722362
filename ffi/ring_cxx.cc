// The ring's face for cxx, over the C ABI that the shared library exports.
#include "ring_cxx.h"

#include <stdexcept>

namespace bench {
namespace {

void throw_unless_ok(int status) {
  if (status != BENCH_RING_OK) throw std::runtime_error(bench_ring_message(status));
}

constexpr std::size_t kWords = BENCH_RECORD_SIZE / sizeof(std::uint64_t);

}  // namespace

bool SharedRing::push(rust::Slice<const std::uint64_t> words) noexcept {
  const auto n = static_cast<std::uint32_t>(words.size() / kWords);
  return bench_ring_push(ring_, reinterpret_cast<const bench_record*>(words.data()), n) == n;
}

std::int64_t SharedRing::pop(rust::Slice<std::uint64_t> out, std::uint32_t looks, std::uint64_t& received_ns,
                             std::uint64_t& not_before_ns) noexcept {
  const auto max = static_cast<std::uint32_t>(out.size() / kWords);
  // No pause instruction between two looks: the clock's own serialisation paces them, and under a hypervisor a pause
  // may leave the virtual machine.
  for (std::uint32_t i = 0; i < looks; ++i) {
    std::uint32_t n = 0;
    bench_look look{};
    const int status = bench_ring_pop(ring_, reinterpret_cast<bench_record*>(out.data()), max, &n, &look);
    if (status != BENCH_RING_OK) return -status;
    if (n == 0) {
      note_gap(look.not_before_ns);
      looked_ns_ = look.not_before_ns;
      continue;
    }
    note_gap(look.received_ns);
    looked_ns_ = 0;  // what follows is the reader's own work, not a gap between two looks
    received_ns = look.received_ns;
    not_before_ns = look.not_before_ns;
    return n;
  }
  return 0;
}

std::int32_t SharedRing::wait(std::uint32_t timeout_ms) noexcept {
  looked_ns_ = 0;
  return bench_ring_wait(ring_, timeout_ms);
}

void SharedRing::watch_hiccups(std::uint64_t longer_than_ns, std::size_t capacity) {
  hiccup_ns_ = longer_than_ns;
  hiccups_.assign(2 * capacity, 0);  // touched here, not while records are taken
  hiccup_count_ = 0;
  looked_ns_ = 0;
}

rust::Slice<const std::uint64_t> SharedRing::hiccups() const noexcept {
  const std::size_t kept = hiccup_count_ < hiccups_.size() / 2 ? hiccup_count_ : hiccups_.size() / 2;
  return {hiccups_.data(), 2 * kept};
}

void SharedRing::note_gap(std::uint64_t now_ns) noexcept {
  if (looked_ns_ == 0 || now_ns - looked_ns_ <= hiccup_ns_) return;
  const std::size_t at = 2 * hiccup_count_++;
  if (at + 1 >= hiccups_.size()) return;
  hiccups_[at] = looked_ns_;
  hiccups_[at + 1] = now_ns;
}

std::unique_ptr<SharedRing> attach_ring(std::int32_t fd, std::int32_t wake_fd, std::uint32_t stream, bool is_producer) {
  bench_ring* ring = nullptr;
  throw_unless_ok(bench_ring_attach(fd, wake_fd, stream, is_producer ? 1 : 0, &ring));
  return std::make_unique<SharedRing>(ring);
}

void format_ring(std::int32_t fd, std::uint32_t stream, std::uint32_t capacity) {
  throw_unless_ok(bench_ring_format(fd, stream, capacity));
}

std::size_t ring_bytes(std::uint32_t capacity) noexcept { return bench_ring_bytes(capacity); }

std::uint32_t ring_abi_version() noexcept { return bench_ring_abi_version(); }

std::uint64_t ring_clock_ns() noexcept { return bench_ring_clock_ns(); }

rust::String ring_message(std::int32_t status) { return rust::String(bench_ring_message(status)); }

}  // namespace bench
