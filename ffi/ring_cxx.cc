// The ring's face for cxx, over the C ABI that the shared library exports.
#include "ring_cxx.h"

#include <stdexcept>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bench {
namespace {

void throw_unless_ok(int status) {
  if (status != BENCH_RING_OK) throw std::runtime_error(bench_ring_message(status));
}

// Tells the core that this is a spin loop: saves power, and spares the other hardware thread.
void relax() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr std::size_t kWords = BENCH_RECORD_SIZE / sizeof(std::uint64_t);

}  // namespace

bool SharedRing::push(rust::Slice<const std::uint64_t> words) noexcept {
  const auto n = static_cast<std::uint32_t>(words.size() / kWords);
  return bench_ring_push(ring_, reinterpret_cast<const bench_record*>(words.data()), n) == n;
}

std::int64_t SharedRing::pop(rust::Slice<std::uint64_t> out, std::uint32_t looks, std::uint64_t& received_ns) noexcept {
  const auto max = static_cast<std::uint32_t>(out.size() / kWords);
  for (std::uint32_t look = 0; look < looks; ++look) {
    std::uint32_t n = 0;
    const int status = bench_ring_pop(ring_, reinterpret_cast<bench_record*>(out.data()), max, &n, &received_ns);
    if (status != BENCH_RING_OK) return -status;
    if (n > 0) return n;
    relax();
  }
  return 0;
}

std::int32_t SharedRing::wait(std::uint32_t timeout_ms) noexcept { return bench_ring_wait(ring_, timeout_ms); }

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
