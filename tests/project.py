"""A user's project for a test: a copy of this checkout, so that tests and a running demo never share a file."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bed import Bed, Host

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent
SECONDS = 600


class Project:
    """The copy, and the commands that a user runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._copy()

    def _copy(self) -> None:
        """What a fresh clone would hold, plus what is not committed yet."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            source, target = ROOT / name, self.folder / name
            if not source.exists() and not source.is_symlink():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)

    @property
    def facts(self) -> Path:
        """Where the local inventory looks for its host."""
        return self.folder / ".switchyard" / "local" / "host.json"

    def environment(self, **more: str) -> dict[str, str]:
        """The tools of the locked environment, and this copy's code."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHONPATH"))}
        return (
            inherited
            | {
                "PATH": f"{TOOLS}:{os.environ['PATH']}",
                "SWITCHYARD_PYTHON": str(TOOLS / "python"),
                "SWITCHYARD_PROJECT": str(self.folder),
                "ANSIBLE_NOCOLOR": "1",
            }
            | more
        )

    def run(self, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; the caller judges its exit code."""
        return subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environment(**more),
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )

    def play(self, name: str, *extra: str, env: str = "local", **more: str) -> subprocess.CompletedProcess[str]:
        """Run an entry point."""
        return self.run("ansible-playbook", f"{name}.yml", "-e", f"env={env}", *extra, **more)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, to be killed in the middle."""
        return subprocess.Popen(
            argv,
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A suite that runs in the background hands on an ignored SIGINT, which no terminal does.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def control(self, *words: str) -> dict[str, Any]:
        """Run a `switchyard` command with --json and return its document, whatever its exit code."""
        done = self.run("scripts/switchyard", *words, "--json")
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            raise AssertionError(f"no JSON from {words}: {done.stdout}{done.stderr}") from error
        return answer if isinstance(answer, dict) else {"rows": answer}

    def status(self) -> dict[str, Any]:
        """What the environment says of itself."""
        return self.control("status", "local")

    def adopt(self, bed: Bed, host: Host) -> None:
        """Make a host of the bed this project's `local`. The keys stay in the checkout, so their paths are absolute."""
        bed.write_inventory_facts(self.facts, host)
        facts = json.loads(self.facts.read_text())
        for key in ("private_key", "known_hosts"):
            facts[key] = str(ROOT / facts[key])
        self.facts.write_text(json.dumps(facts, indent=2) + "\n")
