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
    if target.kind != "backup":
        kept = _leading_to(kept, target, made or target.time, events)
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


def _leading_to(kept: list[Kept], target: Target, moment: datetime | None, events: Sequence[Event]) -> list[Kept]:
    """The backups without those of data that a restore had replaced by `moment`; None is the newest.

    Recovery refuses them: their timeline leaves the wanted one before they ended.
    """
    replaced = _replaced(events, moment)
    living = [
        one for one in kept if not any(until < one.ended < at and one.label != label for until, at, label in replaced)
    ]
    if kept and not living:
        raise SwitchyardError(
            f"Nothing leads to {target}: every backup is of the data that the restore of "
            f"{replaced[0][1]:%Y-%m-%d %H:%M:%S+00} replaced. Restore a moment before it, or one of them with "
            "backup=LABEL; backup.yml -e type=full backs up what there is now.",
            Exit.PREFLIGHT,
        )
    return living


def _replaced(events: Sequence[Event], moment: datetime | None) -> list[tuple[datetime, datetime, str]]:
    """The times whose data was gone at a moment, newest first, each with the backup that was restored.

    Followed back from there: what a restore went back to may itself lie in what an earlier one had replaced.
    """
    found = []
    for event in reversed(events):
        if event["event"] != "restore" or not event.get("until"):
            continue
        until, at = datetime.fromisoformat(str(event["until"])), datetime.fromisoformat(str(event["time"]))
        if moment is None or at <= moment:
            # A backup may have ended after the last transaction in it, which is what `until` is then.
            found.append((until, at, str(event.get("backup") or "")))
            moment = until
    return found


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
