#!/bin/bash
# The start contract of the official postgres image: a cluster is made once, on an empty PGDATA, from the
# environment; after that the environment changes nothing, and the arguments go to postgres.
set -Eeuo pipefail

fail() { printf 'postgres: %s\n' "$*" >&2; exit 1; }

# VAR or VAR_FILE, never both; afterwards the value is in VAR alone.
from_file() {
  local name=$1 file=$1_FILE value=${2:-}
  if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then fail "both $name and $file are set, but they exclude each other"; fi
  if [ -n "${!name:-}" ]; then value=${!name}; fi
  if [ -n "${!file:-}" ]; then value=$(< "${!file}"); fi
  export "$name=$value"
  unset "$file"
}

make_directories() {
  mkdir -p "$PGDATA"
  chmod 00700 "$PGDATA" || :
  mkdir -p /var/run/postgresql
  chmod 03775 /var/run/postgresql || :
  if [ "$(id -u)" = 0 ]; then
    find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
  fi
}

make_cluster() {
  local options=()
  # The arguments are split as a shell does it, as in the official image.
  eval "options=($POSTGRES_INITDB_ARGS)"
  if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then options+=(--waldir "$POSTGRES_INITDB_WALDIR"); fi
  initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") ${options[@]+"${options[@]}"}
}

allow_connections() {
  local method=${POSTGRES_HOST_AUTH_METHOD:-}
  if [ -z "$method" ]; then method=$(postgres -C password_encryption "$@"); fi
  printf '\nhost all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"
}

sql() { psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --username "$POSTGRES_USER" "$@"; }

make_database() {
  local known
  known=$(sql --dbname postgres --set db="$POSTGRES_DB" --tuples-only \
    <<< "SELECT 1 FROM pg_database WHERE datname = :'db';")
  if [ -z "$known" ]; then
    sql --dbname postgres --set db="$POSTGRES_DB" <<< 'CREATE DATABASE :"db";'
  fi
}

run_hooks() {
  local hook
  for hook in /docker-entrypoint-initdb.d/*; do
    case $hook in
      *.sh)
        # shellcheck source=/dev/null # whatever a derived image brings
        if [ -x "$hook" ]; then "$hook"; else . "$hook"; fi ;;
      *.sql) sql --dbname "$POSTGRES_DB" -f "$hook" ;;
      *.sql.gz) gunzip -c "$hook" | sql --dbname "$POSTGRES_DB" ;;
      *) : ;;
    esac
  done
}

initialise() {
  from_file POSTGRES_PASSWORD
  from_file POSTGRES_USER postgres
  from_file POSTGRES_DB "$POSTGRES_USER"
  from_file POSTGRES_INITDB_ARGS
  if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
    fail "the database is uninitialised and POSTGRES_PASSWORD is not set"
  fi
  if [ "${POSTGRES_HOST_AUTH_METHOD:-}" = trust ]; then
    printf 'postgres: POSTGRES_HOST_AUTH_METHOD is "trust": anyone may connect without a password\n' >&2
  fi
  export PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD}
  make_cluster
  allow_connections "$@"
  # Only the socket listens until the hooks have run, so nobody takes this server for the finished one.
  PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -o "$(printf '%q ' "$@" -c listen_addresses='' -p 5432)" -w start
  make_database
  run_hooks
  PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -m fast -w stop
  unset PGPASSWORD
  printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

if [ "${1:0:1}" = - ]; then set -- postgres "$@"; fi
if [ "${1:-}" = postgres ]; then
  make_directories
  if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/var/lib/postgresql "${BASH_SOURCE[0]}" "$@"
  fi
  if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initialise "${@:2}"
  fi
fi
exec "$@"
