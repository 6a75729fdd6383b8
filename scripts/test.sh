#!/usr/bin/env bash
# Runs the named suites in order and ends with one line that counts them: scripts/test.sh lint|unit|integration|roles ...
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
SUDO=$([ "$(id -u)" = 0 ] || echo sudo) scripts/setup.sh dev || exit 1
export PATH=$PWD/.venv/bin:$PATH PYTHONPATH=$PWD/src:$PWD
passed=0 failed=0 spent=

check() { # NAME COMMAND...: one check, quiet while it passes
  local name=$1 output; shift
  local started=$SECONDS
  if output=$("$@" 2>&1); then
    passed=$((passed + 1)); echo "ok      $name ($((SECONDS - started)) s)"
  else
    failed=$((failed + 1)); echo "FAILED  $name"; echo "$output" | tail -n 60
  fi
}

suite() { # NAME ARGUMENTS...: a pytest suite, its own count added to ours
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
  started=$SECONDS
  case $name in
    lint)
      echo "== lint"
      check "ruff format" ruff format --check .
      check "ruff" ruff check .
      check "mypy" mypy src tests scripts
      check "mypy, scenarios" mypy extensions/molecule
      check "mypy, plugins" mypy collections/ansible_collections/switchyard/stack/plugins
      check "yamllint" yamllint --strict .
      check "ansible-lint" ansible-lint --offline
      check "secrets" scripts/ci/secret_scan.py
      check "actionlint" scripts/actionlint.sh .github/workflows/*.yml examples/github/*.yml
      check "zizmor" zizmor --offline --quiet --persona pedantic .github/workflows/*.yml examples/github/*.yml
      check "shellcheck" bash -c 'git ls-files -z "*.sh" .ci/run scripts/switchyard | xargs -0 shellcheck'
      ;;
    unit) suite "unit and render" -n 2 tests/unit tests/render ;;
    integration)
      # Of the faults, a kill after each effect and what preflight refuses; what befalls whole hosts is in `faults`.
      # What is marked `long` runs in `more`.
      SWITCHYARD_FAULTS=smoke suite "integration, on real hosts" \
        -m "not long" -n 2 --dist loadscope --durations=10 \
        tests/integration/test_{1,2,3,4,5,6,8,9,10,11}_*.py tests/integration/test_7_data.py \
        tests/faults/test_every_point.py tests/faults/test_preflight.py
      ;;
    more)
      SWITCHYARD_PIPELINE=whole suite "pipeline and data whole, several hosts, example systems, on real hosts" \
        -n 2 --dist loadscope --durations=10 \
        tests/integration/test_9_pipeline.py tests/integration/test_{7,12,13}_*.py
      ;;
    roles) suite "roles, once more on one host" tests/integration/test_4_roles.py ;;
    faults)
      # What takes longest comes first.
      suite "every fault point" -n 2 --dist loadscope --no-loadscope-reorder \
        tests/faults/test_{every_point,hosts,fleet,edge,preflight}.py
      ;;
    *) echo "test: no suite is called '$name'; there are lint, unit, integration, more, roles, faults" >&2; exit 2 ;;
  esac
  spent+="$name took $((SECONDS - started)) s"$'\n'
done
printf '%s' "$spent"
# The last line is what CI reads.
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
