// The C ABI of the ring: what libbench_ring.so exports, and what the harness links.
//
// A ring is a single-producer single-consumer queue of fixed-size records in memory that two processes share. Every
// function that can fail returns a bench_ring_status; bench_ring_message() says it in words.
#ifndef BENCH_RING_H
#define BENCH_RING_H

#include <stddef.h>
#include <stdint.h>

#include "bench_protocol.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum bench_ring_status {
  BENCH_RING_OK = 0,
  BENCH_RING_BAD_MEMORY = 1,    // too small, misaligned, or not mappable
  BENCH_RING_BAD_MAGIC = 2,     // not a ring
  BENCH_RING_BAD_ABI = 3,       // made by another version
  BENCH_RING_BAD_LAYOUT = 4,    // record size, capacity or stream is not what was expected
  BENCH_RING_BAD_INDEX = 5,     // an index that no sound peer can have written
  BENCH_RING_BAD_SEAL = 6,      // the memfd could still be shrunk under us
  BENCH_RING_SYSTEM_ERROR = 7,  // a system call failed; errno says which way
  BENCH_RING_WRONG_SIDE = 8,    // a producer's function on the consumer's handle, or the other way round
};

// One record, as both sides see it before its kind is known.
struct bench_record {
  uint64_t words[8];
};

// When a consumer looked. Of records: they were there at `received_ns`, read before anything was copied, and not yet at
// `not_before_ns`, the look before (0: there was none). Of an empty look: `received_ns` is 0, `not_before_ns` its time.
struct bench_look {
  uint64_t received_ns;
  uint64_t not_before_ns;
};

struct bench_ring;  // one side's handle on a ring

// Version of the layout: BENCH_ABI_VERSION of the library that is loaded.
uint32_t bench_ring_abi_version(void);
// Bytes of memory for a ring of `capacity` records (a power of two, at least 2).
size_t bench_ring_bytes(uint32_t capacity);
// CLOCK_MONOTONIC in nanoseconds.
uint64_t bench_ring_clock_ns(void);
// What a status means.
const char* bench_ring_message(int status);

// Formats the memory of `fd` (a memfd of bench_ring_bytes(capacity), sealed against resizing) as an empty ring.
int bench_ring_format(int fd, uint32_t stream, uint32_t capacity);
// Maps the ring in `fd` as its producer (or consumer), checking every field of the header. `wake_fd` is an eventfd
// with which a sleeping consumer is woken; -1 if the consumer never sleeps. Memory is touched and, where permitted,
// locked. `*out` is freed by bench_ring_close. The caller keeps `fd` and `wake_fd`; the handle needs only wake_fd.
int bench_ring_attach(int fd, int wake_fd, uint32_t stream, int is_producer, struct bench_ring** out);
void bench_ring_close(struct bench_ring* ring);
// Whether the memory could be locked.
int bench_ring_is_locked(const struct bench_ring* ring);
uint32_t bench_ring_capacity(const struct bench_ring* ring);
// Records that found the ring full since it was made, as the producer counted them.
uint64_t bench_ring_dropped(const struct bench_ring* ring);

// Producer: reads the clock, stamps it as emitted_ns into the `n` records, and publishes them together. Returns `n`,
// or 0 when they do not all fit: then all are dropped and counted. On a consumer's handle it returns 0 and does nothing.
uint32_t bench_ring_push(struct bench_ring* ring, const struct bench_record* records, uint32_t n);
// Consumer: copies up to `max` records. All that one look made visible carry the same `*look`. Returns a status; `*n` is
// 0 when there is nothing, and with every other status than OK.
int bench_ring_pop(struct bench_ring* ring, struct bench_record* out, uint32_t max, uint32_t* n,
                   struct bench_look* look);
// Consumer: sleeps until something is there or `timeout_ms` has passed (-1: no limit is not offered). Needs wake_fd.
int bench_ring_wait(struct bench_ring* ring, uint32_t timeout_ms);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
