"""Asks the Docker command line and the Switchyard engine on a host.

Runs on hosts, so it uses the standard library alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

SWITCHYARD = "/usr/local/sbin/switchyard"


class Docker:
    """The `docker` command, with failures told by the module."""

    def __init__(self, module: Any) -> None:
        self.module = module

    @property
    def missing(self) -> bool:
        """Tell whether a check-mode run meets a host without Docker: then nothing can be asked, only predicted."""
        if shutil.which("docker"):
            return False
        if self.module.check_mode:
            return True
        self.module.fail_json(msg="This host has no Docker: run provision.yml without --tags, or with --tags docker.")
        raise AssertionError

    def ask(self, *words: str) -> tuple[int, str, str]:
        """Run a command; returns exit code, output and errors."""
        code, out, err = self.module.run_command(["docker", *words])
        return int(code), str(out), str(err)

    def do(self, purpose: str, *words: str, stdin: str | None = None) -> str:
        """Run a command that must succeed; `purpose` completes the sentence "cannot ..."."""
        code, out, err = self.module.run_command(["docker", *words], data=stdin)
        if code != 0:
            lines = [line.strip() for line in (err.strip() or out.strip()).splitlines() if line.strip()]
            self.module.fail_json(msg=f"Cannot {purpose}: {lines[-1] if lines else f'exit code {code}'}", stderr=err)
        return str(out)


def ask_engine(module: Any, words: list[str], data: object) -> dict[str, Any] | None:
    """Give the engine a JSON document and return its answer; None when check mode meets a host without engine."""
    if not Path(SWITCHYARD).exists() and module.check_mode:
        return None
    code, out, err = module.run_command([SWITCHYARD, *words], data=json.dumps(data))
    try:
        answer: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        answer = {"error": (err.strip() or out.strip() or f"exit code {code}").splitlines()[-1]}
    if code != 0 or "error" in answer:
        module.fail_json(msg=str(answer.get("error", err)), details=str(answer.get("details", "")))
    return answer


def diff_of(module: Any, answer: dict[str, Any]) -> dict[str, Any]:
    """The engine's differences as Ansible shows them, when it was asked for them."""
    if not module._diff:
        return {}
    shown = [
        {"before_header": item["path"], "after_header": item["path"], "before": item["before"], "after": item["after"]}
        for item in answer["diff"]
    ]
    return {"diff": shown}
