#!/usr/bin/env bash
# Measures Binlake on this machine, with real servers, in one go; prints a markdown table. docs/PERFORMANCE.md says how
# to read it.
#
#   tests/bench/run.sh [--rows N] [--runs N] [--binlake FILE] [--no-kafka] [--keep]
#
# One table of N (default 1,000,000) rows of 12 columns, `market.orders` of the demo. In each of the runs (default 3),
# one after the other:
#   SELECT *            mysql --quick over TCP, its output thrown away    | the snapshot's yardstick
#   snapshot            binlake reader, embedded log; the same, Kafka     |
#   mysqlbinlog --raw   the binlog of N more rows over TCP into tmpfs     | the stream's yardstick
#   catch-up            binlake reader, embedded log; the same, Kafka     |
# and once per log: binlake sink, from the first of 2 N records until the table holds them all.
# CPU and peak memory are the process's own (/proc/PID/stat, VmHWM), ends are seen in its metrics every 20 ms.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/bench/servers.sh

ROWS=1000000
RUNS=3
BINLAKE=
LOGS=(embedded kafka)
KEEP=no
while [ $# -gt 0 ]; do
  case "$1" in
  --rows) ROWS=$2; shift 2 ;;
  --runs) RUNS=$2; shift 2 ;;
  --binlake) BINLAKE=$2; shift 2 ;;
  --no-kafka) LOGS=(embedded); shift ;;
  --keep) KEEP=yes; shift ;;
  *) echo "usage: tests/bench/run.sh [--rows N] [--runs N] [--binlake FILE] [--no-kafka] [--keep]" >&2; exit 2 ;;
  esac
done

if [ -z "$BINLAKE" ]; then
  cargo build --release --bin binlake
  BINLAKE=$(target_directory)/release/binlake
fi
[ -x "$BINLAKE" ] || fail "there is no program $BINLAKE"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/binlake-bench.XXXXXX")
RAM=$(mktemp -d /dev/shm/binlake-bench.XXXXXX)
PART=          # the Binlake process that is being measured
clean_up() {
  [ -z "$PART" ] || kill -KILL "$PART" 2>/dev/null || true
  # The servers stop when these pipes end.
  exec 7>&- 8>&-
  wait 2>/dev/null || true
  rm -rf "$RAM"
  if [ "$KEEP" = yes ]; then say "everything is kept in $WORK"; else rm -rf "$WORK"; fi
}
trap clean_up EXIT

# --- servers ---------------------------------------------------------------------------------------------------------

say "starting servers"
MYSQL_PORT=$(free_port)
start_server mysql.sh "$WORK/mysql" "$MYSQL_PORT"
exec 7>"$WORK/mysql/stdin"
KAFKA_PORT=
if [ "${#LOGS[@]}" = 2 ]; then
  KAFKA_PORT=$(free_port)
  start_server kafka.sh "$WORK/kafka" "$KAFKA_PORT"
  exec 8>"$WORK/kafka/stdin"
  wait_ready "$WORK/kafka"
fi
wait_ready "$WORK/mysql"
URL=mysql://root@127.0.0.1:$MYSQL_PORT
TCP=(--protocol=tcp -h 127.0.0.1 -P "$MYSQL_PORT" -u root --ssl-mode=DISABLED)
mysql_client() { bash deploy/local/mysql.sh sql "$WORK/mysql" "${TCP[@]}" "$@" 7>&- 8>&-; }

fill() { # first number
  "$BINLAKE" demo-workload --mysql-url "$URL" --phase fill --orders "$ROWS" --first "$1" >/dev/null 7>&- 8>&-
}

# --- measuring -------------------------------------------------------------------------------------------------------

RESULTS=$WORK/results   # lines: what, seconds, CPU seconds, peak MB
: >"$RESULTS"
TICKS=$(getconf CLK_TCK)

now() { date +%s.%N; }
record() { # what, start, cpu, peak
  echo "$1 $(awk -v a="$2" -v b="$(now)" 'BEGIN { printf "%.3f", b - a }') $3 $4" >>"$RESULTS"
  say "$(tail -n 1 "$RESULTS")"
}

# A command that ends by itself.
measure_command() { # what, command...
  local what=$1 start
  shift
  start=$(now)
  "$@" 7>&- 8>&-
  record "$what" "$start" - -
}

write_configuration() { # log, run
  local folder=$WORK/$1-$2 log
  mkdir -p "$folder"
  log="kind = \"embedded\"\npath = \"./change-log\""
  [ "$1" = embedded ] || log="kind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:$KAFKA_PORT\""
  printf '[[source]]\nname = "bench%s"\nurl = "%s"\ntables = ["market.orders"]\n\n[change_log]\n%b\n\n[lake]\nurl = "file:./lake"\n' \
    "$2" "$URL" "$log" >"$folder/binlake.toml"
}

# A service: measured from its start, over the moment when a metric has reached a value, to the end of its orderly stop:
# what it had read by then is committed.
measure_part() { # what, folder, part, metric, value
  local what=$1 folder=$2 part=$3 name=$4 value=$5 port start cpu peak
  port=$(free_port)
  start=$(now)
  "$BINLAKE" "$part" --config "$folder/binlake.toml" --listen "127.0.0.1:$port" \
    >"$folder/$part.out" 2>>"$folder/$part.err" 7>&- 8>&- &
  PART=$!
  until [ "$(metric "$port" "$name" 2>/dev/null || echo 0)" -ge "$value" ]; do
    kill -0 "$PART" 2>/dev/null || fail "binlake $part ended: $(tail -n 3 "$folder/$part.err")"
    sleep 0.02
  done
  cpu=$(awk -v t="$TICKS" '{ sub(/.*\) /, ""); printf "%.2f", ($12 + $13) / t }' "/proc/$PART/stat")
  peak=$(awk '/VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$PART/status")
  kill -TERM "$PART"
  wait "$PART" || fail "binlake $part did not stop well: $(tail -n 3 "$folder/$part.err")"
  record "$what" "$start" "$cpu" "$peak"
  PART=
}

# --- the runs --------------------------------------------------------------------------------------------------------

say "writing $ROWS rows"
fill 1
# The first reading of a table is slower than the second: nobody shall be first.
mysql_client --quick --batch -e 'SELECT * FROM market.orders' >/dev/null
for run in $(seq "$RUNS"); do
  measure_command select mysql_client --quick --batch -e 'SELECT * FROM market.orders' >/dev/null
  for log in "${LOGS[@]}"; do
    write_configuration "$log" "$run"
    measure_part "snapshot-$log" "$WORK/$log-$run" reader binlake_reader_snapshot_rows_total "$ROWS"
  done
done

BINLOG_BEFORE=$(mysql_client -N -e 'FLUSH BINARY LOGS; SHOW BINARY LOGS' | tail -n 1 | cut -f 1)
say "writing $ROWS more rows"
fill $((ROWS + 1))
for run in $(seq "$RUNS"); do
  measure_command mysqlbinlog bash deploy/local/mysql.sh binlog "${TCP[@]}" \
    --read-from-remote-server --raw --to-last-log "--result-file=$RAM/" "$BINLOG_BEFORE"
  rm -f "$RAM"/*
  for log in "${LOGS[@]}"; do
    measure_part "stream-$log" "$WORK/$log-$run" reader binlake_reader_rows_total "$ROWS"
  done
done
for log in "${LOGS[@]}"; do
  measure_part "sink-$log" "$WORK/$log-1" sink binlake_sink_rows_total $((2 * ROWS))
done

# --- the table -------------------------------------------------------------------------------------------------------

echo
echo "$(date -u +%F), $(nproc) processors ($(sed -nE 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), load average" \
  "$(cut -d' ' -f1 /proc/loadavg) at the end; $ROWS rows, $RUNS runs, medians (smallest to largest)"
echo
awk -v rows="$ROWS" '
  function sorted(values, n,   i, j, t) {
    for (i = 2; i <= n; i++) for (j = i; j > 1 && values[j - 1] > values[j]; j--) { t = values[j]; values[j] = values[j - 1]; values[j - 1] = t }
  }
  function median(what, column,   n, i, values) {
    n = count[what]
    for (i = 1; i <= n; i++) values[i] = value[what, column, i]
    sorted(values, n)
    low = values[1]; high = values[n]
    return values[int((n + 1) / 2)]
  }
  { n = ++count[$1]; for (i = 2; i <= 4; i++) value[$1, i, n] = $i + 0 }
  function line(title, what, yardstick, factor,   s, cpu, ratio, range) {
    if (!count[what]) return
    s = median(what, 2); range = sprintf("%.1f-%.1f", factor * rows / high / 1000, factor * rows / low / 1000)
    ratio = yardstick == "" ? "" : sprintf("%.0f %%", 100 * median(yardstick, 2) / s)
    if (yardstick == what) ratio = "100 %"
    cpu = median(what, 3)
    printf "| %s | %.0f k rows/s (%s k) | %s | %s | %s |\n", title, factor * rows / s / 1000, range, ratio,
      cpu ? sprintf("%.2f", cpu * 1e6 / (factor * rows)) : "", median(what, 4) ? sprintf("%d MB", median(what, 4)) : ""
  }
  END {
    print "| | rate | of the yardstick | CPU s per million rows | peak memory |"
    print "|---|---|---|---|---|"
    line("`SELECT *` by `mysql --quick`", "select", "select", 1)
    line("snapshot, embedded log", "snapshot-embedded", "select", 1)
    line("snapshot, Kafka", "snapshot-kafka", "select", 1)
    line("`mysqlbinlog --raw`", "mysqlbinlog", "mysqlbinlog", 1)
    line("catch-up, embedded log", "stream-embedded", "mysqlbinlog", 1)
    line("catch-up, Kafka", "stream-kafka", "mysqlbinlog", 1)
    line("sink, embedded log", "sink-embedded", "", 2)
    line("sink, Kafka", "sink-kafka", "", 2)
  }' "$RESULTS"
