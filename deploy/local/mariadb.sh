#!/usr/bin/env bash
# A real MariaDB server without containers: for the tests and a developer's machine.
#
#   mariadb.sh install                               make sure there is a server (nothing is installed in the system)
#   mariadb.sh serve DIR PORT [mariadbd options]     run it in the foreground on 127.0.0.1:PORT, with its data in DIR
#   mariadb.sh sql DIR [mariadb options]             the client, as root, on the server that serves DIR
#   mariadb.sh version                               print which server is used
#
# A `mariadbd` on PATH is used as it is. Otherwise Debian's packages of MariaDB are unpacked into the cache folder and
# run with the C library that came with them.
# `serve` prints one line `ready` once the server answers. It stops the server when its own standard input reaches
# its end or on TERM or INT, so a server never outlives whoever started it, not even after kill -9 of the parent.
# Later options override the ones below. BINLAKE_SERVE_REMOVE=1 removes DIR when the server has stopped.
set -euo pipefail

CACHE=${BINLAKE_SERVERS:-$HOME/.cache/binlake/servers}
UNPACKED=$CACHE/mariadb-debian

say() { echo "mariadb.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

# --- finding and installing ------------------------------------------------------------------------------------------

path_server() {
  command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null &&
    command -v mariadb >/dev/null
}

# The archive this machine's own apt is set up with, so that no address is written here.
debian_archive() {
  {
    sed -nE 's/^URIs:[[:space:]]*//p' /etc/apt/sources.list.d/*.sources
    sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\2/p' \
      /etc/apt/sources.list /etc/apt/sources.list.d/*.list
  } 2>/dev/null | tr ' ' '\n' | grep -E '/debian(/|\.list)?$' | grep -v security | head -n 1
}

# Packages of Debian's newest suite with all their dependencies, unpacked into FOLDER/root. apt works on lists, a cache
# and a (blank) package database of its own, so nothing of the system is read or changed, and root is not needed.
unpack_from_sid() { # folder, package...
  local folder=$1 archive keyring trust
  shift
  archive=$(debian_archive || true)
  [ -n "$archive" ] || fail "no Debian archive found in /etc/apt; put a mariadbd on PATH instead."
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -f "$keyring" ] || fail "$keyring is missing; install the package debian-archive-keyring."
  trust="signed-by=$keyring"
  mkdir -p "$folder"/apt/{lists/partial,archives/partial} "$folder/root"
  echo "deb [$trust] $archive sid main" >"$folder/apt/sources.list"
  : >"$folder/apt/status"
  local options=(-o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
    -o "Dir::State::lists=$folder/apt/lists" -o "Dir::State::status=$folder/apt/status"
    -o "Dir::State::extended_states=$folder/apt/extended_states"
    -o "Dir::Cache::archives=$folder/apt/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o "Dir::Log=$folder/apt" -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Acquire::Languages=none)
  apt-get "${options[@]}" update -qq >&2 &&
    apt-get "${options[@]}" install -y -qq --download-only "$@" >&2 || return 1
  local package
  for package in "$folder"/apt/archives/*.deb; do dpkg-deb -x "$package" "$folder/root" || return 1; done
  rm -rf "$folder/apt"
}

install() {
  path_server && return 0
  [ -x "$UNPACKED/usr/sbin/mariadbd" ] && return 0
  if ! { command -v apt-get && command -v dpkg-deb && grep -sE '^ID="?debian"?$' /etc/os-release; } >/dev/null; then
    fail "no MariaDB server: install MariaDB so that mariadbd, mariadb and mariadb-install-db are on PATH."
  fi
  mkdir -p "$CACHE"
  # Two installs at once wait for each other. The lock is the kernel's: nobody has to clean it up after a crash.
  exec 9>"$CACHE/mariadb.lock"
  flock 9
  if [ ! -x "$UNPACKED/usr/sbin/mariadbd" ]; then
    say "fetching MariaDB from Debian's packages into $UNPACKED"
    # Under another name until complete: an interrupted install leaves nothing that looks installed.
    # With the lock in hand, whatever is half installed belongs to nobody.
    rm -rf "$CACHE"/.mariadb.??????
    local fresh
    fresh=$(mktemp -d "$CACHE/.mariadb.XXXXXX")
    if ! unpack_from_sid "$fresh" mariadb-server-core mariadb-client-core; then
      rm -rf "$fresh"
      fail "apt could not fetch MariaDB; see its messages above."
    fi
    mv "$fresh/root" "$UNPACKED"
    rm -rf "$fresh"
  fi
  exec 9>&-
}

# Fills COMMAND with the words that start one of MariaDB's programs. An array and not a function that runs it, so that
# the server itself is our child and not a shell around it.
command_for() { # program, its folder below usr
  local program=$1 folder=$2
  if path_server; then
    COMMAND=("$program")
    return 0
  fi
  local loader libraries
  loader=$(find "$UNPACKED/usr/lib" "$UNPACKED/usr/lib64" "$UNPACKED/lib64" -name 'ld-linux*.so.*' 2>/dev/null | head -n 1 || true)
  libraries=$(printf '%s:' "$UNPACKED"/usr/lib/*-linux-gnu* "$UNPACKED"/lib/*-linux-gnu* \
    "$UNPACKED/usr/lib/mysql")
  COMMAND=("$loader" --library-path "${libraries%:}" "$UNPACKED/usr/$folder/$program")
}

# --- serving ---------------------------------------------------------------------------------------------------------

CHILD=        # the process that is running now: the initialisation, then the server
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

# What mariadb-install-db does, without it: that script starts mariadbd by itself, and so without our loader.
initialise_unpacked() { # data folder, server command...
  local data=$1 part
  shift
  mkdir -p "$data"
  {
    # One statement a line: the bootstrap reader ends a statement only at the end of a line.
    printf '%s;\n' "create database mysql" "use mysql" "set @auth_root_socket=NULL" "set @skip_auth_anonymous=1"
    for part in mariadb_system_tables mariadb_performance_tables mariadb_system_tables_data \
      maria_add_gis_sp_bootstrap mariadb_sys_schema; do
      cat "$UNPACKED/usr/share/mariadb/$part.sql"
    done
  } >"$DIR/initialise.sql"
  # As a background child, so that a TERM is answered at once; start_child gives its commands no standard input.
  # shellcheck disable=SC2016
  start_child "$DIR/server.log" bash -c 'exec "${@:2}" <"$1"' initialise "$DIR/initialise.sql" "$@" \
    "--datadir=$data" --bootstrap --skip-log-bin --innodb-buffer-pool-size=64M
  wait "$CHILD" || server_failed "MariaDB could not initialise its data folder"
}

serve() {
  DIR=$1
  local port=$2
  shift 2
  install
  mkdir -p "$DIR"
  DIR=$(cd "$DIR" && pwd)

  exec 3<&0
  trap clean_up EXIT
  trap 'STOPPING=yes; exit 0' TERM INT
  # `read` is a builtin, so this watcher is one process and leaves none behind when it is killed.
  (trap - EXIT TERM INT; while read -r _; do :; done <&3; kill -TERM $$ 2>/dev/null) >/dev/null 2>&1 &
  WATCHER=$!
  exec 3<&-

  command_for mariadbd sbin
  local server=("${COMMAND[@]}" --no-defaults)
  # mariadbd refuses to run as root unless it is told to.
  [ "$(id -u)" != 0 ] || server+=(--user=root)
  if ! path_server; then
    server+=("--basedir=$UNPACKED/usr" "--lc-messages-dir=$UNPACKED/usr/share/mariadb")
  fi

  # Of its own: servers that start at the same time have used the same names in a shared one.
  mkdir -p "$DIR/tmp"
  server+=("--tmpdir=$DIR/tmp")

  : >"$DIR/server.log"
  if [ ! -d "$DIR/data" ]; then
    # Initialised under another name, so that a folder named data is always complete.
    rm -rf "$DIR/data.partial"
    if path_server; then
      start_child "$DIR/server.log" mariadb-install-db --no-defaults --auth-root-authentication-method=normal \
        --skip-test-db "--datadir=$DIR/data.partial" "${server[@]:2}"
      wait "$CHILD" || server_failed "MariaDB could not initialise its data folder"
    else
      initialise_unpacked "$DIR/data.partial" "${server[@]}"
    fi
    CHILD=
    mv "$DIR/data.partial" "$DIR/data"
  fi

  # The socket's name is relative to the data folder: an absolute path may be longer than a socket address can be.
  start_child "$DIR/server.log" "${server[@]}" "--datadir=$DIR/data" --socket=mysql.sock "--pid-file=$DIR/mariadbd.pid" \
    "--port=$port" --bind-address=127.0.0.1 --secure-file-priv= --local-infile=1 \
    --server-id=1 --gtid-strict-mode=ON --log-bin=binlog --binlog-format=ROW \
    --binlog-row-metadata=FULL --binlog-row-image=FULL \
    --innodb-buffer-pool-size=256M --max-allowed-packet=256M "$@"
  command_for mariadb bin
  local i=0
  # Asked on the private socket: whatever else listens on the port cannot answer in this server's place.
  until (cd "$DIR/data" && "${COMMAND[@]}" --no-defaults --socket=mysql.sock -uroot -e 'select 1') >/dev/null 2>&1; do
    kill -0 "$CHILD" 2>/dev/null || server_failed "MariaDB ended while starting"
    i=$((i + 1))
    [ "$i" -lt 600 ] || server_failed "MariaDB did not start within 120 s"
    sleep 0.2
  done
  echo ready
  wait "$CHILD" || true
  server_failed "MariaDB ended by itself"
}

case "${1:-}" in
install)
  install
  command_for mariadbd sbin
  "${COMMAND[@]}" --no-defaults --version
  ;;
version)
  install
  command_for mariadbd sbin
  "${COMMAND[@]}" --no-defaults --version
  ;;
serve)
  [ $# -ge 3 ] || fail "usage: mariadb.sh serve DIR PORT [mariadbd options]"
  shift
  serve "$@"
  ;;
sql)
  [ $# -ge 2 ] || fail "usage: mariadb.sh sql DIR [mariadb options]"
  cd "$2/data" || fail "no server has served $2."
  shift 2
  install
  command_for mariadb bin
  exec "${COMMAND[@]}" --no-defaults --socket=mysql.sock -uroot "$@"
  ;;
*) fail "usage: mariadb.sh install | serve DIR PORT [options] | sql DIR [options] | version" ;;
esac
