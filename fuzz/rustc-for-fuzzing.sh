#!/usr/bin/env bash
# Cargo's RUSTC_WORKSPACE_WRAPPER for the fuzz targets: the project's own crates are built with libFuzzer's coverage
# counters and with checks of overflow and debug assertions, which a release build leaves out; dependencies are built
# as they are. Every flag is a stable compiler's.
exec "$@" --cfg fuzzing -Coverflow-checks=on -Cdebug-assertions=on -Cdebuginfo=line-tables-only \
  -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
