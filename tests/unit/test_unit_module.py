"""The module `unit` against a systemctl that knows a target with two timers; real units are in the scenarios."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.project import ROOT

TARGET, DAILY, DRILL = "backup.target", "backup-daily.timer", "backup-drill.timer"
SYSTEMCTL = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
verb=$1; for unit; do :; done
case $verb in
is-enabled) test -e "enabled-$unit" ;;
is-active) test -e "active-$unit" ;;
enable) echo "$*" >> done; touch "enabled-$unit" ;;
disable) echo "$*" >> done; rm -f "enabled-$unit" ;;
start) echo "$*" >> done; touch "active-$unit"; for one in $(cat "wants-$unit"); do touch "active-$one"; done ;;
stop) echo "$*" >> done; rm -f "active-$unit" ;;
daemon-reload) echo "$*" >> done; rm -f outdated-* ;;
show) case $2 in
  --property=Wants) cat "wants-$unit" 2>/dev/null ;;
  --property=Triggers) echo "${unit%.*}.service" ;;
  --property=NeedDaemonReload) test -e "outdated-$unit" && echo yes || echo no ;;
  esac; true ;;
esac
"""


@dataclass
class Units:
    """A folder that stands for systemd: a file `enabled-X` or `active-X` is what `is-enabled` and `is-active` see."""

    folder: Path

    def have(self, *names: str) -> None:
        for name in names:
            (self.folder / name).touch()

    def run(self, *, check: bool = False, **arguments: Any) -> tuple[bool, list[str]]:
        """Run the module on the target; whether it says changed, and what it had systemctl do."""
        given = {"ANSIBLE_MODULE_ARGS": {"name": TARGET, "_ansible_check_mode": check, **arguments}}
        done = subprocess.run(
            [sys.executable, "-m", "ansible_collections.switchyard.stack.plugins.modules.unit"],
            input=json.dumps(given),
            env=os.environ | {"PATH": f"{self.folder}:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "collections")},
            capture_output=True,
            text=True,
            check=False,
        )
        said = json.loads(done.stdout)
        assert "failed" not in said, said
        log = self.folder / "done"
        verbs = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return said["changed"], verbs


@pytest.fixture
def units(tmp_path: Path) -> Units:
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    (tmp_path / f"wants-{TARGET}").write_text(f"{DAILY} {DRILL}\n")
    return Units(tmp_path)


def test_a_target_is_enabled_and_started_once(units: Units) -> None:
    assert units.run(started=True, check=True) == (True, [])
    assert units.run(started=True) == (True, [f"enable {TARGET}", f"start {TARGET}"])
    assert units.run(started=True) == (False, [])


def test_an_active_target_is_started_again_for_a_timer_that_is_not(units: Units) -> None:
    units.have(f"enabled-{TARGET}", f"active-{TARGET}", f"active-{DAILY}")
    assert units.run(started=True) == (True, [f"start {TARGET}"])
    assert units.run(started=True) == (False, [])


@pytest.mark.parametrize("newer", [TARGET, DRILL, "backup-drill.service"])
def test_what_a_run_before_placed_is_read_though_this_one_placed_nothing(units: Units, newer: str) -> None:
    units.have(f"enabled-{TARGET}", *(f"active-{unit}" for unit in (TARGET, DAILY, DRILL)), f"outdated-{newer}")
    assert units.run(started=True, check=True) == (True, [])
    assert units.run(started=True) == (True, ["daemon-reload"])
    assert units.run(started=True) == (False, [])


def test_what_is_no_longer_wanted_is_ended_and_what_never_was_is_fine(units: Units) -> None:
    units.have(f"enabled-{TARGET}", f"active-{TARGET}")
    assert units.run(enabled=False, check=True) == (True, [])
    assert units.run(enabled=False) == (True, [f"stop {TARGET}", f"disable {TARGET}"])
    assert units.run(enabled=False) == (False, [])
