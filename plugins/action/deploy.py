"""Hands a rendered release to the fleet coordinator over Ansible's own connection."""

from __future__ import annotations

import json
import os
import re
import shlex
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display
from ansible_collections.switchyard.stack.plugins.plugin_utils.source import make_importable

make_importable()

from switchyard.control import fleet, ledger
from switchyard.control.bundle import make_bundle
from switchyard.control.transport import SILENCE_SECONDS, Answer, ConnectionLost
from switchyard.errors import SwitchyardError
from switchyard.names import AppName
from switchyard.request import parse

display = Display()

# What OpenSSH says when there was no session that a command could have arrived by.
_NEVER_ARRIVED = r"connect to host|Permission denied|Host key verification failed|Could not resolve|port \d+ timed out"


class AnsibleTransport:
    """A host over a connection of Ansible's own, whatever plugin and options the inventory names.

    `connect` is called once for each thread: a connection plugin is not made for several.
    """

    def __init__(self, host: str, connect: Callable[[], Any]) -> None:
        self.host = host
        self._connect, self._local = connect, threading.local()

    def run(self, argv: Sequence[str], stdin: str = "", silence: float = SILENCE_SECONDS) -> Answer:  # noqa: ARG002 - `Transport` has it; here the connection's own options limit silence
        """Run a command; nothing of it is logged, since requests carry secrets on standard input.

        How long it may be silent is a matter of the connection's own options.
        """
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connect()
        try:
            code, out, err = self._local.connection.exec_command(
                shlex.join(argv), in_data=stdin.encode() or None, sudoable=False
            )
        except AnsibleConnectionFailure as error:
            reason = str(error).strip().splitlines()[-1]
            raise ConnectionLost(reason, sent=not re.search(_NEVER_ARRIVED, str(error))) from error
        return Answer(code, out.decode(errors="replace"), err.decode(errors="replace"))


class ActionModule(ActionBase):
    """`switchyard.stack.deploy`: see the module of the same name for its documentation."""

    # One task for all hosts, whose failure is that of all; a strategy that cannot do that is refused by Ansible.
    BYPASS_HOST_LOOP = True
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
        request["who"] = request.get("who") or fleet.who()
        request["engine"] = make_bundle().file_name
        members = self._members(variables)
        try:
            parse(request)
            if self._task.check_mode:
                return self._plan(members, request)
            where = "" if fleet.single(members) is None else f"{host} "
            # Ansible shows nothing of its workers any more when it is interrupted, so it is said before.
            display.display(
                "  Ctrl-C stops the following alone: the release goes on on the host, see 'switchyard status'"
                if where
                else "  Ctrl-C ends the release and takes it back; Ansible waits for that, and says nothing of it"
            )
            excused = [name for name in str(variables.get("allow_unreachable", "")).split(",") if name]
            project, name = Path(variables["inventory_dir"]).parent, AppName(request["app"], request["environment"])
            copy = ledger.copy_file(name, project)
            done = fleet.deploy(
                members, request, lambda line: display.display(f"  {where}{line}"), excused=excused, copy=copy
            )
            self._keep_copy(members, name, project)
            self._leave(done)
            return self._result(done)
        except KeyboardInterrupt as interrupt:
            self._leave({"code": 130, "message": str(interrupt)})
            raise
        except ConnectionLost as error:
            return {"failed": True, "unreachable": True, "msg": f"{host} cannot be reached: {error}."}
        except SwitchyardError as error:
            self._leave({"code": int(error.code), "message": error.message})
            return self._failure(int(error.code), error.message, error.details)

    def _leave(self, result: dict[str, Any]) -> None:
        """Leave the result in the file that a job named, since Ansible's own exit code only says that a task failed."""
        path = os.environ.get("SWITCHYARD_RESULT")
        if path:
            try:
                Path(path).write_text(json.dumps(result) + "\n")
            except OSError as error:
                # What happened on the hosts stays what it is.
                display.warning(f"The result was not written to SWITCHYARD_RESULT ({path}): {error.strerror}.")

    def _members(self, variables: dict[str, Any]) -> list[fleet.Member]:
        groups: dict[str, list[str]] = variables["groups"]
        several = len(groups.get("target", [])) > 1
        return [
            fleet.Member(
                frozenset(group for group in ("app", "edge", "db") if host in groups.get(group, [])),
                # The one that is open is for one thread, which is all that one host alone needs.
                AnsibleTransport(host, self._way_to(host, variables) if several else lambda: self._connection),
            )
            for host in sorted(groups.get("target", []))
        ]

    def _way_to(self, host: str, variables: dict[str, Any]) -> Callable[[], Any]:
        """How to connect to another host: as the inventory says, and as the deploy user, as this play does."""
        known = variables["hostvars"][host]
        plugin = str(known.get("ansible_connection", "ssh"))
        names = constants.config.get_plugin_vars("connection", plugin.removeprefix("ansible.builtin."))
        options = {name: known[name] for name in names if name in known}
        options["ansible_user"] = known.get("host_deploy_user", "deploy")
        context = self._play_context.copy()

        def connect() -> Any:
            connection = connection_loader.get(plugin, context)
            connection.set_options(var_options=options)
            return connection

        return connect

    def _keep_copy(self, members: list[fleet.Member], name: AppName, project: Path) -> None:
        """Bring the control side's copy of the ledger up to date; what goes wrong here is said and stops nothing."""
        try:
            warning = ledger.keep_copy(fleet.keeper(members), name, project)
        except (SwitchyardError, ConnectionLost) as error:
            warning = f"The copy of the ledger was not brought up to date: {error}"
        if warning:
            display.warning(warning)

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
