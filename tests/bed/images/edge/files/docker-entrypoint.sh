#!/bin/sh
# Keeps the official image's contract: hooks run before nginx itself, and any other command runs as it is.
set -e
case "$1" in
  nginx|nginx-debug)
    for hook in /docker-entrypoint.d/*; do
      case "$hook" in
        *.envsh)
          # shellcheck source=/dev/null # whatever a derived image brings
          [ ! -x "$hook" ] || . "$hook" ;;
        *.sh) [ ! -x "$hook" ] || "$hook" ;;
      esac
    done ;;
esac
exec "$@"
