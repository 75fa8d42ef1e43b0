#!/usr/bin/env bash
# Makes fuzz/corpus anew from what a real MySQL server writes: `fuzz/make-corpus.sh`. The result is checked in.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/bench/servers.sh

WORK=$(mktemp -d "${TMPDIR:-/tmp}/binlake-corpus.XXXXXX")
clean_up() {
  exec 7>&-
  wait 2>/dev/null || true
  rm -rf "$WORK"
}
trap clean_up EXIT

PORT=$(free_port)
start_server mysql.sh "$WORK/mysql" "$PORT" --binlog-row-metadata=FULL
exec 7>"$WORK/mysql/stdin"
wait_ready "$WORK/mysql"
TCP=(--protocol=tcp -h 127.0.0.1 -P "$PORT" -u root --ssl-mode=DISABLED)
sql() { bash deploy/local/mysql.sh sql "$WORK/mysql" "${TCP[@]}" --default-character-set=utf8mb4 -N "$@" 7>&-; }

sql -e 'FLUSH BINARY LOGS'
sql <fuzz/corpus.sql
FILE=$(sql -e 'SHOW BINARY LOGS' | tail -n 1 | cut -f 1)
sql -e 'FLUSH BINARY LOGS'
bash deploy/local/mysql.sh binlog "${TCP[@]}" --read-from-remote-server --raw "--result-file=$WORK/" "$FILE" 7>&-
python3 fuzz/cut-corpus.py "$WORK/$FILE" fuzz/corpus.sql fuzz/corpus
