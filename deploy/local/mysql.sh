#!/usr/bin/env bash
# A real MySQL server without containers: for the tests, the demo and a developer's machine.
#
#   mysql.sh install                               make sure there is a server (nothing is installed in the system)
#   mysql.sh serve DIR PORT [mysqld options]       run it in the foreground on 127.0.0.1:PORT, with its data in DIR
#   mysql.sh sql DIR [mysql options]               the client, as root, on the server that serves DIR
#   mysql.sh binlog [mysqlbinlog options] FILE...  print binary logs
#   mysql.sh version                               print which server is used
#
# A `mysqld` of MySQL 8.0 or newer on PATH is used as it is. Otherwise Debian's packages of MySQL are unpacked into
# the cache folder and run with the C library that came with them.
# `serve` prints one line `ready` once the server answers. It stops the server when its own standard input reaches
# its end or on TERM or INT, so a server never outlives whoever started it, not even after kill -9 of the parent.
# Later options override the ones below. BINLAKE_SERVE_REMOVE=1 removes DIR when the server has stopped.
# The script is one file that needs nothing beside it, because `binlake demo` carries it inside the binary.
set -euo pipefail

CACHE=${BINLAKE_SERVERS:-$HOME/.cache/binlake/servers}
UNPACKED=$CACHE/mysql-debian

say() { echo "mysql.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

# --- finding and installing ------------------------------------------------------------------------------------------

# MySQL's own server on PATH, 8.0 or newer. MariaDB's package also brings a command named mysqld: not that one.
path_server() {
  command -v mysqld >/dev/null && command -v mysqladmin >/dev/null && command -v mysql >/dev/null || return 1
  local version major
  version=$(mysqld --no-defaults --version 2>/dev/null) || return 1
  case "$version" in *MariaDB*) return 1 ;; esac
  major=$(sed -nE 's/.*Ver ([0-9]+)\..*/\1/p' <<<"$version")
  [ "${major:-0}" -ge 8 ]
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
  [ -n "$archive" ] || fail "no Debian archive found in /etc/apt; put a mysqld on PATH instead."
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
  [ -x "$UNPACKED/usr/sbin/mysqld" ] && return 0
  if ! { command -v apt-get && command -v dpkg-deb && grep -sE '^ID="?debian"?$' /etc/os-release; } >/dev/null; then
    fail "no MySQL server: install MySQL 8.0 or newer so that mysqld, mysql and mysqladmin are on PATH."
  fi
  mkdir -p "$CACHE"
  # Two installs at once wait for each other. The lock is the kernel's: nobody has to clean it up after a crash.
  exec 9>"$CACHE/mysql.lock"
  flock 9
  if [ ! -x "$UNPACKED/usr/sbin/mysqld" ]; then
    say "fetching MySQL from Debian's packages into $UNPACKED"
    # Under another name until complete: an interrupted install leaves nothing that looks installed.
    # With the lock in hand, whatever is half installed belongs to nobody.
    rm -rf "$CACHE"/.mysql.??????
    local fresh
    fresh=$(mktemp -d "$CACHE/.mysql.XXXXXX")
    if ! unpack_from_sid "$fresh" mysql-server-core mysql-client-core; then
      rm -rf "$fresh"
      fail "apt could not fetch MySQL; see its messages above."
    fi
    mv "$fresh/root" "$UNPACKED"
    rm -rf "$fresh"
  fi
  exec 9>&-
}

# Fills COMMAND with the words that start one of MySQL's programs. An array and not a function that runs it, so that
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
    "$UNPACKED/usr/lib/mysql/private")
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

# Fills $DIR/data with the data of a new server: root without a password, nothing else.
initialise() { # mysqld options
  local template option fixed=()
  # These can only be chosen when the data folder is made.
  for option in "$@"; do
    case "$option" in
    --lower[-_]case[-_]table[-_]names* | --innodb[-_]page[-_]size* | --innodb[-_]data[-_]file[-_]path*)
      fixed+=("$option")
      ;;
    esac
  done
  # Made under another name, so that a folder named data is always complete.
  rm -rf "$DIR/data.partial"
  # Initialising takes seconds and copying does not: the first new data folder of each version is kept to copy from.
  template=$CACHE/mysql-new-data-$("${COMMAND[@]}" --no-defaults --version | sed -nE 's/.*Ver ([^ ]+) .*/\1/p')
  if [ ${#fixed[@]} = 0 ] && [ -d "$template" ]; then
    cp -R "$template" "$DIR/data.partial"
  else
    start_child "$DIR/server.log" "${SERVER[@]}" "--datadir=$DIR/data.partial" --initialize-insecure \
      ${fixed[@]+"${fixed[@]}"}
    wait "$CHILD" || server_failed "MySQL could not initialise its data folder"
    CHILD=
    # Each server makes up its own identity (auto.cnf) and keys when it starts.
    rm -f "$DIR"/data.partial/{auto.cnf,*.pem}
    if [ ${#fixed[@]} = 0 ]; then
      mkdir -p "$CACHE"
      cp -R "$DIR/data.partial" "$template.$$"
      # Whoever is first wins; the copy of the second is not needed.
      mv -T "$template.$$" "$template" 2>/dev/null || rm -rf "$template.$$"
    fi
  fi
  mv "$DIR/data.partial" "$DIR/data"
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

  command_for mysqld sbin
  SERVER=("${COMMAND[@]}" --no-defaults)
  # mysqld refuses to run as root unless it is told to.
  [ "$(id -u)" != 0 ] || SERVER+=(--user=root)
  if ! path_server; then
    SERVER+=("--basedir=$UNPACKED/usr" "--lc-messages-dir=$UNPACKED/usr/share/mysql"
      "--plugin-dir=$UNPACKED/usr/lib/mysql/plugin")
  fi

  : >"$DIR/server.log"
  [ -d "$DIR/data" ] || initialise "$@"

  # The socket's name is relative to the data folder: an absolute path may be longer than a socket address can be.
  start_child "$DIR/server.log" "${SERVER[@]}" "--datadir=$DIR/data" --socket=mysql.sock "--pid-file=$DIR/mysqld.pid" \
    "--port=$port" --bind-address=127.0.0.1 --mysqlx=OFF --secure-file-priv= --local-infile=1 \
    --server-id=1 --gtid-mode=ON --enforce-gtid-consistency=ON --log-bin=binlog \
    --binlog-row-metadata=FULL --binlog-row-image=FULL \
    --innodb-buffer-pool-size=256M --max-allowed-packet=256M "$@"
  command_for mysqladmin bin
  local i=0
  # Asked on the private socket: whatever else listens on the port cannot answer in this server's place.
  until (cd "$DIR/data" && "${COMMAND[@]}" --no-defaults --socket=mysql.sock -uroot ping) >/dev/null 2>&1; do
    kill -0 "$CHILD" 2>/dev/null || server_failed "MySQL ended while starting"
    i=$((i + 1))
    [ "$i" -lt 600 ] || server_failed "MySQL did not start within 120 s"
    sleep 0.2
  done
  echo ready
  wait "$CHILD" || true
  server_failed "MySQL ended by itself"
}

case "${1:-}" in
install)
  install
  command_for mysqld sbin
  "${COMMAND[@]}" --no-defaults --version
  ;;
version)
  install
  command_for mysqld sbin
  "${COMMAND[@]}" --no-defaults --version
  ;;
serve)
  [ $# -ge 3 ] || fail "usage: mysql.sh serve DIR PORT [mysqld options]"
  shift
  serve "$@"
  ;;
sql)
  [ $# -ge 2 ] || fail "usage: mysql.sh sql DIR [mysql options]"
  cd "$2/data" || fail "no server has served $2."
  shift 2
  install
  command_for mysql bin
  exec "${COMMAND[@]}" --no-defaults --socket=mysql.sock -uroot "$@"
  ;;
binlog)
  shift
  install
  command_for mysqlbinlog bin
  exec "${COMMAND[@]}" --no-defaults "$@"
  ;;
*) fail "usage: mysql.sh install | serve DIR PORT [options] | sql DIR [options] | binlog [options] FILE | version" ;;
esac
