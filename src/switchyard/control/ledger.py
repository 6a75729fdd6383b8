"""The control side's copy of each ledger, and the check of a ledger against every copy that can be reached.

A ledger's own chain cannot show that its newest lines are gone, or that all of it was written anew by somebody who
became root on the host. A copy on another machine can.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from switchyard import chain
from switchyard.control import fleet
from switchyard.control.fleet import Member
from switchyard.control.hosts import PROJECT
from switchyard.control.transport import ConnectionLost, Transport
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName


def copy_file(name: AppName, project: Path = PROJECT) -> Path:
    """Where this side's copy lies."""
    return project / ".switchyard" / "ledger" / f"{name.environment}.jsonl"


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _fetch(transport: Transport, name: AppName, after: int = 0) -> dict[str, Any]:
    return fleet.ask(transport, ["ledger", str(name), "--after", str(after), "--json"])


def keep_copy(transport: Transport, name: AppName, project: Path = PROJECT) -> str:
    """Add what is new to the copy; returns a warning, or ''.

    A copy that the ledger no longer continues is evidence: it stays as it is. Raises `SwitchyardError` or
    `ConnectionLost` when the host cannot be asked.
    """
    path = copy_file(name, project)
    copy = _read(path)
    part = _fetch(transport, name, len(chain.split(copy)))
    extended = chain.extend(copy, part)
    if extended is None:
        return (
            f"The ledger of {name} on {transport.host} is not what it was: 'switchyard verify {name.environment}' "
            f"compares it with {path}, which is kept."
        )
    if extended != copy:
        _replace(path, extended)
    return ""


def _replace(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise SwitchyardError(f"{path} cannot be written: {error.strerror}.") from error


def verify(members: Sequence[Member], name: AppName, against: str, project: Path = PROJECT) -> dict[str, Any]:
    """Check the ledger of the first edge by its chain and against every copy; returns `chain.report`'s answer.

    Copies: this side's own, the other edges', and the file `against` names. The check runs here, since a host that was
    taken over would vouch for itself. Raises `SwitchyardError` when the ledger or that file cannot be read.
    """
    first, *others = sorted((m for m in members if "edge" in m.groups), key=lambda m: m.transport.host)
    text = str(_fetch(first.transport, name)["text"]).encode(errors="surrogateescape")
    copies: dict[str, bytes] = {}
    path = copy_file(name, project)
    if path.is_file():
        copies[str(path)] = _read(path)
    if against:
        try:
            copies[against] = Path(against).read_bytes()
        except OSError as error:
            raise SwitchyardError(f"{against} cannot be read: {error.strerror}.", Exit.USAGE) from error
    unreachable = []
    for member in others:
        try:
            part = _fetch(member.transport, name)
        except (ConnectionLost, SwitchyardError) as error:
            unreachable.append(f"{member.transport.host}: {error}")
            continue
        copies[member.transport.host] = str(part["text"]).encode(errors="surrogateescape")
    found = chain.check(str(name), text)
    for source, copy in copies.items():
        found += chain.compare(text, copy, source)
    return chain.report(str(name), text, found, copies) | {"unreachable": unreachable}
