#!/usr/bin/env bash
# Measures the stream into Kafka on this machine, exactly once and with a schema registry, against Debezium's exactly-once
# mode and against librdkafka alone, with real servers, in one go; prints a markdown table.
#
#   tests/bench/stream.sh [--rows N] [--transactions N] [--binlake FILE] [--bare FILE] [--no-debezium]
#
# One after the other, on the same rows:
#   librdkafka   change-log/examples/bare_producer.rs: transactions of records as large as ours  | the yardstick
#   Binlake      catches up with N (default 1,000,000) rows of 12 columns, inserted 500 at a time
#   Debezium     the same: its connector in a distributed Connect worker with exactly-once support, tuned, stopped while
#                the rows are written and resumed (its JVM is warm)
# and the same two with N (default 200,000) transactions of one row. Binlake is measured from the start of its process until
# all is committed and it has stopped in order; Debezium from its first record in Kafka to its last. CPU is user + system
# of the process. None uses TLS.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/bench/servers.sh

ROWS=1000000
TRANSACTIONS=200000
BINLAKE=
BARE=
DEBEZIUM=yes
while [ $# -gt 0 ]; do
  case "$1" in
  --rows) ROWS=$2; shift 2 ;;
  --transactions) TRANSACTIONS=$2; shift 2 ;;
  --binlake) BINLAKE=$2; shift 2 ;;
  --bare) BARE=$2; shift 2 ;;
  --no-debezium) DEBEZIUM=no; shift ;;
  *)
    echo "usage: tests/bench/stream.sh [--rows N] [--transactions N] [--binlake FILE] [--bare FILE] [--no-debezium]" >&2
    exit 2
    ;;
  esac
done
if [ -z "$BINLAKE" ]; then
  cargo build --release --bin binlake
  BINLAKE=$(target_directory)/release/binlake
fi
if [ -z "$BARE" ]; then
  cargo build --release --workspace --example bare_producer
  BARE=$(target_directory)/release/examples/bare_producer
fi
[ -x "$BINLAKE" ] && [ -x "$BARE" ] || fail "there is no program $BINLAKE or $BARE"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/binlake-bench.XXXXXX")
PART=          # the process that is being measured
CONNECT=       # Debezium's worker
clean_up() {
  [ -z "$PART" ] || kill -KILL "$PART" 2>/dev/null || true
  [ -z "$CONNECT" ] || kill -KILL "$CONNECT" 2>/dev/null || true
  # The servers stop when these pipes end.
  exec 6>&- 7>&- 8>&-
  wait 2>/dev/null || true
  rm -rf "$WORK"
}
trap clean_up EXIT

# --- servers ---------------------------------------------------------------------------------------------------------

say "starting servers"
MYSQL_PORT=$(free_port)
# Rows are written between the measurements: the disk need not be waited for.
start_server mysql.sh "$WORK/mysql" "$MYSQL_PORT" --sync-binlog=0 --innodb-flush-log-at-trx-commit=0
exec 7>"$WORK/mysql/stdin"
KAFKA_PORT=$(free_port)
start_server kafka.sh "$WORK/kafka" "$KAFKA_PORT"
exec 8>"$WORK/kafka/stdin"
REGISTRY_PORT=$(free_port)
start_server registry.sh "$WORK/registry" "$REGISTRY_PORT"
exec 6>"$WORK/registry/stdin"
wait_ready "$WORK/mysql"
wait_ready "$WORK/kafka"
wait_ready "$WORK/registry"
REGISTRY=http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7
sql() {
  bash deploy/local/mysql.sh sql "$WORK/mysql" --protocol=tcp -h 127.0.0.1 -P "$MYSQL_PORT" -u root --ssl-mode=DISABLED -N "$@" \
    6>&- 7>&- 8>&-
}

# --- measuring -------------------------------------------------------------------------------------------------------

# Lines: what, records, seconds, CPU seconds, peak MB.
RESULTS=$WORK/results
: >"$RESULTS"
TICKS=$(getconf CLK_TCK)
now() { date +%s.%N; }
cpu() { awk -v t="$TICKS" '{ sub(/.*\) /, ""); printf "%.2f", ($12 + $13) / t }' "/proc/$1/stat"; }
peak() { awk '/VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$1/status"; }
minus() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a - b }'; }
record() { echo "$*" >>"$RESULTS"; say "$*"; }

mkdir "$WORK/ours"
printf '[[source]]\nname = "ours"\nurl = "mysql://root@127.0.0.1:%s"\nssl_mode = "disabled"\ntables = ["bench.orders"]\nsnapshot = "never"\n\n[change_log]\nkind = "kafka"\nbootstrap_servers = "127.0.0.1:%s"\nschema_registry_url = "%s"\n\n[lake]\nurl = "file:./lake"\n' \
  "$MYSQL_PORT" "$KAFKA_PORT" "$REGISTRY" >"$WORK/ours/binlake.toml"

ours() { # what, rows: until so many rows are taken, and then to its orderly end
  local port start used top
  port=$(free_port)
  start=$(now)
  "$BINLAKE" reader --config "$WORK/ours/binlake.toml" --listen "127.0.0.1:$port" >"$WORK/ours/out" 2>"$WORK/ours/err" 6>&- 7>&- 8>&- &
  PART=$!
  until grep -q 'reading the binlog' "$WORK/ours/err" &&
    [ "$(metric "$port" binlake_reader_rows_total 2>/dev/null || echo 0)" -ge "$2" ]; do
    kill -0 "$PART" 2>/dev/null || fail "binlake reader ended: $(tail -n 3 "$WORK/ours/err")"
    sleep 0.02
  done
  used=$(cpu "$PART")
  top=$(peak "$PART")
  kill -TERM "$PART"
  wait "$PART" || fail "binlake reader did not stop well: $(tail -n 3 "$WORK/ours/err")"
  PART=
  [ "$1" = - ] || record "$1" "$2" "$(minus "$(now)" "$start")" "$used" "$top"
}

bare() { # records, bytes each
  local seconds
  "$BARE" "127.0.0.1:$KAFKA_PORT" 100000 "$2" >/dev/null 6>&- 7>&- 8>&-
  TIMEFORMAT='%U %S'
  { time seconds=$("$BARE" "127.0.0.1:$KAFKA_PORT" "$1" "$2" 6>&- 7>&- 8>&-); } 2>"$WORK/time"
  record bare "$1" "$seconds" "$(awk '{ print $1 + $2 }' "$WORK/time")" 0
}

rest() { # method, path, body
  python3 - "http://127.0.0.1:$CONNECT_PORT$2" "$1" "${3:-}" <<'PYTHON'
import sys, time, urllib.request, urllib.error
url, method, body = sys.argv[1:4]
for attempt in range(120):
    request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"}, method=method)
    try:
        print(urllib.request.urlopen(request, timeout=60).read().decode())
        sys.exit(0)
    except (urllib.error.URLError, ConnectionError) as error:
        said = error
        time.sleep(0.5)
sys.exit(f"{method} {url}: {said}")
PYTHON
}

wait_state() { # state of the connector
  local i
  for i in $(seq 240); do
    ! rest GET /connectors/debezium/status | grep -q "\"connector\":{\"state\":\"$1\"" || return 0
    sleep 0.5
  done
  fail "Debezium is not $1: $(rest GET /connectors/debezium/status)"
}

# Connect's worker is part of Kafka; the connector and the converter are what tests/debezium/ runs.
start_debezium() {
  bash deploy/local/debezium.sh install >/dev/null
  local libs=${BINLAKE_SERVERS:-$HOME/.cache/binlake/servers} jar
  mkdir -p "$WORK/plugins/debezium" "$WORK/debezium"
  for jar in "$libs"/debezium-*/*.jar; do
    case "${jar##*/}" in connect-* | kafka-clients-* | slf4j-* | log4j-*) ;; *) ln -s "$jar" "$WORK/plugins/debezium/" ;; esac
  done
  CONNECT_PORT=$(free_port)
  cat >"$WORK/debezium/worker.properties" <<PROPERTIES
bootstrap.servers=127.0.0.1:$KAFKA_PORT
group.id=debezium-bench
exactly.once.source.support=enabled
config.storage.topic=debezium-configs
config.storage.replication.factor=1
offset.storage.topic=debezium-offsets
offset.storage.replication.factor=1
status.storage.topic=debezium-status
status.storage.replication.factor=1
key.converter=io.confluent.connect.avro.AvroConverter
key.converter.schema.registry.url=$REGISTRY
value.converter=io.confluent.connect.avro.AvroConverter
value.converter.schema.registry.url=$REGISTRY
plugin.path=$WORK/plugins
listeners=http://127.0.0.1:$CONNECT_PORT
producer.compression.type=lz4
producer.linger.ms=50
producer.batch.size=524288
producer.buffer.memory=134217728
producer.max.request.size=8388608
PROPERTIES
  "${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xms2g -Xmx2g -XX:+UseParallelGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp "$(printf '%s/*' "$libs"/kafka-[0-9]*)" org.apache.kafka.connect.cli.ConnectDistributed "$WORK/debezium/worker.properties" \
    >"$WORK/debezium/out" 2>"$WORK/debezium/err" 6>&- 7>&- 8>&- &
  CONNECT=$!
  rest POST /connectors "$(cat <<JSON
{"name": "debezium", "config": {
  "connector.class": "io.debezium.connector.mysql.MySqlConnector", "tasks.max": "1",
  "exactly.once.support": "required", "transaction.boundary": "poll",
  "database.hostname": "127.0.0.1", "database.port": "$MYSQL_PORT", "database.user": "root", "database.password": "",
  "database.server.id": "4242", "database.ssl.mode": "disabled", "driver.allowPublicKeyRetrieval": "true",
  "topic.prefix": "debezium", "table.include.list": "bench.orders", "include.schema.changes": "false",
  "schema.history.internal.kafka.bootstrap.servers": "127.0.0.1:$KAFKA_PORT",
  "schema.history.internal.kafka.topic": "debezium-history", "snapshot.mode": "no_data",
  "max.batch.size": "16384", "max.queue.size": "65536", "poll.interval.ms": "20", "statistics.metrics.enabled": "false"}}
JSON
  )" >/dev/null
  wait_state RUNNING
  # One record, so that it has a place to go on from.
  sql bench -e 'CALL fill(1, 1)'
  python3 tests/bench/count_records.py "$KAFKA_PORT" debezium.bench.orders 1 "$CONNECT" "$WORK/debezium/err" >/dev/null
  DEBEZIUM_RECORDS=1
  rest PUT /connectors/debezium/stop >/dev/null
  wait_state STOPPED
}

debezium() { # what, rows
  local counted first last used
  rest PUT /connectors/debezium/resume >/dev/null
  counted=$(python3 tests/bench/count_records.py "$KAFKA_PORT" debezium.bench.orders "$((DEBEZIUM_RECORDS + $2))" "$CONNECT" \
    "$WORK/debezium/err" "$DEBEZIUM_RECORDS") || fail "Debezium ended: $(grep -m 3 -E 'Caused by|ERROR' "$WORK/debezium/err")"
  read -r first last used <<<"$counted"
  record "$1" "$2" "$(minus "$last" "$first")" "$used" "$(peak "$CONNECT")"
  rest PUT /connectors/debezium/stop >/dev/null
  wait_state STOPPED
  # Control records of its transactions count, too.
  DEBEZIUM_RECORDS=$(python3 tests/bench/count_records.py "$KAFKA_PORT" debezium.bench.orders 1 "$CONNECT" "$WORK/debezium/err" 0 end)
}

# --- the runs --------------------------------------------------------------------------------------------------------

sql <tests/bench/orders.sql
sql bench -e "CREATE PROCEDURE singles(first BIGINT UNSIGNED, rows_wanted BIGINT UNSIGNED)
  BEGIN
    DECLARE done BIGINT UNSIGNED DEFAULT 0;
    WHILE done < rows_wanted DO
      INSERT INTO orders (id, user_id, status, price, qty, memo, address, ordered_at, updated_at, meta, is_gift, ratio)
        SELECT first + done, user_id, status, price, qty, memo, address, ordered_at, updated_at, meta, is_gift, ratio
        FROM orders WHERE id = 2 + done % 1000;
      SET done = done + 1;
    END WHILE;
  END"
ours - 0
[ "$DEBEZIUM" = no ] || start_debezium
say "writing $ROWS rows"
sql bench -e "CALL fill(2, $ROWS)"
SIZE=350       # bytes of key and value of a record of orders
bare "$ROWS" "$SIZE"
ours catch-up "$ROWS"
[ "$DEBEZIUM" = no ] || debezium debezium-catch-up "$ROWS"
say "writing $TRANSACTIONS transactions of one row"
sql bench -e "CALL singles($((ROWS + 10)), $TRANSACTIONS)"
ours singles "$TRANSACTIONS"
[ "$DEBEZIUM" = no ] || debezium debezium-singles "$TRANSACTIONS"

# --- the table -------------------------------------------------------------------------------------------------------

echo
echo "$(date -u +%F), $(nproc) processors ($(sed -nE 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), load average" \
  "$(cut -d' ' -f1 /proc/loadavg) at the end; $ROWS rows, $TRANSACTIONS transactions of one row"
echo
awk '
  { rate[$1] = $2 / $3; cpu[$1] = $4 * 1e6 / $2; mb[$1] = $5 }
  function line(title, what, peer,   s) {
    if (!(what in rate)) return
    s = sprintf("| %s | %.0f k/s | %.2f | %s |", title, rate[what] / 1e3, cpu[what], mb[what] ? mb[what] " MB" : "")
    s = s (what == "catch-up" ? sprintf(" %.2f |", rate[what] / rate["bare"]) : " |")
    print s (peer in rate ? sprintf(" %.1f x at 1/%.1f of its CPU |", rate[what] / rate[peer], cpu[peer] / cpu[what]) : " |")
  }
  END {
    print "| | rate | CPU s per million | peak memory | of librdkafka alone | of Debezium |"
    print "|---|---|---|---|---|---|"
    line("librdkafka alone", "bare", "-")
    line("catch-up", "catch-up", "debezium-catch-up")
    line("catch-up, Debezium", "debezium-catch-up", "-")
    line("transactions of one row", "singles", "debezium-singles")
    line("transactions of one row, Debezium", "debezium-singles", "-")
  }' "$RESULTS"
