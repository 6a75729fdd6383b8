"""Starts an operation of the engine over Ansible's own connection and follows it."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.switchyard.stack.plugins.action.deploy import AnsibleTransport
from ansible_collections.switchyard.stack.plugins.plugin_utils.source import make_importable

make_importable()

from switchyard.control import fleet
from switchyard.control.transport import ConnectionLost
from switchyard.errors import SwitchyardError

display = Display()


class ActionModule(ActionBase):
    """`switchyard.stack.operation`: see the module of the same name for its documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _VALID_ARGS = frozenset({"app", "words", "order"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Start, follow, and report how it ended."""
        super().run(tmp, task_vars)
        host = (task_vars or {})["inventory_hostname"]
        words = [str(word) for word in self._task.args["words"]]
        order = self._task.args.get("order")
        given = json.dumps(order) if order else ""
        if self._task.check_mode and not order:
            return {"skipped": True, "msg": "Nothing is started in check mode."}
        words += ["--who", fleet.who()]
        transport = AnsibleTransport(host, lambda: self._connection)
        try:
            if self._task.check_mode:
                plan = fleet.ask(transport, [*words, "--check", "--json"], given)
                display.display(f"  {plan['message']}")
                return {"changed": plan["changed"], "msg": plan["message"]}
            result = fleet.operate(
                transport, words, given, str(self._task.args["app"]), lambda line: display.display(f"  {host} {line}")
            )
        except ConnectionLost as error:
            return {"failed": True, "unreachable": True, "msg": f"{host} cannot be reached: {error}."}
        except SwitchyardError as error:
            return self._failure(int(error.code), error.message, error.details)
        if result["code"] != 0:
            return self._failure(int(result["code"]), result["message"], result["details"])
        display.display(f"  {result['message']}")
        return {"changed": result["changed"], "msg": result["message"], "operation": result}

    def _failure(self, code: int, message: str, details: str) -> dict[str, Any]:
        if details:
            display.display(details)
        return {"failed": True, "rc": code, "msg": message}
