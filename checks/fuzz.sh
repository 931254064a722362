#!/usr/bin/env bash
# Fuzzes every target of tests/fuzz for FUZZ_SECONDS (default 100) in all. What it learns stays in target/fuzz/TARGET:
# the inputs that reach everything that was reached before, without those that add nothing.
# It ends with 1 at the first input that makes a target panic, take longer than 10 s, or ask for a GiB of memory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target="${CARGO_TARGET_DIR:-target}"
targets=(${FUZZ_TARGETS:-config events messages rings stored_run control})
seconds=$((${FUZZ_SECONDS:-100} / ${#targets[@]}))

RUSTC_WORKSPACE_WRAPPER="$PWD/checks/fuzz-instrument.sh" cargo build --release --locked --example fuzz
temporary="$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)" fuzz-XXXXXX)"
trap 'rm -rf "$temporary"' EXIT
for name in "${targets[@]}"; do
    printf '\n== fuzz %s for %s s\n' "$name" "$seconds"
    if [ "$name" = control ]; then # what the sidecar reads, in Python
        "${PYTHON:-python3}" checks/fuzz_control.py --seconds "$seconds"
        continue
    fi
    corpus="$target/fuzz/$name"
    mkdir -p "$corpus"
    seeds="tests/fuzz/seeds/$name"
    # The limit of the address space makes a request for a GiB fail, which ends the process.
    (
        ulimit -v 1572864
        BENCH_FUZZ="$name" TMPDIR="$temporary" "$target/release/examples/fuzz" -max_total_time="$seconds" -timeout=10 \
            -rss_limit_mb=1024 -max_len=16384 -print_final_stats=1 -verbosity=0 -artifact_prefix="$target/fuzz/$name-" \
            "$corpus" "$seeds"
        # Each run begins with the whole corpus, which would grow from run to run.
        mkdir "$temporary/merged"
        BENCH_FUZZ="$name" TMPDIR="$temporary" "$target/release/examples/fuzz" -merge=1 -timeout=10 -rss_limit_mb=1024 \
            -max_len=16384 -verbosity=0 -artifact_prefix="$target/fuzz/$name-" "$temporary/merged" "$corpus"
    )
    rm -r "$corpus"
    mv "$temporary/merged" "$corpus"
done
