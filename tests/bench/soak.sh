#!/usr/bin/env bash
# Reader and sink at a steady rate for an hour, real MySQL and Kafka between them: prints their memory, open files and
# threads by the minute as a markdown table, and whether they grew. docs/RELIABILITY.md says what came of it.
#
#   tests/bench/soak.sh [--minutes N] [--rate ROWS_PER_SECOND] [--binlake FILE]
#
# Each second inserts as many rows as the rate says, and updates a tenth as many. At the end `verify` compares.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/bench/servers.sh

MINUTES=60
RATE=2000
BINLAKE=
while [ $# -gt 0 ]; do
  case "$1" in
  --minutes) MINUTES=$2; shift 2 ;;
  --rate) RATE=$2; shift 2 ;;
  --binlake) BINLAKE=$2; shift 2 ;;
  *) echo "usage: tests/bench/soak.sh [--minutes N] [--rate ROWS_PER_SECOND] [--binlake FILE]" >&2; exit 2 ;;
  esac
done
if [ -z "$BINLAKE" ]; then
  cargo build --release --bin binlake
  BINLAKE=$(target_directory)/release/binlake
fi
[ -x "$BINLAKE" ] || fail "there is no program $BINLAKE"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/binlake-soak.XXXXXX")
PARTS=()
clean_up() {
  local part
  for part in "${PARTS[@]}"; do kill -KILL "$part" 2>/dev/null || true; done
  # The servers stop when these pipes end.
  exec 7>&- 8>&-
  wait 2>/dev/null || true
  rm -rf "$WORK"
}
trap clean_up EXIT

say "starting servers"
MYSQL_PORT=$(free_port)
start_server mysql.sh "$WORK/mysql" "$MYSQL_PORT" --binlog-expire-logs-seconds=600
exec 7>"$WORK/mysql/stdin"
KAFKA_PORT=$(free_port)
start_server kafka.sh "$WORK/kafka" "$KAFKA_PORT"
exec 8>"$WORK/kafka/stdin"
wait_ready "$WORK/mysql"
wait_ready "$WORK/kafka"
sql() {
  bash deploy/local/mysql.sh sql "$WORK/mysql" --protocol=tcp -h 127.0.0.1 -P "$MYSQL_PORT" -u root --ssl-mode=DISABLED -N "$@" \
    7>&- 8>&-
}
sql <tests/bench/orders.sql
printf '[[source]]\nname = "soak"\nurl = "mysql://root@127.0.0.1:%s"\ntables = ["bench.orders"]\n\n[change_log]\nkind = "kafka"\nbootstrap_servers = "127.0.0.1:%s"\nretention_hours = 1\n\n[lake]\nurl = "file:./lake"\n\n[[table]]\nmatch = "*.orders"\nmode = "history"\n' \
  "$MYSQL_PORT" "$KAFKA_PORT" >"$WORK/binlake.toml"
for part in reader sink; do
  "$BINLAKE" "$part" --config "$WORK/binlake.toml" --listen "127.0.0.1:$(free_port)" >"$WORK/$part.out" 2>"$WORK/$part.err" 7>&- 8>&- &
  PARTS+=($!)
done

# Lines: minute, part, MB resident, open files, threads.
SAMPLES=$WORK/samples
sample() { # minute
  local i part id
  for i in 0 1; do
    part=$([ "$i" = 0 ] && echo reader || echo sink)
    id=${PARTS[$i]}
    kill -0 "$id" 2>/dev/null || fail "the $part ended: $(tail -n 3 "$WORK/$part.err")"
    echo "$1 $part $(awk '/VmRSS/ { printf "%d", $2 / 1024 }' "/proc/$id/status") $(find "/proc/$id/fd" | wc -l)" \
      "$(find "/proc/$id/task" -maxdepth 1 | wc -l)" >>"$SAMPLES"
  done
}

say "$MINUTES minutes of $RATE rows/s"
STARTED=$SECONDS
NEXT=1
SECOND=0
while [ $((SECONDS - STARTED)) -lt $((MINUTES * 60)) ]; do
  sql bench -e "CALL fill($NEXT, $RATE); UPDATE orders SET qty = qty + 1 WHERE id >= $NEXT AND id < $((NEXT + RATE / 10))"
  NEXT=$((NEXT + RATE))
  SECOND=$((SECOND + 1))
  # A machine that is too slow for the rate goes as fast as it can.
  while [ $((SECONDS - STARTED)) -lt "$SECOND" ]; do sleep 0.05; done
  [ $((SECOND % 10)) -ne 0 ] || sample $(((SECONDS - STARTED) / 60))
done
VERIFIED=no
for _ in $(seq 60); do
  if "$BINLAKE" verify --config "$WORK/binlake.toml" >"$WORK/verified" 2>&1 7>&- 8>&-; then VERIFIED=yes; break; fi
done

echo
echo "$(date -u +%F), $(nproc) processors, $NEXT rows in $MINUTES minutes; verify: $(tail -n 1 "$WORK/verified")"
echo
awk -v step=$((MINUTES > 10 ? 5 : 1)) '
  { bucket = int($1 / step); n[bucket, $2]++; last = bucket
    for (i = 3; i <= 5; i++) if ($i > most[bucket, $2, i]) most[bucket, $2, i] = $i }
  END {
    print "| minute | reader MB | files | threads | sink MB | files | threads |"
    print "|---|---|---|---|---|---|---|"
    for (b = 0; b <= last; b++)
      printf "| %d-%d | %d | %d | %d | %d | %d | %d |\n", b * step, (b + 1) * step, most[b, "reader", 3], most[b, "reader", 4],
        most[b, "reader", 5], most[b, "sink", 3], most[b, "sink", 4], most[b, "sink", 5]
  }' "$SAMPLES"
[ "$VERIFIED" = yes ] || fail "the lake does not equal the source"
