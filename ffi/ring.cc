// Implementation of the ring and of its C ABI.
#include "handle.hpp"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <limits>
#include <new>

namespace bench {

std::uint64_t clock_ns() noexcept {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

namespace {

bool is_capacity(std::uint32_t capacity) noexcept {
  return capacity >= 2 && capacity <= BENCH_MAX_CAPACITY && (capacity & (capacity - 1)) == 0;
}

// Refuses memory that its owner could still shrink: touching it would then kill this process.
int check_sealed(int fd) noexcept {
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) return BENCH_RING_BAD_SEAL;
  constexpr int kNeeded = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  return (seals & kNeeded) == kNeeded ? BENCH_RING_OK : BENCH_RING_BAD_SEAL;
}

int check_header(const Header& header, std::uint32_t stream, std::size_t bytes) noexcept {
  if (header.magic != BENCH_RING_MAGIC) return BENCH_RING_BAD_MAGIC;
  if (header.abi_version != BENCH_ABI_VERSION) return BENCH_RING_BAD_ABI;
  if (header.record_size != BENCH_RECORD_SIZE || header.stream != stream) return BENCH_RING_BAD_LAYOUT;
  const std::uint32_t capacity = header.capacity;  // read once: the peer may still write to it
  if (!is_capacity(capacity) || bench_ring_bytes(capacity) != bytes) return BENCH_RING_BAD_LAYOUT;
  const std::uint64_t head = header.head.load(std::memory_order_acquire);  // partner: Producer::publish
  const std::uint64_t tail = header.tail.load(std::memory_order_acquire);  // partner: Consumer::pop
  return head - tail <= capacity ? BENCH_RING_OK : BENCH_RING_BAD_INDEX;
}

}  // namespace

int Mapping::open(int fd, std::uint32_t stream, Mapping* out) noexcept {
  struct stat info;
  if (fstat(fd, &info) != 0) return BENCH_RING_SYSTEM_ERROR;
  const auto bytes = static_cast<std::size_t>(info.st_size);
  if (bytes < bench_ring_bytes(2)) return BENCH_RING_BAD_MEMORY;
  if (bytes > bench_ring_bytes(BENCH_MAX_CAPACITY)) return BENCH_RING_BAD_LAYOUT;  // before mmap takes all of it
  if (const int status = check_sealed(fd); status != BENCH_RING_OK) return status;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (memory == MAP_FAILED) return BENCH_RING_BAD_MEMORY;
  out->header = static_cast<Header*>(memory);
  out->bytes_ = bytes;
  if (const int status = check_header(*out->header, stream, bytes); status != BENCH_RING_OK) return status;
  out->records = reinterpret_cast<bench_record*>(static_cast<char*>(memory) + kHeaderBytes);
  // From the size, which is sealed and has just been found equal to the capacity's.
  out->mask = (bytes - kHeaderBytes) / BENCH_RECORD_SIZE - 1;
  out->locked = mlock(memory, bytes) == 0;
  return BENCH_RING_OK;
}

Mapping::~Mapping() {
  if (header != nullptr) munmap(header, bytes_);
}

Producer::Producer(Mapping* mapping, int wake_fd) noexcept
    : header_(mapping->header),
      records_(mapping->records),
      mask_(mapping->mask),
      head_(0),
      limit_(0),
      wake_fd_(wake_fd) {
  if (header_ == nullptr) return;
  head_ = header_->head.load(std::memory_order_relaxed);  // written by this side only
  look_for_room();
}

void Producer::look_for_room() noexcept {
  const std::uint64_t capacity = mask_ + 1;
  const std::uint64_t tail = header_->tail.load(std::memory_order_acquire);  // partner: Consumer::pop
  // A consumer ahead of us, or too far behind, is broken, and there is no room.
  limit_ = head_ - tail <= capacity ? tail + capacity : head_;
}

void Producer::wake() noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);  // partner: Consumer::wait
  auto& waiting = header_->waiting;
  if (waiting.load(std::memory_order_relaxed) != 0 && waiting.exchange(0, std::memory_order_relaxed) != 0) {
    const std::uint64_t one = 1;
    // An eventfd write can only fail when the counter is full, and then the consumer is awake already.
    [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof one);
  }
}

void Producer::drop(std::uint32_t n) noexcept {
  auto& dropped = header_->dropped;  // written by this side only, so load and store need not be one
  dropped.store(dropped.load(std::memory_order_relaxed) + n, std::memory_order_release);  // partner: ring_dropped
}

std::uint32_t Producer::push(const bench_record* records, std::uint32_t n) noexcept {
  const std::uint64_t emitted_ns = clock_ns();
  if (!has_room(n)) {
    drop(n);
    return 0;
  }
  for (std::uint32_t i = 0; i < n; ++i) {
    bench_record* to = slot(i);
    *to = records[i];
    to->words[1] = emitted_ns;
  }
  publish(n);
  return n;
}

bool Producer::push_in_the_end(const bench_record* records, std::uint32_t n, std::uint64_t limit_ns) noexcept {
  const std::uint64_t began_ns = clock_ns();
  bool is_counted = false;
  while (!has_room(n)) {
    if (!is_counted) drop(n);
    is_counted = true;
    if (clock_ns() - began_ns > limit_ns) return false;
    const timespec pause{0, 100'000};
    nanosleep(&pause, nullptr);
  }
  return push(records, n) == n;
}

Consumer::Consumer(Mapping* mapping, int wake_fd) noexcept
    : mapping_(mapping), wake_fd_(wake_fd), tail_(0), seen_head_(0), seen_{}, looked_ns_(0) {
  if (mapping->header == nullptr) return;
  tail_ = mapping->header->tail.load(std::memory_order_relaxed);  // written by this side only
  seen_head_ = tail_;
}

int Consumer::pop(bench_record* out, std::uint32_t max, std::uint32_t* n, bench_look* look) noexcept {
  *n = 0;
  if (seen_head_ == tail_) {
    // Before the look: what the look does not find became visible after this instant.
    const std::uint64_t looked_ns = clock_ns();
    const std::uint64_t head = mapping_->header->head.load(std::memory_order_acquire);  // partner: Producer::publish
    const std::uint64_t not_before_ns = looked_ns_;
    looked_ns_ = looked_ns;
    if (head == tail_) {
      *look = {0, looked_ns};
      return BENCH_RING_OK;
    }
    seen_ = {clock_ns(), not_before_ns};
    if (head - tail_ > mapping_->mask + 1) return BENCH_RING_BAD_INDEX;
    seen_head_ = head;
  }
  const std::uint64_t there = seen_head_ - tail_;
  const std::uint32_t take = there < max ? static_cast<std::uint32_t>(there) : max;
  for (std::uint32_t i = 0; i < take; ++i) out[i] = mapping_->records[(tail_ + i) & mapping_->mask];
  tail_ += take;
  mapping_->header->tail.store(tail_, std::memory_order_release);  // partner: Producer::look_for_room
  *n = take;
  *look = seen_;
  return BENCH_RING_OK;
}

int Consumer::wait(std::uint32_t timeout_ms) noexcept {
  if (wake_fd_ < 0) return BENCH_RING_SYSTEM_ERROR;
  auto& header = *mapping_->header;
  header.waiting.store(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // partner: Producer::wake
  int ready = 0;
  if (header.head.load(std::memory_order_acquire) == tail_) {  // partner: Producer::publish
    pollfd wanted{wake_fd_, POLLIN, 0};
    constexpr std::uint32_t kMost = std::numeric_limits<int>::max();  // poll takes a negative limit for none
    ready = poll(&wanted, 1, static_cast<int>(timeout_ms < kMost ? timeout_ms : kMost));
    if (ready < 0 && errno != EINTR) return BENCH_RING_SYSTEM_ERROR;
  }
  header.waiting.store(0, std::memory_order_relaxed);
  if (ready <= 0) return BENCH_RING_OK;  // a wake-up still under way only makes the next sleep a short one
  std::uint64_t count;
  // Readable, so that this blocks on no eventfd; a descriptor that is none must not turn the sleep into a spin.
  return read(wake_fd_, &count, sizeof count) == sizeof count ? BENCH_RING_OK : BENCH_RING_SYSTEM_ERROR;
}

}  // namespace bench

extern "C" {

uint32_t bench_ring_abi_version(void) { return BENCH_ABI_VERSION; }

size_t bench_ring_bytes(uint32_t capacity) {
  return bench::kHeaderBytes + static_cast<size_t>(capacity) * BENCH_RECORD_SIZE;
}

uint64_t bench_ring_clock_ns(void) { return bench::clock_ns(); }

const char* bench_ring_message(int status) {
  switch (status) {
    case BENCH_RING_OK: return "no error";
    case BENCH_RING_BAD_MEMORY: return "the shared memory is too small or cannot be mapped";
    case BENCH_RING_BAD_MAGIC: return "the shared memory does not hold a ring";
    case BENCH_RING_BAD_ABI: return "the ring was made by another version of bench";
    case BENCH_RING_BAD_LAYOUT: return "the ring has another record size, capacity or stream than expected";
    case BENCH_RING_BAD_INDEX: return "the ring's index is impossible: the other process is broken";
    case BENCH_RING_BAD_SEAL: return "the shared memory is not sealed against resizing";
    case BENCH_RING_SYSTEM_ERROR: return "a system call on the ring failed";
    case BENCH_RING_WRONG_SIDE: return "the handle is of the ring's other side";
    default: return "unknown status";
  }
}

int bench_ring_format(int fd, uint32_t stream, uint32_t capacity) {
  if (!bench::is_capacity(capacity)) return BENCH_RING_BAD_LAYOUT;
  struct stat info;
  if (fstat(fd, &info) != 0) return BENCH_RING_SYSTEM_ERROR;
  if (static_cast<size_t>(info.st_size) != bench_ring_bytes(capacity)) return BENCH_RING_BAD_MEMORY;
  void* memory = mmap(nullptr, bench::kHeaderBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return BENCH_RING_BAD_MEMORY;
  auto* header = new (memory) bench::Header{};
  header->magic = BENCH_RING_MAGIC;
  header->abi_version = BENCH_ABI_VERSION;
  header->record_size = BENCH_RECORD_SIZE;
  header->capacity = capacity;
  header->stream = stream;
  munmap(memory, bench::kHeaderBytes);
  return BENCH_RING_OK;
}

int bench_ring_attach(int fd, int wake_fd, uint32_t stream, int is_producer, struct bench_ring** out) {
  auto* ring = new (std::nothrow) bench_ring;
  if (ring == nullptr) return BENCH_RING_BAD_MEMORY;
  if (const int status = bench::Mapping::open(fd, stream, &ring->mapping); status != BENCH_RING_OK) {
    delete ring;
    return status;
  }
  ring->is_producer = is_producer != 0;
  ring->tap = bench::Tap(&ring->mapping, wake_fd);
  ring->consumer = bench::Consumer(&ring->mapping, wake_fd);
  *out = ring;
  return BENCH_RING_OK;
}

void bench_ring_close(struct bench_ring* ring) { delete ring; }

int bench_ring_is_locked(const struct bench_ring* ring) { return ring->mapping.locked ? 1 : 0; }

uint32_t bench_ring_capacity(const struct bench_ring* ring) {
  return static_cast<uint32_t>(ring->mapping.mask + 1);
}

uint64_t bench_ring_dropped(const struct bench_ring* ring) {
  return ring->mapping.header->dropped.load(std::memory_order_acquire);  // partner: Producer::drop
}

uint32_t bench_ring_push(struct bench_ring* ring, const struct bench_record* records, uint32_t n) {
  return ring->is_producer ? ring->tap.push(records, n) : 0;
}

int bench_ring_pop(struct bench_ring* ring, struct bench_record* out, uint32_t max, uint32_t* n,
                   struct bench_look* look) {
  *n = 0;
  return ring->is_producer ? BENCH_RING_WRONG_SIDE : ring->consumer.pop(out, max, n, look);
}

int bench_ring_wait(struct bench_ring* ring, uint32_t timeout_ms) {
  return ring->is_producer ? BENCH_RING_WRONG_SIDE : ring->consumer.wait(timeout_ms);
}
}
