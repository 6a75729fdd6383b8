"""The built collection is whole, and its scripts work for a user who has nothing but it."""

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.project import ROOT, TOOLS

WHOLE = ("roles", "compose", "plugins", "playbooks", "src", "meta", "inventories", "examples/fleet", "examples/systems")
BESIDE = {"scripts/rollback.sh", "scripts/switchyard", "scripts/setup.sh", "ansible.cfg"} | {
    f"requirements/run-py3{minor}.txt" for minor in (11, 12)
}


def tracked(*folders: str) -> set[str]:
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *folders]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(name="installed", scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as its installation lays it down: unpacked."""
    folder = tmp_path_factory.mktemp("collection")
    argv = [str(TOOLS / "ansible-galaxy"), "collection", "build", "--output-path", str(folder)]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(folder.glob("switchyard-stack-*.tar.gz"))) as archive:
        archive.extractall(folder / "stack", filter="data")
    return folder / "stack"


def test_it_holds_every_file_that_provision_deploy_and_rollback_need(installed: Path) -> None:
    packed = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert (tracked(*WHOLE) | BESIDE) - packed == set()
    assert not [name for name in packed if name.startswith(("tests/", ".")) or name.endswith(("vault.yml", ".pyc"))]
    assert all(os.access(installed / name, os.X_OK) for name in BESIDE if name.startswith("scripts/"))


@pytest.mark.parametrize("script", ["switchyard", "rollback.sh"])
def test_commands_look_for_the_inventory_where_the_user_is(installed: Path, tmp_path: Path, script: str) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$SWITCHYARD_PROJECT $PYTHONPATH"\n')
    python.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
    for root, project in ((installed, tmp_path), (ROOT, ROOT)):
        argv = [str(root / "scripts" / script), "status"]
        environment = inherited | {"SWITCHYARD_PYTHON": str(python)}
        done = subprocess.run(argv, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
        assert done.stdout.split() == [str(project), str(root / "src")]


def test_its_environment_is_made_where_the_user_is(installed: Path, tmp_path: Path) -> None:
    lock = installed / "requirements" / f"run-py3{min(sys.version_info.minor, 12)}.txt"
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".locks").write_text(hashlib.sha256(lock.read_bytes()).hexdigest() + "\n")
    inherited = {name: value for name, value in os.environ.items() if name != "VENV"}
    done = subprocess.run(
        [str(installed / "scripts" / "setup.sh"), "run"],
        cwd=tmp_path,
        env=inherited | {"PYTHON": sys.executable, "PIP_NO_INDEX": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    # It is there and up to date, so that nothing was left to do.
    assert (done.returncode, done.stderr) == (0, "")
    assert not (installed / ".venv").exists()
