#!/usr/bin/env bash
# Runs rustc with libFuzzer's coverage and with checks of arithmetic for the library and the fuzz targets. Cargo calls it
# for this package alone (RUSTC_WORKSPACE_WRAPPER), so that dependencies are shared with the ordinary build.
case " $* " in
    *' --crate-name bench '* | *' --crate-name fuzz '*)
        set -- "$@" -Coverflow-checks=on -Cdebug-assertions=on -Cpasses=sancov-module \
            -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
        ;;
esac
exec "$@"
