"""Hands a rendered release to the fleet coordinator over Ansible's own connection."""

from __future__ import annotations

import getpass
import re
import shlex
import socket
from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.switchyard.stack.plugins.plugin_utils.source import make_importable

make_importable()

from switchyard.control import fleet
from switchyard.control.bundle import make_bundle
from switchyard.control.transport import Answer, ConnectionLost
from switchyard.errors import SwitchyardError
from switchyard.request import parse

display = Display()

# What OpenSSH says when there was no session that a command could have arrived by.
_NEVER_ARRIVED = r"connect to host|Permission denied|Host key verification failed|Could not resolve|port \d+ timed out"


class AnsibleTransport:
    """A host over the connection that Ansible has opened, whatever plugin and options the inventory names."""

    def __init__(self, host: str, connection: Any) -> None:
        self.host = host
        self._connection = connection

    def run(self, argv: Sequence[str], stdin: str = "") -> Answer:
        """Run a command; nothing of it is logged, since requests carry secrets on standard input."""
        try:
            code, out, err = self._connection.exec_command(
                shlex.join(argv), in_data=stdin.encode() or None, sudoable=False
            )
        except AnsibleConnectionFailure as error:
            reason = str(error).strip().splitlines()[-1]
            raise ConnectionLost(reason, sent=not re.search(_NEVER_ARRIVED, str(error))) from error
        return Answer(code, out.decode(errors="replace"), err.decode(errors="replace"))


class ActionModule(ActionBase):
    """`switchyard.stack.deploy`: see the module of the same name for its documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _VALID_ARGS = frozenset({"request"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Deploy, or in check mode tell what a deploy would do."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        request = dict(self._task.args["request"])
        request["who"] = request.get("who") or f"{getpass.getuser()}@{socket.gethostname()}"
        request["engine"] = make_bundle().file_name
        members = self._members(variables, AnsibleTransport(host, self._connection))
        try:
            parse(request)
            if self._task.check_mode:
                return self._plan(members, request)
            return self._result(fleet.deploy(members, request, lambda line: display.display(f"  {host} {line}")))
        except ConnectionLost as error:
            return {"failed": True, "unreachable": True, "msg": f"{host} cannot be reached: {error}."}
        except SwitchyardError as error:
            return self._failure(int(error.code), error.message, error.details)

    def _members(self, variables: dict[str, Any], here: AnsibleTransport) -> list[fleet.Member]:
        groups: dict[str, list[str]] = variables["groups"]
        return [
            fleet.Member(
                frozenset(group for group in ("app", "edge", "db") if host in groups.get(group, [])),
                here if host == here.host else AnsibleTransport(host, None),
            )
            for host in sorted(groups.get("target", []))
        ]

    def _plan(self, members: list[fleet.Member], request: dict[str, Any]) -> dict[str, Any]:
        report = fleet.plan(members, request)
        text = report["text"]
        # Ansible shows a diff when it is asked for one and something changes; the plan is always shown.
        if not (self._task.diff and report["changed"]):
            display.display(text)
        result = {"changed": report["changed"], "plan": {k: v for k, v in report.items() if k != "text"}}
        return result | {"msg": text.splitlines(), "diff": {"prepared": f"{text}\n"}}

    def _result(self, engine: dict[str, Any]) -> dict[str, Any]:
        if engine["code"] != 0:
            # The details were shown as lines; as one escaped string they would bury the sentence.
            shown = {key: engine[key] for key in ("op", "release", "version", "phases")}
            return self._failure(int(engine["code"]), engine["message"], engine["details"]) | {"deploy": shown}
        display.display(f"  {engine['message']}")
        diff = {"before": f"{engine['previous']}\n", "after": f"{engine['release']}\n"} if engine["changed"] else {}
        return {"changed": engine["changed"], "msg": engine["message"], "deploy": engine, "diff": diff}

    def _failure(self, code: int, message: str, details: str) -> dict[str, Any]:
        if details:
            display.display(details)
        return {"failed": True, "rc": code, "msg": message}
