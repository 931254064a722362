// A producer and a consumer thread on one mapping of a ring, to be built with -fsanitize=thread.
//
// Both threads use the same mapping, which no handle of the C ABI allows, because ThreadSanitizer knows memory by its
// address: over two mappings of one memfd it would see no race on a record. Exits with 0 if every record arrived whole
// and in order, and no sleep was longer than a lost wake-up would make it.
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <fcntl.h>

#include "../ring.hpp"

namespace {

constexpr std::uint32_t kStream = 7;
constexpr std::uint32_t kCapacity = 64;
constexpr std::uint64_t kRecords = 300'000;
constexpr std::uint32_t kSleepMs = 5'000;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "ring_stress: %s\n", what);
  std::_Exit(1);  // the other thread still runs
}

int make_memory() {
  const int fd = memfd_create("ring-stress", MFD_ALLOW_SEALING);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bench_ring_bytes(kCapacity))) != 0) fail("no memory");
  if (bench_ring_format(fd, kStream, kCapacity) != BENCH_RING_OK) fail("cannot format the ring");
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) fail("cannot seal the memory");
  return fd;
}

// Batches of 1 to 9; a full ring is tried again. Returns how many records were refused.
std::uint64_t produce(bench::Producer& producer) {
  bench_record batch[9] = {};
  std::uint64_t refused = 0;
  for (std::uint64_t next = 0; next < kRecords;) {
    const auto n = static_cast<std::uint32_t>(std::min<std::uint64_t>(1 + next % 9, kRecords - next));
    for (std::uint32_t i = 0; i < n; ++i) {
      for (std::uint64_t& word : batch[i].words) word = next + i;
    }
    while (producer.push(batch, n) == 0) {
      refused += n;
      std::this_thread::yield();
    }
    next += n;
  }
  return refused;
}

void consume(bench::Consumer& consumer, bool sleeps) {
  bench_record records[16];
  for (std::uint64_t next = 0; next < kRecords;) {
    std::uint32_t n = 0;
    bench_look look{};
    if (consumer.pop(records, 16, &n, &look) != BENCH_RING_OK) fail("the ring is broken");
    for (std::uint32_t i = 0; i < n; ++i, ++next) {
      const auto& words = records[i].words;
      if (words[0] != next || words[2] != next || words[7] != next) fail("a record is torn or out of order");
      if (words[1] > look.received_ns) fail("a record was received before it was emitted");
    }
    if (n > 0) continue;
    if (!sleeps) {
      std::this_thread::yield();
      continue;
    }
    const std::uint64_t slept_from_ns = bench_ring_clock_ns();
    if (consumer.wait(kSleepMs) != BENCH_RING_OK) fail("cannot wait");
    if (bench_ring_clock_ns() - slept_from_ns > kSleepMs * 900'000ull) fail("a wake-up was lost");
  }
}

void stress(bool sleeps) {
  const int fd = make_memory();
  const int wake_fd = sleeps ? eventfd(0, EFD_NONBLOCK) : -1;
  bench::Mapping mapping;
  if (bench::Mapping::open(fd, kStream, &mapping) != BENCH_RING_OK) fail("cannot map the ring");
  bench::Producer producer(&mapping, wake_fd);
  bench::Consumer consumer(&mapping, wake_fd);
  std::uint64_t refused = 0;
  std::thread pushing([&] { refused = produce(producer); });
  consume(consumer, sleeps);
  pushing.join();
  if (mapping.header->dropped.load() != refused) fail("dropped records were not counted");
  close(fd);
  if (wake_fd >= 0) close(wake_fd);
}

}  // namespace

int main() {
  stress(false);
  stress(true);
  std::puts("ring_stress: ok");
}
