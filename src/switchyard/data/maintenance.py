"""Keeps users and writers away from a database that is being exchanged, and lets them in again."""

from datetime import datetime

from switchyard.engine import colour as colours
from switchyard.engine import maintenance as pages
from switchyard.engine import phases, records
from switchyard.engine.operation import Operation
from switchyard.errors import SwitchyardError
from switchyard.names import COLOURS, other


def enter(op: Operation) -> None:
    """Show users the maintenance page, then stop everything that writes."""
    try:
        pages.turn_on(op.paths, op.host)
    except SwitchyardError as error:
        # An edge that cannot answer with a page must not keep the database from coming back.
        op.say(f"restore: users see errors instead of the maintenance page: {error.message}")
    for colour in COLOURS:
        colours.stop(op.paths.name, colour)


def leave(op: Operation, until: str, target: str = "") -> str:
    """Start the release that fits the restored database; returns a sentence about it.

    That is the live one, unless its migration came after `until`: then the one that was live at that time. One host of
    several releases nothing by itself: the sentence says what to deploy.
    """
    pointer = phases.live_pointer(op.paths)
    if pointer is None:
        return f"Nothing is live on this host: {_next(until, target)}."
    if op.paths.note.is_file() and not _has_schema_of(op, pointer.release):
        return f"WARNING: {pointer.release} on these hosts migrated after {until}: {_next(until, target)}."
    fitting = _fitting(op, pointer.release, until)
    try:
        if fitting == pointer.release:
            colours.start_if_down(op.paths, op.host, pointer.release, pointer.colour, op.say)
            phases.wait_until_healthy(op, records.load(op.paths, pointer.release), pointer.colour)
            return f"{pointer.release} serves."
        record, idle = records.load(op.paths, fitting), other(pointer.colour)
        op.say(f"restore: {pointer.release} migrated after {until}; {fitting} was live then and is started")
        phases.start(op, record)
        phases.verify(op, record, idle)
        phases.switch(op, record, idle, probation=False)
    except SwitchyardError as error:
        return (
            f"WARNING: {fitting} does not serve ({error.message}) Release one that fits the restored database: "
            "deploy.yml, or scripts/rollback.sh."
        )
    return f"{fitting}, which was live then, serves; set app_version to it."


def _next(until: str, target: str) -> str:
    """What to deploy where nobody here knows it, or may do it."""
    number = target.removeprefix("before-deploy=") if target.startswith("before-deploy=") else ""
    fits = (
        f"the one before {number}, or {number} itself"
        if number
        else f"the one that was live at {until}, or a later one"
    )
    return f"deploy a release that fits the data ('switchyard history': {fits}, which then migrates again)"


def _has_schema_of(op: Operation, release: str) -> bool:
    record = records.load(op.paths, release)
    migration = record.request.migration
    return migration is None or record.digests.get(migration.service, "") in op.ledger.migrated()


def _fitting(op: Operation, live: str, until: str) -> str:
    """The release whose schema the restored database has."""
    if _has_schema_of(op, live):
        return live
    moment = datetime.fromisoformat(until)
    before = [
        str(event["release"])
        for event in op.ledger.of("live")
        if event.get("release") and datetime.fromisoformat(event["time"]) <= moment
    ]
    return before[-1] if before and before[-1] in records.ids(op.paths) else live
