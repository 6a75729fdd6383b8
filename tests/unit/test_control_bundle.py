"""The bundle: the engine as one file that is named by its content and needs nothing beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from switchyard.control import bundle
from switchyard.control.bundle import make_bundle


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package in a place where it may be changed."""
    target = tmp_path / "switchyard"
    shutil.copytree(bundle.PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(bundle, "PACKAGE", target)
    return target


def test_the_same_sources_give_the_same_bytes(copy: Path) -> None:
    first = make_bundle()
    for path in copy.rglob("*.py"):
        path.touch()
        path.chmod(0o600)
    assert make_bundle() == first


def test_the_order_in_which_a_disk_lists_its_files_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    first, listed = make_bundle(), bundle._sources()
    monkeypatch.setattr(bundle, "_sources", lambda: dict(reversed(listed.items())))
    assert make_bundle() == first


def test_a_changed_added_or_renamed_module_changes_the_name(copy: Path) -> None:
    names = {make_bundle().file_name}
    with (copy / "names.py").open("a") as file:
        file.write("\n")
    names.add(make_bundle().file_name)
    (copy / "engine" / "more.py").write_text("")
    names.add(make_bundle().file_name)
    (copy / "engine" / "more.py").rename(copy / "engine" / "other.py")
    names.add(make_bundle().file_name)
    assert len(names) == 4
    assert all(re.fullmatch(r"engine-[0-9a-f]{16}\.pyz", name) for name in names)


def test_the_control_side_is_no_part_of_it(copy: Path) -> None:
    before = make_bundle()
    (copy / "control" / "fleet.py").write_text("changed")
    assert make_bundle() == before


def test_it_holds_the_engine_what_it_shares_and_a_start(tmp_path: Path) -> None:
    path = tmp_path / "engine.pyz"
    path.write_bytes(make_bundle().content)
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
    assert {"__main__.py", "switchyard/__init__.py", "switchyard/engine/cli.py", "switchyard/request.py"} <= names
    assert not any("control" in name or "__pycache__" in name for name in names)


def test_it_runs_alone_and_lets_nobody_add_code_to_it(tmp_path: Path) -> None:
    made = make_bundle()
    path = tmp_path / made.file_name
    path.write_bytes(made.content)
    path.chmod(0o755)
    assert made.content.startswith(b"#!/usr/bin/python3 -I\n")
    (tmp_path / "json.py").write_text("raise SystemExit('somebody else got in')")
    argv = [sys.executable, "-I", str(path), "--help"]
    done = subprocess.run(argv, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "rollback" in done.stdout
