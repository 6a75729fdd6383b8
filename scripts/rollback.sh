#!/usr/bin/env bash
# Brings an earlier release back: scripts/rollback.sh ENV [VERSION]
# Without a version: the previous good release. Needs neither Ansible nor a registry, only SSH to the host.
set -euo pipefail
case ${1:-} in
  ''|-h|--help) exec "$(dirname "$0")/switchyard" rollback --help ;;
esac
exec "$(dirname "$0")/switchyard" rollback "$@"
