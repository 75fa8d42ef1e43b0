#!/usr/bin/env bash
# A real schema registry (Apicurio) without containers: for the tests and a developer's machine. It speaks Confluent's
# interface under http://127.0.0.1:PORT/apis/ccompat/v7 and keeps what it has in DIR.
#
#   registry.sh install                            fetch it once, through Maven
#   registry.sh serve DIR PORT [-Dproperty=value ...]   run it in the foreground; needs PORT and PORT+1 on 127.0.0.1
#
# `serve` prints one line `ready` once the registry answers. It stops the registry when its own standard input reaches
# its end or on TERM or INT, so a registry never outlives whoever started it, not even after kill -9 of the parent.
# BINLAKE_SERVE_REMOVE=1 removes DIR when the registry has stopped.
set -euo pipefail

# The newest release that runs on Java 17.
VERSION=3.0.9
CACHE=${BINLAKE_SERVERS:-$HOME/.cache/binlake/servers}
HOME_DIR=$CACHE/apicurio-$VERSION

say() { echo "registry.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

find_java() {
  JAVA=${JAVA_HOME:+$JAVA_HOME/bin/java}
  JAVA=${JAVA:-$(command -v java || true)}
  [ -n "$JAVA" ] && [ -x "$JAVA" ] || fail "the registry needs Java 17 or newer; install a JDK or set JAVA_HOME."
  local version
  version=$("$JAVA" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1)
  [ "${version:-0}" -ge 17 ] || fail "the registry needs Java 17 or newer, and $JAVA is version ${version:-unknown}."
}

install() {
  [ -d "$HOME_DIR" ] && return 0
  find_java
  command -v mvn >/dev/null || fail "Maven (mvn) is needed once to fetch the registry; install it and run this again."
  mkdir -p "$CACHE"
  # Two installs at once wait for each other. The lock is the kernel's: nobody has to clean it up after a crash.
  exec 9>"$CACHE/registry.lock"
  flock 9
  if [ ! -d "$HOME_DIR" ]; then
    say "fetching Apicurio Registry $VERSION through Maven into $HOME_DIR"
    # With the lock in hand, whatever is half installed belongs to nobody.
    rm -rf "$CACHE"/.apicurio.??????
    local fresh
    # Under another name until complete: an interrupted install leaves nothing that looks installed.
    fresh=$(mktemp -d "$CACHE/.apicurio.XXXXXX")
    cat >"$fresh/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>registry</artifactId><version>1</version><packaging>pom</packaging>
</project>
POM
    if ! mvn -q -B -f "$fresh/pom.xml" dependency:copy -DoutputDirectory="$fresh" \
      -Dartifact="io.apicurio:apicurio-registry-app:$VERSION:tar.gz:all" >&2 </dev/null; then
      rm -rf "$fresh"
      fail "Maven could not fetch Apicurio Registry $VERSION; see its messages above."
    fi
    mkdir "$fresh/app"
    tar -xzf "$fresh"/apicurio-registry-app-*.tar.gz -C "$fresh/app"
    mv "$fresh/app" "$HOME_DIR"
    rm -rf "$fresh"
  fi
  exec 9>&-
}

CHILD=
WATCHER=
DIR=
STOPPING=no

clean_up() {
  trap '' TERM INT
  if [ -n "$CHILD" ]; then
    kill -TERM "$CHILD" 2>/dev/null || true
    local i
    for i in $(seq 100); do
      kill -0 "$CHILD" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$CHILD" 2>/dev/null || true
    wait "$CHILD" 2>/dev/null || true
  fi
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

  local jar
  jar=$(find "$HOME_DIR" -name 'apicurio-registry-app-*-runner.jar' | head -n 1)
  [ -n "$jar" ] || fail "there is no runner jar in $HOME_DIR; remove the folder and run this again."
  local command=("$JAVA" -Xmx512m -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$port"
    -Dquarkus.management.host=127.0.0.1 -Dquarkus.management.port=$((port + 1)) -Dquarkus.log.level=WARN
    -Dquarkus.http.access-log.enabled=false -Dapicurio.storage.sql.kind=h2
    -Dapicurio.datasource.url="jdbc:h2:file:$DIR/registry" "$@" -jar "$jar")
  : >"$DIR/server.log"
  # The kernel kills the registry with this script, should the script itself be killed.
  if command -v setpriv >/dev/null && setpriv --pdeathsig KILL true 2>/dev/null; then
    command=(setpriv --pdeathsig KILL "${command[@]}")
  fi
  (cd "$DIR" && exec "${command[@]}") >>"$DIR/server.log" 2>&1 </dev/null &
  CHILD=$!
  echo "$CHILD" >"$DIR/registry.pid"
  local i=0
  until answers "$port"; do
    kill -0 "$CHILD" 2>/dev/null || server_failed "the registry ended while starting"
    i=$((i + 1))
    [ "$i" -lt 1200 ] || server_failed "the registry did not start within 120 s"
    sleep 0.1
  done
  echo ready
  wait "$CHILD" || true
  server_failed "the registry ended by itself"
}

# Any answer of the interface will do, a demand for a password too.
answers() {
  local status
  { exec 4<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
  printf 'GET /apis/ccompat/v7/subjects HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&4
  read -r -t 5 _ status _ <&4 || status=
  exec 4<&- 4>&-
  [ "$status" = 200 ] || [ "$status" = 401 ]
}

case "${1:-}" in
install)
  install
  echo "Apicurio Registry $VERSION in $HOME_DIR"
  ;;
serve)
  [ $# -ge 3 ] || fail "usage: registry.sh serve DIR PORT [-Dproperty=value ...]"
  shift
  serve "$@"
  ;;
*) fail "usage: registry.sh install | serve DIR PORT [-Dproperty=value ...]" ;;
esac
