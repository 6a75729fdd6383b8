"""The hosts of an environment as one. The one place where it exists: Ansible and Fabric both come through here."""

import contextlib
import getpass
import json
import os
import socket
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from switchyard.control.coordinator import Coordinator
from switchyard.control.operations import Say, ask, operate
from switchyard.control.transport import ConnectionLost, Member, Transport
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import new_operation

__all__ = ["Member", "ask", "database_host", "deploy", "keeper", "operate", "plan", "rollback", "single", "tidy", "who"]


def who() -> str:
    """Who asks, for the ledger; a user that the machine has no name for, as in many containers, is a number."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid-{os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def single(members: Sequence[Member]) -> Transport | None:
    """Return the host that is edge and application host in one, when there is no other; else there is a fleet."""
    hosts = [member for member in members if member.groups & {"app", "edge"}]
    return hosts[0].transport if len(hosts) == 1 and hosts[0].groups >= {"app", "edge"} else None


def keeper(members: Sequence[Member]) -> Transport:
    """The host that keeps the ledger: the first edge. Raises `SwitchyardError` when there is none."""
    edges = sorted((member for member in members if "edge" in member.groups), key=lambda member: member.name)
    if not edges:
        raise SwitchyardError("No host of this environment is in the group edge.", Exit.USAGE)
    return edges[0].transport


def database_host(members: Sequence[Member]) -> Transport:
    """Return the host of the database; raises `SwitchyardError` when there is none, or more than one."""
    hosts = [member.transport for member in members if "db" in member.groups]
    if len(hosts) != 1:
        names = ", ".join(transport.host for transport in hosts) or "none"
        raise SwitchyardError(f"This needs one host in the group db; this environment has: {names}.", Exit.USAGE)
    return hosts[0]


def deploy(
    members: Sequence[Member],
    request: dict[str, Any],
    say: Say,
    *,
    excused: Collection[str] = (),
    copy: Path | None = None,
) -> dict[str, Any]:
    """Release `request`; returns the engine's result. Raises `SwitchyardError` for what never started.

    `excused` are hosts that may be unreachable: the release goes on without them. `copy` is this side's copy of the
    ledger, for several hosts that have lost it.
    """
    app = f"{request['app']}-{request['environment']}"
    if one := single(members):
        _have_restore_point(members, one, request, say, excused)
        return operate(one, ["deploy"], json.dumps(request), app, say)
    return Coordinator(members, app, say, excused, copy).deploy(request)


def _have_restore_point(
    members: Sequence[Member], one: Transport, request: dict[str, Any], say: Say, excused: Collection[str]
) -> None:
    """Before one host migrates a database on another one, have that one make its restore point.

    It bears the number that the release will have. Raises `SwitchyardError`: nothing was changed.
    """
    apart = [member.transport for member in members if "db" in member.groups and member.transport.host != one.host]
    if not apart or not request.get("migration"):
        return
    report = ask(one, ["plan", "--json"], json.dumps(request))
    if not report["migrates"]:
        return
    app = f"{request['app']}-{request['environment']}"
    order = {"verb": "point", "app": app, "op": new_operation(), "kind": "deploy", "who": request["who"]}
    order |= {key: report[key] for key in ("release", "contracts")}
    for database in apart:
        try:
            _order(database, order, say)
        except SwitchyardError as error:
            if error.code is not Exit.UNREACHABLE:
                raise
            if database.host not in excused:
                raise SwitchyardError(
                    f"{error.message} Nothing was changed. '-e allow_unreachable={database.host}' migrates without a "
                    "restore point.",
                    Exit.UNREACHABLE,
                ) from error
            say(f"WARNING: {database.host} cannot be reached, so no restore point is made before the migration")


def _order(host: Transport, order: dict[str, Any], say: Say) -> None:
    """Have a host carry out an order; raises `SwitchyardError` with what it says when it fails."""
    done = operate(
        host, ["member"], json.dumps(order), order["app"], lambda line: say(f"{host.host}: {line}"), patience=30.0
    )
    if done["code"] != 0:
        raise SwitchyardError(f"{host.host}: {done['message']}", Exit(done["code"]), done["details"])


def rollback(
    members: Sequence[Member],
    app: str,
    version: str,
    who: str,
    say: Say,
    *,
    excused: Collection[str] = (),
    copy: Path | None = None,
) -> dict[str, Any]:
    """Go back; returns the engine's result. Raises `SwitchyardError` for what never started."""
    if one := single(members):
        words = ["rollback", app, *([version] if version else []), "--who", who]
        return operate(one, words, "", app, say)
    return Coordinator(members, app, say, excused, copy).rollback(version, who)


def tidy(
    members: Sequence[Member],
    app: str,
    kind: str,
    who: str,
    say: Say,
    *,
    retain: int = -1,
    excused: Collection[str] = (),
    copy: Path | None = None,
) -> dict[str, Any]:
    """Recover, or prune, several hosts; returns how it ended."""
    return Coordinator(members, app, say, excused, copy).tidy(kind, who, retain)


def plan(members: Sequence[Member], request: dict[str, Any]) -> dict[str, Any]:
    """Ask what a deploy would change; nothing is changed. Of several hosts, the first application host answers."""
    if one := single(members):
        return ask(one, ["plan", "--json"], json.dumps(request))
    hosts = sorted((m for m in members if "app" in m.groups), key=lambda member: member.name)
    for member in hosts[:-1]:
        # One that is new, or was left out of the last release, cannot tell.
        with contextlib.suppress(SwitchyardError, ConnectionLost):
            return ask(member.transport, ["plan", "--json"], json.dumps(request))
    return ask(hosts[-1].transport, ["plan", "--json"], json.dumps(request))
