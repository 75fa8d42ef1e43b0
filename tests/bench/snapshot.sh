#!/usr/bin/env bash
# Measures snapshots on this machine against a bare SELECT and against Debezium, with real servers, in one go; prints
# markdown tables. docs/PERFORMANCE.md says how to read them.
#
#   tests/bench/snapshot.sh [--rows N] [--runs N] [--readers "N N ..."] [--binlake FILE] [--no-kafka] [--no-debezium]
#
# One table of N (default 5,000,000) rows of 12 columns. In each of the runs (default 1), one after the other:
#   SELECT *     mysql --quick over TCP, its output thrown away                          | the yardstick
#   embedded     binlake reader, embedded log, with 1, 2, 4 ... readers, up to the cores  |
#   Kafka        the same, into Kafka as Avro                                             |
#   Debezium     its connector for MySQL in a standalone Kafka Connect worker, into the same Kafka with Confluent's
#                AvroConverter, tuned; the schema registry (registry.py) is asked once per schema
# and once, for peak memory (VmHWM): N / 10 rows with a composite key of which nine in ten have the same first column,
# and N / 50 small rows with 600 of a megabyte between them, with the most readers.
# None of them uses TLS, and the broker is warm. Binlake is measured from the start of its process until all rows are
# committed, Debezium from its first record in Kafka to its last, so without the start of its JVM. CPU is user + system of
# the process; of mysqld and the broker during the same time, apart.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/bench/servers.sh

ROWS=5000000
RUNS=1
READERS=
BINLAKE=
KAFKA=yes
DEBEZIUM=yes
while [ $# -gt 0 ]; do
  case "$1" in
  --rows) ROWS=$2; shift 2 ;;
  --runs) RUNS=$2; shift 2 ;;
  --readers) READERS=$2; shift 2 ;;
  --binlake) BINLAKE=$2; shift 2 ;;
  --no-kafka) KAFKA=no; DEBEZIUM=no; shift ;;
  --no-debezium) DEBEZIUM=no; shift ;;
  *)
    echo "usage: tests/bench/snapshot.sh [--rows N] [--runs N] [--readers \"N N ...\"] [--binlake FILE] [--no-kafka] [--no-debezium]" >&2
    exit 2
    ;;
  esac
done
if [ -z "$READERS" ]; then
  count=1
  while [ "$count" -lt "$(nproc)" ]; do
    READERS="$READERS $count"
    count=$((2 * count))
  done
  READERS="$READERS $(nproc)"
fi
MOST=${READERS##* }

if [ -z "$BINLAKE" ]; then
  cargo build --release --bin binlake
  BINLAKE=$(target_directory)/release/binlake
fi
[ -x "$BINLAKE" ] || fail "there is no program $BINLAKE"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/binlake-bench.XXXXXX")
PART=          # the process that is being measured
clean_up() {
  [ -z "$PART" ] || kill -KILL "$PART" 2>/dev/null || true
  # The servers stop when these pipes end.
  exec 6>&- 7>&- 8>&-
  wait 2>/dev/null || true
  rm -rf "$WORK"
}
trap clean_up EXIT

# --- servers ---------------------------------------------------------------------------------------------------------

say "starting servers"
MYSQL_PORT=$(free_port)
# The rows fit into memory: the disk is not what is measured.
start_server mysql.sh "$WORK/mysql" "$MYSQL_PORT" --innodb-buffer-pool-size=2G
exec 7>"$WORK/mysql/stdin"
KAFKA_PORT=
if [ "$KAFKA" = yes ]; then
  KAFKA_PORT=$(free_port)
  start_server kafka.sh "$WORK/kafka" "$KAFKA_PORT"
  exec 8>"$WORK/kafka/stdin"
  wait_ready "$WORK/kafka"
fi
wait_ready "$WORK/mysql"
MYSQLD=$(cat "$WORK/mysql/mysqld.pid")
BROKER=$(pgrep -f "kafka.Kafka $WORK/kafka/server.properties" || true)
URL=mysql://root@127.0.0.1:$MYSQL_PORT
TCP=(--protocol=tcp -h 127.0.0.1 -P "$MYSQL_PORT" -u root --ssl-mode=DISABLED)
sql() { bash deploy/local/mysql.sh sql "$WORK/mysql" "${TCP[@]}" -N "$@" 7>&- 8>&-; }

fill() { # first, last: not through the binlog, which nobody reads here
  local first=$1 step=250000
  while [ "$first" -le "$2" ]; do
    sql bench -e "SET sql_log_bin = 0; CALL fill_at_once($first, LEAST($step, $2 - $first + 1))"
    first=$((first + step))
  done
}

# --- measuring -------------------------------------------------------------------------------------------------------

# Lines: what, rows, seconds, CPU seconds, mysqld's, the broker's, peak MB, seconds of the SELECT of the same run.
RESULTS=$WORK/results
: >"$RESULTS"
TICKS=$(getconf CLK_TCK)
SELECTED=-     # seconds that SELECT * took in this run

now() { date +%s.%N; }
cpu() { # process
  [ -n "$1" ] || { echo 0; return; }
  awk -v t="$TICKS" '{ sub(/.*\) /, ""); printf "%.2f", ($12 + $13) / t }' "/proc/$1/stat"
}
peak() { awk '/VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$1/status"; }
minus() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a - b }'; }
record() { echo "$*" >>"$RESULTS"; say "$*"; }

select_all() {
  TIMEFORMAT='%R %U %S'
  { time bash deploy/local/mysql.sh sql "$WORK/mysql" "${TCP[@]}" --quick --batch -e 'SELECT * FROM bench.orders' \
    >/dev/null 7>&- 8>&-; } 2>"$WORK/time"
}

measure_select() {
  local seconds user system before
  before=$(cpu "$MYSQLD")
  select_all
  read -r seconds user system < <(tail -n 1 "$WORK/time")
  SELECTED=$seconds
  record select "$ROWS" "$seconds" "$(awk "BEGIN { print $user + $system }")" "$(minus "$(cpu "$MYSQLD")" "$before")" 0 0 \
    "$SELECTED"
}

SOURCES=0
measure_snapshot() { # what, table, rows, log, readers
  local what=$1 table=$2 rows=$3 log=$4 readers=$5 folder port start mysqld broker used peak kind
  # Topics belong to the source's name.
  SOURCES=$((SOURCES + 1))
  folder=$WORK/snapshot-$SOURCES
  mkdir "$folder"
  kind="kind = \"embedded\"\npath = \"./change-log\""
  [ "$log" = embedded ] || kind="kind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:$KAFKA_PORT\""
  printf '[[source]]\nname = "bench%s"\nurl = "%s"\nssl_mode = "disabled"\ntables = ["%s"]\nsnapshot_readers = %s\n\n[change_log]\n%b\n\n[lake]\nurl = "file:./lake"\n' \
    "$SOURCES" "$URL" "$table" "$readers" "$kind" >"$folder/binlake.toml"
  port=$(free_port)
  mysqld=$(cpu "$MYSQLD")
  broker=$(cpu "$BROKER")
  start=$(now)
  "$BINLAKE" reader --config "$folder/binlake.toml" --listen "127.0.0.1:$port" >"$folder/out" 2>"$folder/err" 6>&- 7>&- 8>&- &
  PART=$!
  until [ "$(metric "$port" binlake_reader_snapshot_rows_total 2>/dev/null || echo 0)" -ge "$rows" ]; do
    kill -0 "$PART" 2>/dev/null || fail "binlake reader ended: $(tail -n 3 "$folder/err")"
    sleep 0.02
  done
  used=$(cpu "$PART")
  peak=$(peak "$PART")
  kill -TERM "$PART"
  wait "$PART" || fail "binlake reader did not stop well: $(tail -n 3 "$folder/err")"
  PART=
  record "$what" "$rows" "$(minus "$(now)" "$start")" "$used" "$(minus "$(cpu "$MYSQLD")" "$mysqld")" \
    "$(minus "$(cpu "$BROKER")" "$broker")" "$peak" "$SELECTED"
  rm -rf "$folder"
}

# Connect's worker is part of Kafka; the connector and the converter are what tests/debezium/ runs.
prepare_debezium() {
  bash deploy/local/debezium.sh install >/dev/null
  local libs=${BINLAKE_SERVERS:-$HOME/.cache/binlake/servers} jar
  mkdir -p "$WORK/plugins/debezium"
  for jar in "$libs"/debezium-*/*.jar; do
    case "${jar##*/}" in connect-* | kafka-clients-* | slf4j-* | log4j-*) ;; *) ln -s "$jar" "$WORK/plugins/debezium/" ;; esac
  done
  REGISTRY_PORT=$(free_port)
  mkfifo "$WORK/registry"
  python3 tests/bench/registry.py "$REGISTRY_PORT" <"$WORK/registry" 7>&- 8>&- &
  exec 6>"$WORK/registry"
  CONNECT_LIBS=$(printf '%s/*' "$libs"/kafka-[0-9]*)
}

measure_debezium() { # run
  local folder=$WORK/debezium-$1 port first last used broker mysqld counted
  mkdir "$folder"
  port=$(free_port)
  cat >"$folder/worker.properties" <<PROPERTIES
bootstrap.servers=127.0.0.1:$KAFKA_PORT
key.converter=io.confluent.connect.avro.AvroConverter
key.converter.schema.registry.url=http://127.0.0.1:$REGISTRY_PORT
value.converter=io.confluent.connect.avro.AvroConverter
value.converter.schema.registry.url=http://127.0.0.1:$REGISTRY_PORT
plugin.path=$WORK/plugins
listeners=http://127.0.0.1:$port
offset.storage.file.filename=$folder/offsets
producer.acks=all
producer.enable.idempotence=true
producer.max.in.flight.requests.per.connection=5
producer.compression.type=lz4
producer.linger.ms=50
producer.batch.size=524288
producer.buffer.memory=134217728
producer.max.request.size=8388608
PROPERTIES
  cat >"$folder/connector.properties" <<PROPERTIES
name=debezium-$1
connector.class=io.debezium.connector.mysql.MySqlConnector
tasks.max=1
database.hostname=127.0.0.1
database.port=$MYSQL_PORT
database.user=root
database.password=
database.server.id=4242
database.ssl.mode=disabled
driver.allowPublicKeyRetrieval=true
topic.prefix=debezium-$1
table.include.list=bench.orders
include.schema.changes=false
schema.history.internal.kafka.bootstrap.servers=127.0.0.1:$KAFKA_PORT
schema.history.internal.kafka.topic=debezium-$1-history
snapshot.fetch.size=10000
max.batch.size=16384
max.queue.size=65536
poll.interval.ms=20
statistics.metrics.enabled=false
PROPERTIES
  mysqld=$(cpu "$MYSQLD")
  broker=$(cpu "$BROKER")
  "${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xms2g -Xmx2g -XX:+UseParallelGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp "$CONNECT_LIBS" org.apache.kafka.connect.cli.ConnectStandalone "$folder/worker.properties" \
    "$folder/connector.properties" >"$folder/out" 2>"$folder/err" 6>&- 7>&- 8>&- &
  PART=$!
  counted=$(python3 tests/bench/count_records.py "$KAFKA_PORT" "debezium-$1.bench.orders" "$ROWS" "$PART" "$folder/err") ||
    fail "Debezium ended: $(grep -m 3 -E "Caused by|ERROR" "$folder/err")"
  read -r first last used <<<"$counted"
  record debezium "$ROWS" "$(minus "$last" "$first")" "$used" "$(minus "$(cpu "$MYSQLD")" "$mysqld")" \
    "$(minus "$(cpu "$BROKER")" "$broker")" "$(peak "$PART")" "$SELECTED"
  # Nothing of it is needed any more, and its orderly stop can hang.
  kill -KILL "$PART"
  wait "$PART" 2>/dev/null || true
  PART=
  rm -rf "$folder"
}

# --- the runs --------------------------------------------------------------------------------------------------------

say "writing $ROWS rows"
sql <tests/bench/orders.sql
fill 1 "$ROWS"
WRITTEN=$(sql bench -e 'SELECT COUNT(*) FROM orders')
[ "$WRITTEN" = "$ROWS" ] || fail "$WRITTEN rows were written"
[ "$DEBEZIUM" = no ] || prepare_debezium
# The first reading of a table is slower than the second, and a broker that has just started slower than one that has
# compiled what it needs: nobody shall be first.
select_all
if [ "$KAFKA" = yes ]; then
  sql bench -e "SET sql_log_bin = 0; CREATE TABLE few AS SELECT * FROM orders WHERE id <= $((ROWS / 5))"
  sql bench -e "SET sql_log_bin = 0; ALTER TABLE few ADD PRIMARY KEY (id)"
  measure_snapshot warm-up bench.few "$((ROWS / 5))" kafka 1
fi
LOADS=()
for run in $(seq "$RUNS"); do
  measure_select
  for readers in $READERS; do measure_snapshot "embedded-$readers" bench.orders "$ROWS" embedded "$readers"; done
  if [ "$KAFKA" = yes ]; then
    for readers in $READERS; do measure_snapshot "kafka-$readers" bench.orders "$ROWS" kafka "$readers"; done
  fi
  [ "$DEBEZIUM" = no ] || measure_debezium "$run"
  LOADS+=("$(cut -d' ' -f1 /proc/loadavg)")
done

say "writing rows with a skewed key, and large ones"
SKEWED=$((ROWS / 10))
SMALL=$((ROWS / 50))
sql bench -e "SET sql_log_bin = 0;
  CREATE TABLE skewed (PRIMARY KEY (status_id, id)) AS
    SELECT IF(id % 10 = 0, CAST(id % 1000 AS SIGNED), 7) AS status_id, orders.* FROM orders WHERE id <= $SKEWED;
  CREATE TABLE large (id INT PRIMARY KEY, body LONGTEXT);
  INSERT INTO large SELECT id, REPEAT('x', 100) FROM orders WHERE id <= $SMALL;
  UPDATE large SET body = REPEAT(CHAR(97 + id % 26), 1048576) WHERE id % GREATEST(1, $SMALL DIV 600) = 0
    ORDER BY id LIMIT 600"
LARGE=$(sql bench -e 'SELECT COUNT(*) FROM large WHERE LENGTH(body) > 1000')
SELECTED=-
measure_snapshot skewed bench.skewed "$SKEWED" embedded "$MOST"
measure_snapshot large bench.large "$SMALL" embedded "$MOST"
if [ "$KAFKA" = yes ]; then
  measure_snapshot skewed-kafka bench.skewed "$SKEWED" kafka "$MOST"
  measure_snapshot large-kafka bench.large "$SMALL" kafka "$MOST"
fi

# --- the tables ------------------------------------------------------------------------------------------------------

echo
echo "$(date -u +%F), $(nproc) processors ($(sed -nE 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), load average" \
  "${LOADS[*]} after each run; $ROWS rows, $RUNS runs, medians (smallest to largest)"
echo
awk -v rows="$ROWS" -v readers="$READERS" -v most="$MOST" -v large="$LARGE" '
  function median(what, column,   n, i, j, t, v) {
    n = count[what]
    for (i = 1; i <= n; i++) v[i] = value[what, column, i]
    for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    low = v[1]; high = v[n]
    return v[int((n + 1) / 2)]
  }
  {
    n = ++count[$1]
    # 1: rows a second, 2: of the SELECT in the same run, 3-5: CPU seconds per million rows, 6: MB, 7: seconds
    value[$1, 1, n] = $2 / $3
    value[$1, 2, n] = $8 == "-" ? 0 : $8 / $3
    for (i = 3; i <= 5; i++) value[$1, i, n] = $(i + 1) * 1e6 / $2
    value[$1, 6, n] = $7
    value[$1, 7, n] = $3
    table_rows[$1] = $2
  }
  function line(title, what,   s) {
    if (!count[what]) return
    s = sprintf("| %s | %.0f k rows/s", title, median(what, 1) / 1e3)
    s = s sprintf(" (%.0f-%.0f)", low / 1e3, high / 1e3)
    s = s sprintf(" | %.2f", median(what, 2))
    s = s sprintf(" | %.2f | %.2f", median(what, 3), median(what, 4))
    s = s (median(what, 5) ? sprintf(" | %.2f", median(what, 5)) : " |")
    print s (median(what, 6) ? sprintf(" | %d MB |", median(what, 6)) : " | |")
  }
  function memory(title, what) {
    if (count[what]) printf "| %s | %d | %.1f s | %d MB |\n", title, table_rows[what], median(what, 7), median(what, 6)
  }
  END {
    print "| | rate | of `SELECT *` | CPU s per million rows | mysqld | broker | peak memory |"
    print "|---|---|---|---|---|---|---|"
    line("`SELECT *` by `mysql --quick`", "select")
    n = split(readers, list, " ")
    for (i = 1; i <= n; i++) line("embedded log, readers: " list[i], "embedded-" list[i])
    for (i = 1; i <= n; i++) line("Kafka, readers: " list[i], "kafka-" list[i])
    line("Debezium, Kafka", "debezium")
    if (count["debezium"]) {
      print "\n| Kafka, of Debezium in the same run | rows/s | CPU s per million rows |"
      print "|---|---|---|"
      for (i = 1; i <= n; i++) {
        what = "kafka-" list[i]
        for (r = 1; r <= count[what]; r++) {
          value["ratio" what, 1, r] = value[what, 1, r] / value["debezium", 1, r]
          value["ratio" what, 2, r] = value[what, 3, r] / value["debezium", 3, r]
        }
        count["ratio" what] = count[what]
        printf "| readers: %s | %.1f x | 1/%.1f |\n", list[i], median("ratio" what, 1), 1 / median("ratio" what, 2)
      }
    }
    print "\n| readers: " most " | rows | | peak memory |"
    print "|---|---|---|---|"
    memory("one first key column in nine rows of ten, embedded log", "skewed")
    memory("the same, Kafka", "skewed-kafka")
    memory(large " rows of 1 MB between small ones, embedded log", "large")
    memory("the same, Kafka", "large-kafka")
  }' "$RESULTS"
