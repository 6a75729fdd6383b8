"""The action plugin of a deploy: what it leaves for the job that called it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEAVE = """
from ansible_collections.switchyard.stack.plugins.action import deploy
deploy.display.warning = print
object.__new__(deploy.ActionModule)._leave({"code": 0})
"""


def leave(path: Path) -> str:
    """Leave a result in this file; returns what was warned of."""
    # In a process of its own: Ansible's loader wants to be the first to import a collection.
    environment = os.environ | {"SWITCHYARD_RESULT": str(path), "PYTHONPATH": str(ROOT / "collections")}
    done = subprocess.run([sys.executable, "-c", LEAVE], env=environment, check=True, capture_output=True, text=True)
    return done.stdout


def test_a_result_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert (leave(path), path.read_text()) == ("", '{"code": 0}\n')
    path = tmp_path / "missing" / "result.json"
    assert leave(path) == f"The result was not written to SWITCHYARD_RESULT ({path}): No such file or directory.\n"
