// Made by ffi/generate.py from ffi/protocol.toml; do not edit.
#ifndef BENCH_PROTOCOL_H
#define BENCH_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_ABI_VERSION 2u
#define BENCH_RING_MAGIC 0x31474e5248434e42ull
#define BENCH_RECORD_SIZE 64u

// Stream id of the ring that carries events from the engine to the recorder.
#define BENCH_EVENT_STREAM 1u
// Stream id of the ring that carries requests from the harness to the engine.
#define BENCH_REQUEST_STREAM 2u
// Token events that one TOKENS record holds at most.
#define BENCH_TOKENS_PER_RECORD 8u
// Most records that a ring may hold; a header that claims more is refused.
#define BENCH_MAX_CAPACITY 16777216u
// Stands in a count for a value that the engine did not give.
#define BENCH_UNKNOWN_COUNT 0xFFFFFFFFu
// Stands in a time for a value that the engine did not give.
#define BENCH_ABSENT_NS 0xFFFFFFFFFFFFFFFFull

// Up to 8 token events of one step, all known at emitted_ns. `count` of the 8 slots are used.
#define BENCH_KIND_TOKENS 1u
struct bench_tokens_record {
  uint8_t kind;  // Which record this is.
  uint8_t count;  // Used slots, or a small code; see the record.
  uint16_t flags;  // Zero.
  uint32_t step;  // Engine step, counted from 0 within the run.
  uint64_t emitted_ns;  // CLOCK_MONOTONIC, the first thing that the push does.
  uint32_t request[8];  // Handles of the requests.
  uint16_t tokens[8];  // Tokens of each event, at least 1.
};
#ifdef __cplusplus
static_assert(sizeof(bench_tokens_record) == BENCH_RECORD_SIZE);
static_assert(offsetof(bench_tokens_record, kind) == 0);
static_assert(offsetof(bench_tokens_record, count) == 1);
static_assert(offsetof(bench_tokens_record, flags) == 2);
static_assert(offsetof(bench_tokens_record, step) == 4);
static_assert(offsetof(bench_tokens_record, emitted_ns) == 8);
static_assert(offsetof(bench_tokens_record, request) == 16);
static_assert(offsetof(bench_tokens_record, tokens) == 48);
#endif

// One engine step, pushed after it. `flags`: how often its thread was taken off its core in it (65535: or more).
#define BENCH_KIND_STEP 2u
struct bench_step_record {
  uint8_t kind;  // Which record this is.
  uint8_t count;  // Used slots, or a small code; see the record.
  uint16_t flags;  // Zero.
  uint32_t step;  // Engine step, counted from 0 within the run.
  uint64_t emitted_ns;  // CLOCK_MONOTONIC, the first thing that the push does.
  uint64_t started_ns;  // Before the scheduler was called.
  uint64_t ended_ns;  // After the step function returned.
  uint32_t prefill_tokens;  // Prompt tokens computed.
  uint32_t decode_tokens;  // Tokens computed for requests in decode.
  uint32_t waiting;  // Requests waiting after the step.
  uint32_t kv_cache_usage_ppm;  // Share of the KV cache in use, in parts per million.
  uint32_t tap_push_ns;  // Time that tap and push took together; UNKNOWN_COUNT if the tap was not reached.
  uint32_t token_events;  // Token events that the tap pushed in this step.
  uint16_t prefill_requests;  // Requests in prefill.
  uint16_t decode_requests;  // Requests in decode.
  uint16_t running;  // Requests running after the step.
  uint16_t preemptions;  // Requests preempted in this step.
};
#ifdef __cplusplus
static_assert(sizeof(bench_step_record) == BENCH_RECORD_SIZE);
static_assert(offsetof(bench_step_record, kind) == 0);
static_assert(offsetof(bench_step_record, count) == 1);
static_assert(offsetof(bench_step_record, flags) == 2);
static_assert(offsetof(bench_step_record, step) == 4);
static_assert(offsetof(bench_step_record, emitted_ns) == 8);
static_assert(offsetof(bench_step_record, started_ns) == 16);
static_assert(offsetof(bench_step_record, ended_ns) == 24);
static_assert(offsetof(bench_step_record, prefill_tokens) == 32);
static_assert(offsetof(bench_step_record, decode_tokens) == 36);
static_assert(offsetof(bench_step_record, waiting) == 40);
static_assert(offsetof(bench_step_record, kv_cache_usage_ppm) == 44);
static_assert(offsetof(bench_step_record, tap_push_ns) == 48);
static_assert(offsetof(bench_step_record, token_events) == 52);
static_assert(offsetof(bench_step_record, prefill_requests) == 56);
static_assert(offsetof(bench_step_record, decode_requests) == 58);
static_assert(offsetof(bench_step_record, running) == 60);
static_assert(offsetof(bench_step_record, preemptions) == 62);
#endif

// A request has ended. `count` is the reason (1 stop, 2 length, 3 abort, 4 error, 5 other), `flags` its preemptions.
#define BENCH_KIND_FINISH 3u
struct bench_finish_record {
  uint8_t kind;  // Which record this is.
  uint8_t count;  // Used slots, or a small code; see the record.
  uint16_t flags;  // Zero.
  uint32_t step;  // Engine step, counted from 0 within the run.
  uint64_t emitted_ns;  // CLOCK_MONOTONIC, the first thing that the push does.
  uint64_t queued_ns;  // The engine's QUEUED stamp.
  uint64_t scheduled_ns;  // The engine's first SCHEDULED stamp.
  uint64_t first_token_ns;  // The engine's stamp of the step that gave the first token.
  uint64_t last_token_ns;  // The engine's stamp of the step that gave the last token.
  uint32_t request;  // Handle of the request.
  uint32_t prompt_tokens;  // Prompt tokens as the engine counted them.
  uint32_t output_tokens;  // Output tokens as the engine counted them.
  uint32_t cached_tokens;  // Prompt tokens that came from the prefix cache.
};
#ifdef __cplusplus
static_assert(sizeof(bench_finish_record) == BENCH_RECORD_SIZE);
static_assert(offsetof(bench_finish_record, kind) == 0);
static_assert(offsetof(bench_finish_record, count) == 1);
static_assert(offsetof(bench_finish_record, flags) == 2);
static_assert(offsetof(bench_finish_record, step) == 4);
static_assert(offsetof(bench_finish_record, emitted_ns) == 8);
static_assert(offsetof(bench_finish_record, queued_ns) == 16);
static_assert(offsetof(bench_finish_record, scheduled_ns) == 24);
static_assert(offsetof(bench_finish_record, first_token_ns) == 32);
static_assert(offsetof(bench_finish_record, last_token_ns) == 40);
static_assert(offsetof(bench_finish_record, request) == 48);
static_assert(offsetof(bench_finish_record, prompt_tokens) == 52);
static_assert(offsetof(bench_finish_record, output_tokens) == 56);
static_assert(offsetof(bench_finish_record, cached_tokens) == 60);
#endif

// The last record of a run: nothing of it follows.
#define BENCH_KIND_ENDED 4u
struct bench_ended_record {
  uint8_t kind;  // Which record this is.
  uint8_t count;  // Used slots, or a small code; see the record.
  uint16_t flags;  // Zero.
  uint32_t step;  // Engine step, counted from 0 within the run.
  uint64_t emitted_ns;  // CLOCK_MONOTONIC, the first thing that the push does.
  uint64_t steps;  // Steps of the run.
  uint64_t reserved[5];  // Zero.
};
#ifdef __cplusplus
static_assert(sizeof(bench_ended_record) == BENCH_RECORD_SIZE);
static_assert(offsetof(bench_ended_record, kind) == 0);
static_assert(offsetof(bench_ended_record, count) == 1);
static_assert(offsetof(bench_ended_record, flags) == 2);
static_assert(offsetof(bench_ended_record, step) == 4);
static_assert(offsetof(bench_ended_record, emitted_ns) == 8);
static_assert(offsetof(bench_ended_record, steps) == 16);
static_assert(offsetof(bench_ended_record, reserved) == 24);
#endif

// Hand a staged request to the engine.
#define BENCH_KIND_SUBMIT 16u
struct bench_submit_record {
  uint8_t kind;  // Which record this is.
  uint8_t count;  // Used slots, or a small code; see the record.
  uint16_t flags;  // Zero.
  uint32_t step;  // Engine step, counted from 0 within the run.
  uint64_t emitted_ns;  // CLOCK_MONOTONIC, the first thing that the push does.
  uint32_t request;  // Handle of the request.
  uint32_t reserved[11];  // Zero.
};
#ifdef __cplusplus
static_assert(sizeof(bench_submit_record) == BENCH_RECORD_SIZE);
static_assert(offsetof(bench_submit_record, kind) == 0);
static_assert(offsetof(bench_submit_record, count) == 1);
static_assert(offsetof(bench_submit_record, flags) == 2);
static_assert(offsetof(bench_submit_record, step) == 4);
static_assert(offsetof(bench_submit_record, emitted_ns) == 8);
static_assert(offsetof(bench_submit_record, request) == 16);
static_assert(offsetof(bench_submit_record, reserved) == 20);
#endif

// Allow engine steps, where the harness drives each one.
#define BENCH_KIND_GRANT 17u
struct bench_grant_record {
  uint8_t kind;  // Which record this is.
  uint8_t count;  // Used slots, or a small code; see the record.
  uint16_t flags;  // Zero.
  uint32_t step;  // Engine step, counted from 0 within the run.
  uint64_t emitted_ns;  // CLOCK_MONOTONIC, the first thing that the push does.
  uint32_t steps;  // Steps allowed.
  uint32_t reserved[11];  // Zero.
};
#ifdef __cplusplus
static_assert(sizeof(bench_grant_record) == BENCH_RECORD_SIZE);
static_assert(offsetof(bench_grant_record, kind) == 0);
static_assert(offsetof(bench_grant_record, count) == 1);
static_assert(offsetof(bench_grant_record, flags) == 2);
static_assert(offsetof(bench_grant_record, step) == 4);
static_assert(offsetof(bench_grant_record, emitted_ns) == 8);
static_assert(offsetof(bench_grant_record, steps) == 16);
static_assert(offsetof(bench_grant_record, reserved) == 20);
#endif

// The run is over: abort what is unfinished, then push Ended.
#define BENCH_KIND_END 18u
struct bench_end_record {
  uint8_t kind;  // Which record this is.
  uint8_t count;  // Used slots, or a small code; see the record.
  uint16_t flags;  // Zero.
  uint32_t step;  // Engine step, counted from 0 within the run.
  uint64_t emitted_ns;  // CLOCK_MONOTONIC, the first thing that the push does.
  uint64_t reserved[6];  // Zero.
};
#ifdef __cplusplus
static_assert(sizeof(bench_end_record) == BENCH_RECORD_SIZE);
static_assert(offsetof(bench_end_record, kind) == 0);
static_assert(offsetof(bench_end_record, count) == 1);
static_assert(offsetof(bench_end_record, flags) == 2);
static_assert(offsetof(bench_end_record, step) == 4);
static_assert(offsetof(bench_end_record, emitted_ns) == 8);
static_assert(offsetof(bench_end_record, reserved) == 16);
#endif

#endif
