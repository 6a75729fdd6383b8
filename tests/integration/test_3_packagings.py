"""The same code as a clone and as an installed collection, with the oldest and the newest supported Ansible."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import NEW, OLD, Environment
from tests.project import ROOT


def newer_python() -> str:
    """An interpreter for the second lock file; '' when this machine has none."""
    for name in ("python3.13", "python3.12", "python3.14"):
        found = shutil.which(name)
        answers = (
            found and subprocess.run([found, "-c", "import venv"], check=False, capture_output=True).returncode == 0
        )
        if found and answers:
            return found
    versions = sorted(Path("~/.pyenv/versions").expanduser().glob("3.1[2-9].*/bin/python3"))
    return str(versions[-1]) if versions else ""


def test_the_built_collection_does_the_whole_job_from_elsewhere(released: Environment, tmp_path: Path) -> None:
    """A user's directory with nothing but an inventory and three lines of configuration."""
    project = released.project
    done = project.run("ansible-galaxy", "collection", "build", "--force", "--output-path", str(tmp_path / "built"))
    assert done.returncode == 0, done.stdout + done.stderr
    archive = next((tmp_path / "built").glob("switchyard-stack-*.tar.gz"))
    home = tmp_path / "user"
    home.mkdir()
    collections = home / "collections"
    done = project.run(
        "ansible-galaxy", "collection", "install", "--no-deps", "--force", "-p", str(collections), str(archive)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(project.folder / "inventories", home / "inventories")
    shutil.copytree(project.folder / ".switchyard", home / ".switchyard")
    settings = (
        f"[defaults]\ninventory = inventories/\ncollections_path = {collections}\n"
        "interpreter_python = /usr/bin/python3\n[connection]\npipelining = True\n"
    )
    (home / "ansible.cfg").write_text(settings)
    before = released.live()
    wanted = NEW if before == OLD else OLD
    environment = project.environment(PYTHONPATH="")
    del environment["SWITCHYARD_PROJECT"]

    def run(*argv: str) -> None:
        done = subprocess.run(
            argv,
            cwd=home,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("ansible-playbook", "switchyard.stack.provision", "-e", "env=local", "--check")
    run("ansible-playbook", "switchyard.stack.deploy", "-e", "env=local", "-e", f"version={wanted}")
    assert released.live() == wanted
    run(str(collections / "ansible_collections" / "switchyard" / "stack" / "scripts" / "rollback.sh"), "local")
    assert released.live() == before


def test_the_newest_ansible_deploys_as_well(released: Environment, tmp_path: Path) -> None:
    python = newer_python()
    if not python:
        pytest.skip("this machine has no Python 3.12 or newer")
    venv = tmp_path / "venv"
    made = subprocess.run(
        ["scripts/setup.sh", "run"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": python, "VENV": str(venv)},
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    wanted = NEW if released.live() == OLD else OLD
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    done = released.project.play("deploy", "-e", f"version={wanted}", PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert released.live() == wanted
    done = released.project.play("provision", "--check", PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    back = released.project.run("scripts/rollback.sh", "local", SWITCHYARD_PYTHON=str(venv / "bin" / "python"))
    assert back.returncode == 0, back.stdout + back.stderr
