#!/usr/bin/env bash
# Measures the memory that `binlake reader` needs for one transaction of millions of rows, plain and compressed; prints
# a markdown table, and fails when a peak is above its limit.
#
#   tests/bench/huge_transaction.sh [--rows N] [--binlake FILE] [--limit MB]
#
# A reader with an embedded log follows a server on which one statement inserts N (default 5,000,000) rows of 12
# columns. Its peak memory (VmHWM) may be up to the limit (default 200 MB); for a compressed transaction
# (binlog_transaction_compression) as many bytes more as its compressed payload has. Needs about 6 GB of disk.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/bench/servers.sh

ROWS=5000000
LIMIT=200
BINLAKE=
while [ $# -gt 0 ]; do
  case "$1" in
  --rows) ROWS=$2; shift 2 ;;
  --limit) LIMIT=$2; shift 2 ;;
  --binlake) BINLAKE=$2; shift 2 ;;
  *) echo "usage: tests/bench/huge_transaction.sh [--rows N] [--binlake FILE] [--limit MB]" >&2; exit 2 ;;
  esac
done
if [ -z "$BINLAKE" ]; then
  cargo build --release --bin binlake
  BINLAKE=$(target_directory)/release/binlake
fi
[ -x "$BINLAKE" ] || fail "there is no program $BINLAKE"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/binlake-bench.XXXXXX")
READER=
clean_up() {
  [ -z "$READER" ] || kill -KILL "$READER" 2>/dev/null || true
  # The server stops when this pipe ends.
  exec 7>&-
  wait 2>/dev/null || true
  rm -rf "$WORK"
}
trap clean_up EXIT

PORT=$(free_port)
start_server mysql.sh "$WORK/mysql" "$PORT" --max-binlog-size=1G --innodb-buffer-pool-size=256M
exec 7>"$WORK/mysql/stdin"
wait_ready "$WORK/mysql"
TCP=(--protocol=tcp -h 127.0.0.1 -P "$PORT" -u root --ssl-mode=DISABLED)
sql() { bash deploy/local/mysql.sh sql "$WORK/mysql" "${TCP[@]}" -N "$@" 7>&-; }
sql <tests/bench/orders.sql

peak() { awk '/VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$READER/status"; }
cpu() { awk -v t="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%.2f", ($12 + $13) / t }' "/proc/$READER/stat"; }

ROWS_OF_TABLE=()
FAILED=no
measure() { # name, ON or OFF
  local name=$1 folder=$WORK/$1 port idle start seconds payload limit
  mkdir "$folder"
  printf '[[source]]\nname = "%s"\nurl = "mysql://root@127.0.0.1:%s"\ntables = ["bench.orders"]\nsnapshot = false\n\n[change_log]\nkind = "embedded"\npath = "./change-log"\n\n[lake]\nurl = "file:./lake"\n' \
    "$name" "$PORT" >"$folder/binlake.toml"
  sql -e 'TRUNCATE bench.orders; FLUSH BINARY LOGS'
  port=$(free_port)
  "$BINLAKE" reader --config "$folder/binlake.toml" --listen "127.0.0.1:$port" >"$folder/out" 2>"$folder/err" 7>&- &
  READER=$!
  until [ "$(metric "$port" binlake_reader_commits_total 2>/dev/null || echo 0)" -ge 1 ]; do
    kill -0 "$READER" 2>/dev/null || fail "binlake reader ended: $(tail -n 3 "$folder/err")"
    sleep 0.1
  done
  idle=$(peak)
  say "$name: inserting $ROWS rows in one transaction"
  sql bench -e "SET SESSION binlog_transaction_compression = $2; CALL fill_at_once(1, $ROWS)"
  start=$(date +%s.%N)
  until [ "$(metric "$port" binlake_reader_rows_total)" -ge "$ROWS" ]; do
    kill -0 "$READER" 2>/dev/null || fail "binlake reader ended: $(tail -n 3 "$folder/err")"
    sleep 0.1
  done
  seconds=$(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
  # The payload's size as the server counts it, in MB, rounded up.
  payload=0
  if [ "$2" = ON ]; then
    payload=$(sql -e 'SELECT CEIL(LAST_TRANSACTION_COMPRESSED_BYTES / 1048576)
      FROM performance_schema.binary_log_transaction_compression_stats
      WHERE LOG_TYPE = "BINARY" AND COMPRESSION_TYPE = "ZSTD"')
  fi
  limit=$((LIMIT + payload))
  # An orderly stop commits the rest; the peak and the CPU are looked at before, when every row is encoded.
  ROWS_OF_TABLE+=("| $name | $([ "$payload" = 0 ] || echo "$payload MB") | $idle MB | $(peak) MB | $limit MB | $(cpu) | $seconds s |")
  [ "$(peak)" -le "$limit" ] || FAILED=yes
  kill -TERM "$READER"
  wait "$READER" || fail "binlake reader did not stop well: $(tail -n 3 "$folder/err")"
  READER=
  rm -rf "$folder"
}

measure plain OFF
measure compressed ON

echo
echo "$(date -u +%F), $(nproc) processors, load average $(cut -d' ' -f1 /proc/loadavg) at the end; one transaction of $ROWS rows"
echo
echo "| transaction | compressed payload | peak before it | peak memory | limit | CPU s in all | read after its commit |"
echo "|---|---|---|---|---|---|---|"
printf '%s\n' "${ROWS_OF_TABLE[@]}"
[ "$FAILED" = no ] || fail "a peak is above its limit"
