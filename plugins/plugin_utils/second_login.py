"""Confirms a change of the way in by coming in again, over a connection that is new."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

SECONDS = 20
"""How long the host waits for the second login before it undoes the change."""


class GuardedAction(ActionBase):
    """Runs the module of the same name, then confirms it from a second login, or tells that it was taken back."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Change, come in again, confirm."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        name, given = self._task.action, dict(self._task.args)
        result |= self._execute_module(name, {**given, "undo_seconds": SECONDS}, task_vars=task_vars)
        if not result.get("armed"):
            return result
        try:
            # Closes the shared connection, so that what follows has to be let in again.
            self._connection.reset()
            confirmed = self._execute_module(name, {**given, "confirm": True}, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            return result | {"failed": True, "msg": self._lost(str(error).strip().splitlines()[-1])}
        return result if not confirmed.get("failed") else result | confirmed

    def _lost(self, reason: str) -> str:
        host = self._templar.available_variables.get("inventory_hostname", "The host")
        told = f"{host} lets nobody in with the new settings ({reason})"
        deadline = time.monotonic() + SECONDS + 30
        while time.monotonic() < deadline:
            time.sleep(2)
            try:
                self._connection.reset()
                if self._low_level_execute_command("true", sudoable=False)["rc"] == 0:
                    return f"{told}, so it took them back by itself: the old settings are in force."
            except AnsibleConnectionFailure:
                continue
        return f"{told}, and does not answer yet. It takes them back by itself; look at its console if it does not."
