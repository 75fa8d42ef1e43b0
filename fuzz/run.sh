#!/usr/bin/env bash
# Fuzzes what reads foreign bytes, with libFuzzer and the project's own compiler; cargo-fuzz is not needed.
#
#   fuzz/run.sh TARGET SECONDS [libFuzzer options]   from the corpus in fuzz/corpus; what is new stays in the target folder
#   fuzz/run.sh --all SECONDS                        every target, one after the other
#   fuzz/run.sh --smoke                              every target: its corpus, then a few seconds of new inputs
#   fuzz/run.sh TARGET FILE                          one input again, as a failed run names it
#
# A crash, a hang of over 10 seconds or more than 1 GB of memory ends the run with the input that did it.
set -euo pipefail
cd "$(dirname "$0")"

TARGETS=(rows_event json_binary gtid_set table_map ddl event_stream wire_framing)
SMOKE_SECONDS=6

if [ -n "${CARGO_TARGET_DIR:-}" ]; then FOLDER=$CARGO_TARGET_DIR; else FOLDER=$PWD/target; fi
# Found inputs are kept beside the build, so that a later run goes on from them.
FOUND=$FOLDER/fuzz

build() {
  cp ../Cargo.lock Cargo.lock
  RUSTC_WORKSPACE_WRAPPER=$PWD/rustc-for-fuzzing.sh cargo build --release --bins
}

fuzz() { # target, seconds, options...
  local target=$1 seconds=$2
  shift 2
  mkdir -p "$FOUND/$target"
  "$FOLDER/release/$target" "$FOUND/$target" "corpus/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
    -max_len=8192 -artifact_prefix="$FOUND/$target-" -print_final_stats=1 "$@"
}

usage() { sed -nE '2,/^set/ s/^# ?//p' "$0" >&2; exit 2; }

case "${1:-}" in
--smoke)
  build
  for target in "${TARGETS[@]}"; do
    # The corpus alone first, which nothing random can hide; found inputs of earlier runs stay out of it.
    "$FOLDER/release/$target" -runs=0 -timeout=10 -rss_limit_mb=1024 "corpus/$target" 2>/dev/null ||
      { echo "fuzz: $target fails on its corpus: fuzz/run.sh $target FILE"; exit 1; }
    new=$(mktemp -d)
    said=$("$FOLDER/release/$target" "$new" "corpus/$target" -max_total_time="$SMOKE_SECONDS" -timeout=10 -rss_limit_mb=1024 \
      -max_len=8192 -artifact_prefix="$new/" -print_final_stats=1 2>&1) ||
      { tail -n 40 <<<"$said"; echo "fuzz: $target failed"; exit 1; }
    rm -rf "$new"
    echo "fuzz: $target: $(ls "corpus/$target" | wc -l) inputs of the corpus and" \
      "$(sed -nE 's/^stat::number_of_executed_units: *//p' <<<"$said") runs without a failure"
  done
  ;;
--all)
  [ $# = 2 ] || usage
  build
  for target in "${TARGETS[@]}"; do fuzz "$target" "$2"; done
  ;;
-* | "") usage ;;
*)
  [ $# -ge 2 ] || usage
  build
  if [ -f "$2" ]; then "$FOLDER/release/$1" "$2"; else fuzz "$@"; fi
  ;;
esac
