// A push that meets a consumer as it goes to sleep: no wake-up may be lost.
//
// Each round pushes two records. The first one brings both threads to one instant and leaves in each core's cache what
// it reads next (the producer `waiting`, the consumer `head`). Then the producer pushes the second one while the
// consumer waits for it, each after a spin of another length in every round. Without either of the two fences each
// side now and then reads the old value while its own store still lies in its store buffer: nobody wakes the consumer,
// and it sleeps for the whole of kSleepMs over a record that is there.
// Exits with 0 if that never happened, with 3 the first time, and with 1 if anything else is wrong.
#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "../bench_ring.h"

namespace {

constexpr std::uint32_t kStream = 7;
constexpr std::uint32_t kCapacity = 64;
constexpr std::uint32_t kRounds = 200'000;
constexpr std::uint32_t kSleepMs = 2'000;
constexpr std::uint32_t kMostSpins = 1'024;  // about a cycle each; what a push and a wait do before they meet is less
constexpr int kFailed = 1, kLost = 3;

[[noreturn]] void fail(const char* what, std::uint32_t round, int status = kFailed) {
  std::fprintf(stderr, "ring_wakeup: %s in round %u\n", what, round);
  std::_Exit(status);  // the other thread still runs
}

int make_memory() {
  const int fd = memfd_create("ring-wakeup", MFD_ALLOW_SEALING);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bench_ring_bytes(kCapacity))) != 0) fail("no memory", 0);
  if (bench_ring_format(fd, kStream, kCapacity) != BENCH_RING_OK) fail("cannot format the ring", 0);
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) fail("cannot seal the memory", 0);
  return fd;
}

// Keeps the two threads on two cores, where there are two: on one they would never meet.
void pin_to(bool last) {
  cpu_set_t usable, one;
  if (sched_getaffinity(0, sizeof usable, &usable) != 0) fail("cannot read the affinity", 0);
  CPU_ZERO(&one);
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &usable)) continue;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    if (!last) break;
  }
  if (sched_setaffinity(0, sizeof one, &one) != 0) fail("cannot set the affinity", 0);
}

// For a loop that waits for the other thread, which may need this one's core.
void yield_now_and_then(std::uint32_t looks) {
  if (looks % 4096 == 0) sched_yield();
}

// Below kMostSpins, spread evenly over the rounds; `salt` makes the two threads differ.
std::uint32_t spins_of(std::uint32_t round, std::uint32_t salt) {
  std::uint32_t mixed = (round * 2 + salt) * 2'654'435'769u;
  mixed ^= mixed >> 15;
  mixed *= 2'246'822'519u;
  return (mixed >> 16) % kMostSpins;
}

void spin(std::uint32_t spins) {
  for (std::uint32_t i = 0; i < spins; ++i) asm volatile("" ::: "memory");
}

void push(bench_ring* ring, std::uint32_t round) {
  const bench_record record = {{0, 0, round, 0, 0, 0, 0, 0}};
  if (bench_ring_push(ring, &record, 1) != 1) fail("a push was refused", round);
}

void produce(bench_ring* ring, const std::atomic<std::uint32_t>& rounds_done) {
  pin_to(false);
  for (std::uint32_t round = 0; round < kRounds; ++round) {
    for (std::uint32_t looks = 1; rounds_done.load(std::memory_order_acquire) != round; ++looks) {
      yield_now_and_then(looks);
    }
    push(ring, round);
    spin(2 * spins_of(round, 0));  // longer than the consumer's, which first has to see the record and to take it
    push(ring, round);
  }
}

// Takes a record of `round` if one is there, and says when it was pushed.
bool take(bench_ring* ring, std::uint32_t round, std::uint64_t* emitted_ns) {
  bench_record record;
  std::uint32_t n = 0;
  bench_look look{};
  if (bench_ring_pop(ring, &record, 1, &n, &look) != BENCH_RING_OK) fail("the ring is broken", round);
  if (n == 0) return false;
  if (record.words[2] != round) fail("another record came", round);
  *emitted_ns = record.words[1];
  return true;
}

void sleep_and_take(bench_ring* ring, std::uint32_t round) {
  constexpr std::uint64_t kSleepNs = kSleepMs * 1'000'000ull;
  for (;;) {
    const std::uint64_t began_ns = bench_ring_clock_ns();
    if (bench_ring_wait(ring, kSleepMs) != BENCH_RING_OK) fail("cannot wait", round);
    const std::uint64_t ended_ns = bench_ring_clock_ns();
    std::uint64_t emitted_ns = 0;
    if (!take(ring, round, &emitted_ns)) continue;
    // Where the producer was late, as on a busy machine, a long sleep is right.
    const bool was_there = ended_ns - emitted_ns > kSleepNs / 2;
    if (was_there && ended_ns - began_ns >= kSleepNs) fail("a wake-up was lost", round, kLost);
    return;
  }
}

void consume(bench_ring* ring, std::atomic<std::uint32_t>& rounds_done) {
  pin_to(true);
  for (std::uint32_t round = 0; round < kRounds; ++round) {
    std::uint64_t emitted_ns = 0;
    for (std::uint32_t looks = 1; !take(ring, round, &emitted_ns); ++looks) yield_now_and_then(looks);
    spin(spins_of(round, 1));
    sleep_and_take(ring, round);
    rounds_done.store(round + 1, std::memory_order_release);
  }
}

}  // namespace

int main() {
  const int fd = make_memory();
  const int wake_fd = eventfd(0, EFD_NONBLOCK);
  bench_ring *to = nullptr, *from = nullptr;
  if (bench_ring_attach(fd, wake_fd, kStream, 1, &to) != BENCH_RING_OK) fail("cannot attach", 0);
  if (bench_ring_attach(fd, wake_fd, kStream, 0, &from) != BENCH_RING_OK) fail("cannot attach", 0);
  std::atomic<std::uint32_t> rounds_done{0};
  std::thread producer([&] { produce(to, rounds_done); });
  consume(from, rounds_done);
  producer.join();
  bench_ring_close(to);
  bench_ring_close(from);
  std::puts("ring_wakeup: ok");
}
