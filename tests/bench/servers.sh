# Sourced by the benchmarks: real servers on free ports, each ended by the end of the pipe that it reads from.
# shellcheck shell=bash

say() { echo "bench: $*" >&2; }
fail() { say "$*"; exit 1; }

free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); do
    # Somebody answers there, or on the next one, which Kafka takes as well.
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null &&
      ! (exec 3<>"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

start_server() { # script, folder, port, options...; its standard input is the named pipe in the folder
  local script=deploy/local/$1 folder=$2 port=$3
  shift 3
  bash "$script" install >/dev/null
  mkdir -p "$folder"
  mkfifo "$folder/stdin"
  bash "$script" serve "$folder" "$port" "$@" <"$folder/stdin" >"$folder/said" 2>"$folder/complained" 7>&- 8>&- &
}

wait_ready() { # folder
  local i
  for i in $(seq 600); do
    ! grep -q ready "$1/said" || return 0
    sleep 0.2
  done
  fail "a server did not start: $(tail -n 3 "$1/complained")"
}

metric() { # port, name: the sum over its labels, without a fraction
  local line sum=0
  exec 3<>"/dev/tcp/127.0.0.1/$1" || { echo 0; return; }
  printf 'GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
  while IFS= read -r line <&3; do
    case "$line" in "$2"*) sum=$((sum + ${line##* })) ;; esac
  done
  exec 3<&- 3>&-
  echo "$sum"
}

target_directory() {
  cargo metadata --no-deps --format-version 1 | sed -nE 's/.*"target_directory":"([^"]*)".*/\1/p'
}
