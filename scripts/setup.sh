#!/usr/bin/env bash
# Makes or refreshes the locked Python environment in .venv: setup.sh run|dev
# An installed collection is replaced with each version, so there it is made in the directory where the user is.
# The lock that fits the interpreter is chosen by its version; nothing is done when the lock has not changed.
set -euo pipefail
user=$PWD
cd "$(dirname "$0")/.."
kind=${1:?usage: scripts/setup.sh run|dev}
python=${PYTHON:-python3}

version=$("$python" -c 'import sys; print("%d%02d" % sys.version_info[:2])')
if   [ "$version" -ge 312 ]; then lock=requirements/$kind-py312.txt
elif [ "$version" -ge 311 ]; then lock=requirements/$kind-py311.txt
else echo "setup: $python is older than Python 3.11; name a newer one with PYTHON=/path/to/python3.11" >&2; exit 2
fi
venv=.venv
[ ! -f MANIFEST.json ] || venv=$user/.venv
venv=${VENV:-$venv}
# The development lock contains the run lock, so an environment that satisfies it satisfies both.
wanted=$(cat "$lock" | sha256sum | cut -d' ' -f1)
if grep -qsx "$wanted" "$venv/.locks"; then exit 0; fi

"$python" -c 'import venv, ensurepip' 2>/dev/null || {
  echo "setup: $python lacks venv; installing the distribution's python3-venv" >&2
  ${SUDO:-} apt-get update -qq && ${SUDO:-} apt-get install -y -qq python3-venv >&2
}
echo "setup: preparing $venv from $lock" >&2
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes -r "$lock"
# The engine and the control command are imported from src, so an edit takes effect at once.
"$venv/bin/python" - <<'PY'
import pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
root = pathlib.Path.cwd()
(site / "switchyard-checkout.pth").write_text(f"{root / 'src'}\n{root}\n")
PY
printf '%s\n' "$wanted" >> "$venv/.locks"
[ "$kind" != dev ] || sha256sum < "requirements/run-${lock##*-}" | cut -d' ' -f1 >> "$venv/.locks"
