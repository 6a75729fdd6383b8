#!/usr/bin/env bash
# Runs the named suites in order and ends with one line that counts them: scripts/test.sh lint|unit|integration|faults ...
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
SUDO=$([ "$(id -u)" = 0 ] || echo sudo) scripts/setup.sh dev || exit 1
export PATH=$PWD/.venv/bin:$PATH PYTHONPATH=$PWD/src:$PWD
passed=0 failed=0

check() { # NAME COMMAND...: one check, quiet while it passes
  local name=$1 output; shift
  local started=$SECONDS
  if output=$("$@" 2>&1); then
    passed=$((passed + 1)); echo "ok      $name ($((SECONDS - started)) s)"
  else
    failed=$((failed + 1)); echo "FAILED  $name"; echo "$output" | tail -n 60
  fi
}

suite() { # NAME PATHS...: a pytest suite, its own count added to ours
  local name=$1; shift
  local report; report=$(mktemp)
  echo "== $name"
  python -m pytest -q --junitxml="$report" "$@" || true
  read -r good bad < <(python - "$report" <<'PY'
import sys, xml.etree.ElementTree as tree
try:
    suites = tree.parse(sys.argv[1]).getroot().iter("testsuite")
    totals = [(int(s.get("tests")), int(s.get("failures")) + int(s.get("errors")), int(s.get("skipped"))) for s in suites]
    tests, bad, skipped = map(sum, zip(*totals))
    print(tests - bad - skipped, bad or (1 if tests == 0 else 0))
except Exception:
    print(0, 1)
PY
)
  rm -f "$report"
  passed=$((passed + good)); failed=$((failed + bad))
}

for name in "$@"; do
  case $name in
    lint)
      echo "== lint"
      check "ruff format" ruff format --check .
      check "ruff" ruff check .
      check "mypy" mypy src tests scripts
      check "mypy, plugins" mypy collections/ansible_collections/switchyard/stack/plugins
      check "yamllint" yamllint --strict .
      check "ansible-lint" ansible-lint --offline
      check "shellcheck" bash -c 'git ls-files -z "*.sh" .ci/run scripts/switchyard | xargs -0 shellcheck'
      ;;
    unit) suite "unit and render" tests/unit tests/render ;;
    integration)
      # Of the faults, a kill after each effect and what preflight refuses; what befalls whole hosts is in `faults`.
      SWITCHYARD_FAULTS=smoke suite "integration, on real hosts" \
        tests/integration tests/faults/test_every_point.py tests/faults/test_preflight.py
      ;;
    faults) suite "every fault point" tests/faults ;;
    *) echo "test: no suite is called '$name'; there are lint, unit, integration, faults" >&2; exit 2 ;;
  esac
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
