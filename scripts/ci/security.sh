#!/usr/bin/env bash
# Runs one tool over an application's source: TOOL is pip-audit, bandit, semgrep, secrets or licences.
# OSV_URL: where pip-audit asks for vulnerabilities instead of PyPI; any server that answers as OSV's /v1/query does.
# Versions are pinned here; each tool gets an environment of its own, gone at the end.
set -euo pipefail
tool=${TOOL:?TOOL is empty} sources=${SOURCES:-.} requirements=${REQUIREMENTS:-}
work=$(mktemp -d "${RUNNER_TEMP:-/tmp}/switchyard-security.XXXXXX")
trap 'rm -rf "$work"' EXIT
# Some machines let nothing be executed in /tmp, and pip-audit makes an environment of its own.
export TMPDIR=$work
install() { python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
skip() { echo "security: $1" >&2; exit 0; }
case $tool in
  pip-audit)
    [ -n "$requirements" ] || skip "no requirements were named"
    install pip-audit==2.10.1
    service=()
    [ -z "${OSV_URL:-}" ] || service=(--vulnerability-service osv --osv-url "$OSV_URL")
    "$work/venv/bin/pip-audit" --requirement "$requirements" --progress-spinner off "${service[@]}"
    ;;
  bandit)
    install bandit==1.9.2
    "$work/venv/bin/bandit" --quiet --recursive --severity-level medium --exclude ./.switchyard-ci,./tests "$sources"
    ;;
  semgrep)
    install semgrep==1.180.0
    "$work/venv/bin/semgrep" scan --config p/default --error --quiet --metrics off --exclude .switchyard-ci "$sources"
    ;;
  secrets)
    install detect-secrets==1.5.0
    # A baseline is a file of the repository (detect-secrets scan > .secrets.baseline); without one, everything counts.
    baseline=()
    [ ! -f .secrets.baseline ] || baseline=(--baseline .secrets.baseline)
    git ls-files -z | xargs -0 "$work/venv/bin/detect-secrets-hook" "${baseline[@]}"
    ;;
  licences)
    [ -n "$requirements" ] || skip "no requirements were named"
    install --requirement "$requirements"
    python3 -m venv "$work/tool" && "$work/tool/bin/pip" install --quiet pip-licenses==5.5.0
    "$work/tool/bin/pip-licenses" --python "$work/venv/bin/python" ${LICENCES:+--allow-only="$LICENCES"}
    ;;
  *) echo "security: there is no tool '$tool'" >&2; exit 2 ;;
esac
