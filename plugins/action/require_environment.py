"""Lets nothing happen unless one known environment was named, and a host of it is left."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """`switchyard.stack.require_environment`: see the module of the same name for its documentation."""

    # Asked once for all hosts, with the variables of the first alone, and its failure is that of all.
    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset[str]()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge `-e env=` and `--limit`."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        problem = _problem(str(variables.get("env", "")), variables["groups"], variables["ansible_play_hosts_all"])
        return {"failed": True, "msg": problem} if problem else {"changed": False}


def _problem(given: str, groups: dict[str, list[str]], hosts: list[str]) -> str:
    known = sorted(name.removeprefix("env_") for name in groups if name.startswith("env_"))
    if given not in known:
        example = known[0] if known else "staging"
        return (
            f"Unknown environment '{given or '(none given)'}'. Choose one of: {', '.join(known)}, for example: "
            f"-e env={example}."
        )
    if not set(hosts) & set(groups.get("target", [])):
        return f"--limit leaves no host of '{given}' (its hosts: {', '.join(sorted(groups[f'env_{given}']))})."
    return ""
