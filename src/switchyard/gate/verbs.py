"""The gate's verbs: the forced command of a CI key, and the ledger's lines about keys."""

import argparse
import contextlib
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from switchyard.engine.verb import VerbAdder, show
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, derived_operation

if TYPE_CHECKING:
    from switchyard.engine.layout import AppPaths
    from switchyard.gate.grammar import Order

_LASTS = timedelta(days=1)
"""How far a key's time may be from ours: its operation is pruned by it, and may not begin once more after that."""


def add_verbs(verb: VerbAdder) -> None:
    """Add `gate` and `note-keys`."""
    child = verb("gate", _gate, "carry out what a CI key asks for (its forced command)", app=False, with_json=False)
    child.add_argument("name", metavar="APP-ENV")
    child.add_argument("key", metavar="KEY", help="name of the key, for the ledger")
    verb("note-keys", _note_keys, "write into the ledger which CI keys were added, changed or removed")


def _gate(arguments: argparse.Namespace) -> int:
    from switchyard.engine.layout import AppPaths, load_host
    from switchyard.gate import access, grammar

    paths = AppPaths(AppName.parse(arguments.name))
    order = grammar.parse(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    allowed = access.load(paths.name, arguments.key)
    if order.verb == "status":
        from switchyard.engine import status

        print(status.text(status.status(paths, load_host())))
        return 0
    if order.verb in ("history", "logs"):
        return _look(order.verb, str(paths.name))
    access.refuse_fleet(paths.name, allowed, order.version)
    return _operate(paths, order, arguments.key)


def _note_keys(arguments: argparse.Namespace) -> int:
    from switchyard.engine.layout import AppPaths, load_host
    from switchyard.engine.ledger import Ledger
    from switchyard.gate import access

    paths, noted = AppPaths(AppName.parse(arguments.app)), {}
    # Before there is a ledger, the first release notes them.
    if load_host().keeps_ledger and paths.ledger.is_file():
        noted = access.note(paths.name, Ledger.load(paths), os.environ.get("SUDO_USER", "root"))
    text = ", ".join(f"{subject} {outcome}" for subject, outcome in noted.items()) or "no key has changed"
    show(arguments, {"changed": bool(noted), "keys": noted}, text)
    return 0


def _look(verb: str, name: str) -> int:
    """The engine's own verb, with its own defaults."""
    from switchyard.engine.cli import main

    return main([verb, name])


def _operate(paths: "AppPaths", order: "Order", key: str) -> int:
    """Start or attach, and follow to the end. Progress goes to standard error, the result to standard output."""
    from switchyard.engine import follow
    from switchyard.gate import definition

    own, who = _own(paths, order, key), f"ci:{key}"
    operation = _begun(paths, own)
    if operation:
        _say(f"this order was given before ({operation}); following it")
    elif operation := _under_way(paths, order):
        _attach(paths, own, operation)
        _say(f"{order.verb} {order.version} is under way already ({operation}); following it")
    elif order.verb == "deploy":
        operation = follow.start(paths, "deploy", definition.request(paths, order, who), own)
    else:
        request = {"version": order.version, "who": who, "revision": order.commit, "run_url": order.run_url}
        operation = follow.start(paths, "rollback", request, own)
    result = follow.to_end(paths, operation, _say)
    if result["code"] != 0 and result["phases"]:
        _say(f"failed in phase {list(result['phases'])[-1]}, exit code {result['code']}")
    _say(str(result["message"]))
    if result["details"]:
        _say(str(result["details"]))
    print(json.dumps(_told(result)), flush=True)
    return int(result["code"])


def _own(paths: "AppPaths", order: "Order", key: str) -> str:
    """The id of this very order's operation, whether it began or not; empty without an idempotency key.

    What the sender chooses goes into it together with what it is bound to, so that it leads to nothing of others.
    """
    if not order.idempotency_key:
        return ""
    time = order.idempotency_key.partition("-")[0]
    return derived_operation(time, str(paths.name), key, order.verb, order.version, order.idempotency_key)


def _begun(paths: "AppPaths", own: str) -> str:
    """The operation `own` if it was ever started here, or the one that this order attached to.

    Raises `SwitchyardError` when there is none and the order is not one of these days.
    """
    from switchyard.engine import follow
    from switchyard.engine.ledger import Ledger
    from switchyard.engine.operation import read_result

    if not own:
        return ""
    if ended := read_result(paths, own):
        return str(ended["op"])
    # On a full disk there may be neither log nor result.
    if follow.is_known(paths, own) or any(event.get("op") == own for event in Ledger.load(paths).of("start")):
        return own
    if not _is_of_these_days(own):
        raise SwitchyardError(
            f"Refused: the order's idempotency key is of {own[:15]}, and here it is {datetime.now(UTC):%Y%m%dT%H%M%S} "
            "(UTC): set the clock of the runner, or give the order anew.",
            Exit.USAGE,
        )
    return ""


def _attach(paths: "AppPaths", own: str, operation: str) -> None:
    """Note whose end is this order's: after a lost connection it may be over, and would be begun once more."""
    from switchyard.engine.effects import replace_file

    # The operation goes on on a full disk, and so does who follows it.
    with contextlib.suppress(SwitchyardError):
        if own not in ("", operation):
            replace_file(paths.result(own), json.dumps({"op": operation}) + "\n", step="gate.attach", mode=0o640)


def _is_of_these_days(operation: str) -> bool:
    try:
        given = datetime.strptime(f"{operation[:15]}+0000", "%Y%m%dT%H%M%S%z")
    except ValueError:
        return False
    return abs(datetime.now(UTC) - given) < _LASTS


def _under_way(paths: "AppPaths", order: "Order") -> str:
    """The operation that a job before this one started and did not see the end of: the same deploy, still at work."""
    from switchyard.engine import lease as leases
    from switchyard.engine.ledger import Ledger

    lease = leases.holder(paths)
    if lease is None or not lease.process_alive or (lease.kind, order.verb) != ("deploy", "deploy"):
        return ""
    starts = [event for event in Ledger.load(paths).of("start") if event["op"] == lease.op]
    return lease.op if starts and starts[-1]["version"] == order.version else ""


def _told(result: dict[str, Any]) -> dict[str, Any]:
    """What a job reports from; the details of a failure (ends of logs) went by as progress."""
    keys = ("op", "kind", "code", "message", "changed", "version", "release", "previous", "colour", "digests")
    return {key: result[key] for key in (*keys, "phases", "switch_ms", "live_ms")}


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError as error:
        # Nobody listens any more. The operation has its own unit and goes on.
        raise SwitchyardError("The connection was lost.", Exit.FAILED) from error
