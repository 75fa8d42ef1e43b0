#!/usr/bin/env bash
# Percona's pt-online-schema-change, for the tests: the one on PATH, otherwise Debian's package, unpacked into the cache
# folder with the Perl modules it needs. Nothing is installed in the system.
#
#   pt_online_schema_change.sh install        make sure it can be run; says why not otherwise
#   pt_online_schema_change.sh run ARGUMENTS  run it
set -euo pipefail

CACHE=${BINLAKE_SERVERS:-$HOME/.cache/binlake/servers}
UNPACKED=$CACHE/percona-toolkit-debian
PACKAGES=(percona-toolkit libdbi-perl libdbd-mysql-perl libmariadb3 libterm-readkey-perl)

fail() { echo "pt_online_schema_change.sh: $*" >&2; exit 1; }

install() {
  command -v pt-online-schema-change >/dev/null && return 0
  [ -x "$UNPACKED/usr/bin/pt-online-schema-change" ] && return 0
  if ! { command -v apt-get && command -v dpkg-deb && command -v perl; } >/dev/null; then
    fail "no pt-online-schema-change: install percona-toolkit."
  fi
  mkdir -p "$CACHE"
  exec 9>"$CACHE/percona-toolkit.lock"
  flock 9
  [ -x "$UNPACKED/usr/bin/pt-online-schema-change" ] && return 0
  local package
  fresh=$(mktemp -d "$CACHE/.percona.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  (cd "$fresh" && apt-get download -qq -o APT::Sandbox::User= "${PACKAGES[@]}" >&2) ||
    fail "apt could not fetch ${PACKAGES[*]}; see its messages above."
  for package in "$fresh"/*.deb; do dpkg-deb -x "$package" "$fresh/root"; done
  rm -rf "$UNPACKED"
  mv "$fresh/root" "$UNPACKED"
}

run() {
  if command -v pt-online-schema-change >/dev/null; then exec pt-online-schema-change "$@"; fi
  local library
  library=$(dirname "$(find "$UNPACKED/usr/lib" -name libmariadb.so.3 -print -quit)")
  PERL5LIB=$(printf '%s:' "$UNPACKED"/usr/lib/*/perl5/* "$UNPACKED/usr/share/perl5") \
    LD_LIBRARY_PATH=$library MARIADB_PLUGIN_DIR=$library/libmariadb3/plugin \
    exec perl "$UNPACKED/usr/bin/pt-online-schema-change" "$@"
}

case "${1:-}" in
  install) install ;;
  run) shift; run "$@" ;;
  *) fail "install or run" ;;
esac
