"""Records and constants of the data plane. Made by ffi/generate.py from ffi/protocol.toml; do not edit."""

import struct
from typing import Final

ABI_VERSION: Final = 2
RECORD_SIZE: Final = 64

# Stream id of the ring that carries events from the engine to the recorder.
EVENT_STREAM: Final = 1
# Stream id of the ring that carries requests from the harness to the engine.
REQUEST_STREAM: Final = 2
# Token events that one TOKENS record holds at most.
TOKENS_PER_RECORD: Final = 8
# Most records that a ring may hold; a header that claims more is refused.
MAX_CAPACITY: Final = 16777216
# Stands in a count for a value that the engine did not give.
UNKNOWN_COUNT: Final = 0xFFFFFFFF
# Stands in a time for a value that the engine did not give.
ABSENT_NS: Final = 0xFFFFFFFFFFFFFFFF

# Up to 8 token events of one step, all known at emitted_ns. `count` of the 8 slots are used.
# Fields: kind, count, flags, step, emitted_ns, request[8], tokens[8]
KIND_TOKENS: Final = 1
TOKENS: Final = struct.Struct("<BBHIQ8I8H")

# One engine step, pushed after it. `flags`: how often its thread was taken off its core in it (65535: or more).
# Fields: kind, count, flags, step, emitted_ns, started_ns, ended_ns, prefill_tokens, decode_tokens, waiting,
# kv_cache_usage_ppm, tap_push_ns, token_events, prefill_requests, decode_requests, running, preemptions
KIND_STEP: Final = 2
STEP: Final = struct.Struct("<BBHIQQQIIIIIIHHHH")

# A request has ended. `count` is the reason (1 stop, 2 length, 3 abort, 4 error, 5 other), `flags` its preemptions.
# Fields: kind, count, flags, step, emitted_ns, queued_ns, scheduled_ns, first_token_ns, last_token_ns, request,
# prompt_tokens, output_tokens, cached_tokens
KIND_FINISH: Final = 3
FINISH: Final = struct.Struct("<BBHIQQQQQIIII")

# The last record of a run: nothing of it follows.
# Fields: kind, count, flags, step, emitted_ns, steps, reserved[5]
KIND_ENDED: Final = 4
ENDED: Final = struct.Struct("<BBHIQQ5Q")

# Hand a staged request to the engine.
# Fields: kind, count, flags, step, emitted_ns, request, reserved[11]
KIND_SUBMIT: Final = 16
SUBMIT: Final = struct.Struct("<BBHIQI11I")

# Allow engine steps, where the harness drives each one.
# Fields: kind, count, flags, step, emitted_ns, steps, reserved[11]
KIND_GRANT: Final = 17
GRANT: Final = struct.Struct("<BBHIQI11I")

# The run is over: abort what is unfinished, then push Ended.
# Fields: kind, count, flags, step, emitted_ns, reserved[6]
KIND_END: Final = 18
END: Final = struct.Struct("<BBHIQ6Q")
