#!/usr/bin/env bash
# Measures the decoder on this machine against `mysqlbinlog --raw`, in one go; prints a markdown table.
#
#   tests/bench/decode.sh [--rows N] [--runs N] [--decoder FILE]
#
# One table of N (default 2,000,000) rows of 12 columns, written in transactions of 500 rows. In each of the runs
# (default 5), one after the other:
#   mysqlbinlog --raw    the binlog over TCP into tmpfs                                          | the yardstick
#   stream               the binlog over TCP to complete Avro records, key and value with every field: the reader's
#                        own connection and encode thread, and a log that only counts
#   file, 1 and 2 threads  binlog files in memory to Avro records, without connection and encode thread
# Seconds are those of the whole process for the first two; CPU is user + system of all of the process's threads.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/bench/servers.sh

ROWS=2000000
RUNS=5
DECODER=
while [ $# -gt 0 ]; do
  case "$1" in
  --rows) ROWS=$2; shift 2 ;;
  --runs) RUNS=$2; shift 2 ;;
  --decoder) DECODER=$2; shift 2 ;;
  *) echo "usage: tests/bench/decode.sh [--rows N] [--runs N] [--decoder FILE]" >&2; exit 2 ;;
  esac
done

if [ -z "$DECODER" ]; then
  cargo build --release -p cdc-reader --example decode_bench
  DECODER=$(target_directory)/release/examples/decode_bench
fi
[ -x "$DECODER" ] || fail "there is no program $DECODER"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/binlake-bench.XXXXXX")
RAM=$(mktemp -d /dev/shm/binlake-bench.XXXXXX)
clean_up() {
  # The server stops when this pipe ends.
  exec 7>&-
  wait 2>/dev/null || true
  rm -rf "$RAM" "$WORK"
}
trap clean_up EXIT

PORT=$(free_port)
start_server mysql.sh "$WORK/mysql" "$PORT" --max-binlog-size=1G
exec 7>"$WORK/mysql/stdin"
wait_ready "$WORK/mysql"
TCP=(--protocol=tcp -h 127.0.0.1 -P "$PORT" -u root --ssl-mode=DISABLED)
sql() { bash deploy/local/mysql.sh sql "$WORK/mysql" "${TCP[@]}" -N "$@" 7>&-; }

say "writing $ROWS rows"
sql <tests/bench/orders.sql
GTIDS=$(sql -e 'SELECT @@GLOBAL.gtid_executed' | tr -d '\n')
FIRST=$(sql -e 'FLUSH BINARY LOGS; SHOW BINARY LOGS' | tail -n 1 | cut -f 1)
sql bench -e "CALL fill(1, $ROWS)"
WRITTEN=$(sql bench -e 'SELECT COUNT(*) FROM orders')
[ "$WRITTEN" = "$ROWS" ] || fail "$WRITTEN rows were written"
sql -e 'FLUSH BINARY LOGS'

RESULTS=$WORK/results   # lines: what, rows, records, bytes, seconds, CPU seconds, peak MB
: >"$RESULTS"
record() { echo "$*" >>"$RESULTS"; say "$*"; }

raw() { # folder
  bash deploy/local/mysql.sh binlog "${TCP[@]}" --read-from-remote-server --raw --to-last-log "--result-file=$1/" "$FIRST"
}
decode() { # what, arguments...
  local what=$1 said
  shift
  said=$("$DECODER" "$@" 7>&-)
  record "$what $said"
}

# Once, unmeasured: the server's caches are warm, and the files are there to be decoded.
mkdir "$RAM/kept" "$RAM/copied"
raw "$RAM/kept"
FILES=("$RAM"/kept/*)
LOADS=()
for _ in $(seq "$RUNS"); do
  TIMEFORMAT='%R %U %S'
  { time raw "$RAM/copied"; } 2>"$WORK/time" 7>&-
  read -r seconds user system < <(tail -n 1 "$WORK/time")
  record "mysqlbinlog $ROWS 0 0 $seconds $(awk "BEGIN { print $user + $system }") 0"
  rm -f "$RAM"/copied/*
  decode stream stream "mysql://root@127.0.0.1:$PORT" "$GTIDS" "$ROWS"
  decode file-1 file 1 "${FILES[@]}"
  decode file-2 file 2 "${FILES[@]}"
  LOADS+=("$(cut -d' ' -f1 /proc/loadavg)")
done

echo
echo "$(date -u +%F), $(nproc) processors ($(sed -nE 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), load average" \
  "${LOADS[*]} after each run; $ROWS rows, $(du -cm "${FILES[@]}" | tail -n 1 | cut -f 1) MB of binlog, $RUNS runs," \
  "medians (smallest to largest)"
echo
awk -v wanted="$ROWS" '
  function median(what, column,   n, i, j, t, v) {
    n = count[what]
    for (i = 1; i <= n; i++) v[i] = value[what, column, i]
    for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    low = v[1]; high = v[n]
    return v[int((n + 1) / 2)]
  }
  {
    n = ++count[$1]
    # 2: rows, 5: rows a second, 6: CPU seconds per million rows, 7: MB, 8: of mysqlbinlog in the same run
    value[$1, 2, n] = $2; value[$1, 5, n] = $2 / $5; value[$1, 6, n] = $6 * 1e6 / $2; value[$1, 7, n] = $7
    value[$1, 8, n] = 100 * value[$1, 5, n] / value["mysqlbinlog", 5, n]
    # An insert is one record; a record more or less, and the figures would be of something else.
    if ($1 != "mysqlbinlog" && ($2 % wanted != 0 || $3 != $2)) wrong = wrong $1 ": " $2 " rows, " $3 " records\n"
    if ($4) bytes = $4 / $3
  }
  function line(title, what,   s) {
    s = sprintf("| %s | %.2f M rows/s", title, median(what, 5) / 1e6)
    s = s sprintf(" (%.2f-%.2f)", low / 1e6, high / 1e6)
    s = s sprintf(" | %.0f %%", median(what, 8))
    s = s sprintf(" (%.0f-%.0f)", low, high)
    s = s sprintf(" | %.2f", median(what, 6))
    s = s sprintf(" (%.2f-%.2f) | %s |", low, high, median(what, 7) ? sprintf("%d MB", median(what, 7)) : "")
    print s
  }
  END {
    if (wrong) { printf "%s", wrong; exit 1 }
    print "| | rate | of `mysqlbinlog` in the same run | CPU s per million rows | peak memory |"
    print "|---|---|---|---|---|"
    line("`mysqlbinlog --raw`", "mysqlbinlog")
    line("stream to Avro records", "stream")
    line("file in memory, 1 thread", "file-1")
    line("file in memory, 2 threads", "file-2")
    printf "\n%.0f bytes of key and value per record\n", bytes
  }' "$RESULTS"
