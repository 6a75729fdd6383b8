"""From what somebody asks to be restored to the backup that it is restored from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from switchyard.data import pgbackrest
from switchyard.data.pgbackrest import Kept, Target
from switchyard.data.settings import Backup
from switchyard.engine.ledger import Event
from switchyard.errors import Exit, SwitchyardError


@dataclass(frozen=True)
class Choice:
    """What is restored, and from what."""

    target: Target
    chosen: Kept
    words: list[str]
    """Options of pgBackRest's `restore`."""
    moment: datetime | None
    """The time that it is restored to; None for the newest."""


def decide(backup: Backup, stanza: dict[str, Any], target: Target, repository: str, events: Sequence[Event]) -> Choice:
    """Choose the backup for a target. Raises `SwitchyardError` when nothing goes back that far."""
    kept = pgbackrest.parse_info(stanza)
    if repository:
        number = backup.number(repository)
        kept = [one for one in kept if one.repository == number]
    point = _point(events, target.name) if target.kind == "point" else None
    if target.kind == "point" and point is None:
        known = ", ".join(
            sorted({str(int(str(event["release"]).partition("-")[0])) for event in _points(events)}, key=int)
        )
        raise SwitchyardError(
            f"No restore point was made before release {target.name}; there are: {known or 'none'}. A restore point is "
            "made where a migration runs; use a time instead.",
            Exit.USAGE,
        )
    made = datetime.fromisoformat(str(point["made"])) if point else None
    chosen = pgbackrest.choose(kept, target, made)
    moment = {"time": target.time, "point": made, "backup": chosen.ended}.get(target.kind)
    timeline = int(point["timeline"]) if point else _timeline(events, moment)
    return Choice(target, chosen, pgbackrest.restore_words(chosen, target, timeline), moment)


def _points(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event["event"] == "restore-point"]


def _point(events: Iterable[Event], number: str) -> Event | None:
    found = [event for event in _points(events) if int(str(event["release"]).partition("-")[0]) == int(number)]
    # Recovery stops at the first point of that name.
    return found[0] if found else None


def _timeline(events: Iterable[Event], moment: datetime | None) -> int:
    """The timeline that a moment lies on when a later restore left it; 0 for the newest.

    A restore begins a new timeline. What was written between the moment that it went back to and the restore itself is
    only on the old one.
    """
    if moment is None:
        return 0
    for event in events:
        if event["event"] != "restore" or not event.get("until"):
            continue
        until, at = datetime.fromisoformat(str(event["until"])), datetime.fromisoformat(str(event["time"]))
        if until < moment < at:
            return int(event.get("timeline") or 0)
    return 0
