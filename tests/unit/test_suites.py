"""scripts/test.sh tells how long each suite took, and ends with the line that CI reads."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.project import ROOT

# Stands for pytest; whatever else it is asked, Python answers.
PYTHON = f"""#!/bin/sh
report='<testsuites><testsuite tests="4" failures="1" errors="0" skipped="1"/></testsuites>'
for word in "$@"; do case $word in --junitxml=*) echo "$report" > "${{word#*=}}" ;; esac; done
[ "$1" = -m ] || exec {sys.executable} "$@"
"""


def test_the_last_line_counts_and_those_before_it_tell_the_time(tmp_path: Path) -> None:
    scripts, tools = tmp_path / "scripts", tmp_path / ".venv" / "bin"
    scripts.mkdir()
    tools.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "test.sh", scripts)
    for path, text in ((scripts / "setup.sh", "#!/bin/sh\n"), (tools / "python", PYTHON)):
        path.write_text(text)
        path.chmod(0o755)
    done = subprocess.run([scripts / "test.sh", "unit", "roles"], check=False, capture_output=True, text=True)
    *_, unit, roles, last = done.stdout.splitlines()
    assert unit.startswith("unit took ") and roles.startswith("roles took ")
    assert last == "4 passed, 2 failed"
    assert done.returncode == 1
