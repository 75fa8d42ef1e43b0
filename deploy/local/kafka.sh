#!/usr/bin/env bash
# A real Apache Kafka (KRaft, one node) without containers: for the tests, the demo and a developer's machine.
#
#   kafka.sh install                               fetch the server's jars once, through Maven
#   kafka.sh serve DIR PORT [property=value ...]   run it in the foreground; needs PORT and PORT+1 on 127.0.0.1
#   kafka.sh topics PORT [kafka-topics options]    for example: kafka.sh topics 9092 --list
#
# `serve` prints one line `ready` once the broker answers. It stops the broker when its own standard input reaches
# its end or on TERM or INT, so a broker never outlives whoever started it, not even after kill -9 of the parent.
# Later properties override the ones below. BINLAKE_SERVE_REMOVE=1 removes DIR when the broker has stopped.
# The script is one file that needs nothing beside it, because `binlake demo` carries it inside the binary.
set -euo pipefail

VERSION=4.1.1
CACHE=${BINLAKE_SERVERS:-$HOME/.cache/binlake/servers}
LIBS=$CACHE/kafka-$VERSION

say() { echo "kafka.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

# --- finding and installing ------------------------------------------------------------------------------------------

find_java() {
  JAVA=${JAVA_HOME:+$JAVA_HOME/bin/java}
  JAVA=${JAVA:-$(command -v java || true)}
  [ -n "$JAVA" ] && [ -x "$JAVA" ] || fail "Kafka needs Java 17 or newer; install a JDK or set JAVA_HOME."
  local version
  # "17.0.15" and "25" name their major version first; "1.8.0_202" is older than anything that would do.
  version=$("$JAVA" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1)
  [ "${version:-0}" -ge 17 ] || fail "Kafka needs Java 17 or newer, and $JAVA is version ${version:-unknown}."
}

install() {
  [ -d "$LIBS" ] && return 0
  find_java
  command -v mvn >/dev/null || fail "Maven (mvn) is needed once to fetch Kafka $VERSION; install it and run this again."
  mkdir -p "$CACHE"
  # Two installs at once wait for each other. The lock is the kernel's: nobody has to clean it up after a crash.
  if command -v flock >/dev/null; then
    exec 9>"$CACHE/kafka.lock"
    flock 9
    [ -d "$LIBS" ] && { exec 9>&-; return 0; }
    # With the lock in hand, whatever is half installed belongs to nobody.
    rm -rf "$CACHE"/.kafka.??????
  fi
  say "fetching Kafka $VERSION through Maven into $LIBS"
  # Under another name until complete: an interrupted install leaves nothing that looks installed.
  local fresh
  fresh=$(mktemp -d "$CACHE/.kafka.XXXXXX")
  cat >"$fresh/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka-server</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$VERSION</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$VERSION</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
POM
  if ! mvn -q -B -f "$fresh/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$fresh/libs" -DincludeScope=runtime >&2 </dev/null; then
    rm -rf "$fresh"
    fail "Maven could not fetch Kafka $VERSION; see its messages above."
  fi
  [ -d "$LIBS" ] || mv "$fresh/libs" "$LIBS"
  rm -rf "$fresh"
  exec 9>&- || true
}

# --- serving ---------------------------------------------------------------------------------------------------------

CHILD=        # the process that is running now: the formatting tool, then the broker
WATCHER=      # waits for the end of standard input
DIR=
STOPPING=no

# Starts a command in the background that the kernel kills with this script, should the script itself be killed.
start_child() { # log file, command...
  local log=$1
  shift
  if command -v setpriv >/dev/null && setpriv --pdeathsig KILL true 2>/dev/null; then
    setpriv --pdeathsig KILL "$@" >>"$log" 2>&1 </dev/null &
  else
    "$@" >>"$log" 2>&1 </dev/null &
  fi
  CHILD=$!
}

stop_child() {
  [ -n "$CHILD" ] || return 0
  kill -TERM "$CHILD" 2>/dev/null || true
  local i
  for i in $(seq 100); do
    kill -0 "$CHILD" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$CHILD" 2>/dev/null || true
  wait "$CHILD" 2>/dev/null || true
  CHILD=
}

clean_up() {
  trap '' TERM INT
  stop_child
  [ -z "$WATCHER" ] || kill "$WATCHER" 2>/dev/null || true
  if [ "${BINLAKE_SERVE_REMOVE:-}" = 1 ] && [ -n "$DIR" ] && [ -f "$DIR/server.log" ]; then rm -rf "$DIR"; fi
}

server_failed() {
  [ "$STOPPING" = no ] || exit 0
  say "$1; the end of $DIR/server.log:"
  tail -n 30 "$DIR/server.log" >&2
  exit 1
}

serve() {
  DIR=$1
  local port=$2
  shift 2
  install
  find_java
  mkdir -p "$DIR"
  DIR=$(cd "$DIR" && pwd)

  exec 3<&0
  trap clean_up EXIT
  trap 'STOPPING=yes; exit 0' TERM INT
  # `read` is a builtin, so this watcher is one process and leaves none behind when it is killed.
  (trap - EXIT TERM INT; while read -r _; do :; done <&3; kill -TERM $$ 2>/dev/null) >/dev/null 2>&1 &
  WATCHER=$!
  exec 3<&-

  cat >"$DIR/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$DIR/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.partitions=1
PROPERTIES
  local property scram=()
  for property in "$@"; do
    case "$property" in
    # A user of SCRAM is no property: it is made with the folder.
    scram=*) scram+=(--add-scram "${property#scram=}") ;;
    # In a properties file the last line of a name wins.
    *) echo "$property" >>"$DIR/server.properties" ;;
    esac
  done

  : >"$DIR/server.log"
  local java=("$JAVA" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
    -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info -cp "$LIBS/*")

  if [ ! -f "$DIR/logs/meta.properties" ]; then
    local cluster
    # A random UUID the way Kafka writes it; a leading dash would be taken for an option.
    cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' | sed 's/^-/K/')
    start_child "$DIR/server.log" "${java[@]}" kafka.tools.StorageTool format --ignore-formatted \
      -t "$cluster" -c "$DIR/server.properties" ${scram[@]+"${scram[@]}"}
    wait "$CHILD" || server_failed "Kafka could not format its folder"
    CHILD=
  fi

  start_child "$DIR/server.log" "${java[@]:0:1}" -Xmx1g "${java[@]:1}" kafka.Kafka "$DIR/server.properties"
  # For whoever wants to kill the broker itself.
  echo "$CHILD" >"$DIR/kafka.pid"
  local i=0
  # The log line and not the port: it comes after the broker is unfenced, and another program's port cannot fake it.
  until grep -q 'Kafka Server started' "$DIR/server.log"; do
    kill -0 "$CHILD" 2>/dev/null || server_failed "Kafka ended while starting"
    i=$((i + 1))
    [ "$i" -lt 1200 ] || server_failed "Kafka did not start within 120 s"
    sleep 0.1
  done
  echo ready
  wait "$CHILD" || true
  server_failed "Kafka ended by itself"
}

case "${1:-}" in
install)
  install
  echo "Apache Kafka $VERSION in $LIBS"
  ;;
serve)
  [ $# -ge 3 ] || fail "usage: kafka.sh serve DIR PORT [property=value ...]"
  shift
  serve "$@"
  ;;
topics)
  [ $# -ge 2 ] || fail "usage: kafka.sh topics PORT [kafka-topics options]"
  port=$2
  shift 2
  install
  find_java
  exec "$JAVA" -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$LIBS/*" org.apache.kafka.tools.TopicCommand \
    --bootstrap-server "127.0.0.1:$port" "$@"
  ;;
*) fail "usage: kafka.sh install | serve DIR PORT [property=value ...] | topics PORT [options]" ;;
esac
