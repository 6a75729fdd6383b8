"""The ledger told as operations and stays: who did what, how it ended, and which release was live from when to when.

Pure: from the ledger's events to rows that `history`, `show`, the DORA figures and the page are made from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from switchyard.names import parse_release_id

Event = dict[str, Any]

_STEPS = ("end", "live", "bad", "migration")
_RELEASING = ("deploy", "rollback")


def moment(event: Event) -> datetime:
    """When an event was written."""
    return datetime.fromisoformat(str(event["time"]))


@dataclass(frozen=True)
class Operation:
    """One operation, from its start to its end; `end` is empty while it runs or when it died unrecovered."""

    op: str
    kind: str
    who: str
    version: str
    began: datetime
    end: Event = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    """What the ledger says about it, in order."""

    @property
    def outcome(self) -> str:
        """How it ended, such as `live` or `reverted`; `running` when it has no end."""
        return str(self.end.get("outcome", "running"))

    @property
    def release(self) -> str:
        """The release that it was about, when it got as far as having one."""
        return str(self.end.get("release") or next((e["release"] for e in self.events if e.get("release")), ""))


@dataclass(frozen=True)
class Stay:
    """One time that a release was live, without a break."""

    release: str
    colour: str
    op: str
    kind: str
    """The operation that brought it: `deploy`, `rollback`, or `revert` when a probation ended badly."""
    since: datetime
    until: datetime | None
    committed: datetime | None
    revision: str
    digests: dict[str, str]
    verdict: str
    """`good`, `bad` (taken back), or `left` (a person went back from it)."""
    reason: str


def operations(events: Iterable[Event]) -> list[Operation]:
    """Every operation, oldest first. An event of another room that has none, such as a drill, is one of its own."""
    found: dict[str, list[Event]] = {}
    order: list[str] = []
    for number, event in enumerate(events):
        op = str(event.get("op") or "")
        known = op in found
        if not known and event["event"] != "start":
            if event["event"] in _STEPS:
                # What recovery did by itself; the stays tell it.
                continue
            op = f"{op or event['event']}#{number}"
        if op not in found:
            order.append(op)
        found.setdefault(op, []).append(event)
    return [_operation(op, found[op]) for op in order]


def _operation(op: str, events: Sequence[Event]) -> Operation:
    first = events[0]
    if first["event"] == "start":
        end = next((event for event in events if event["event"] == "end"), {})
        kind, who, version = (str(first.get(key, "")) for key in ("kind", "who", "version"))
        return Operation(op, kind, who, version, moment(first), end, tuple(events))
    identity = op.partition("#")[0]
    end = {"outcome": str(first.get("outcome", "")), "message": describe(first), "release": first.get("release", "")}
    return Operation(
        identity, str(first["event"]), str(first.get("who", "")), "", moment(first), end | _numbers(first), (first,)
    )


def _numbers(event: Event) -> Event:
    return {key: value for key, value in event.items() if key == "seconds"}


def describe(event: Event) -> str:
    """One event in words: what went wrong, its subject or reason, or what else it carries."""
    if isinstance(event.get("why"), list) and event["why"]:
        return "; ".join(str(reason) for reason in event["why"])
    for key in ("message", "reason", "subject", "title", "state"):
        if event.get(key):
            return str(event[key])
    plain = {k: v for k, v in event.items() if k not in ("time", "event", "op", "n", "prev", "who", "outcome")}
    return ", ".join(f"{key} {value}" for key, value in plain.items() if isinstance(value, str | int | float))


def stays(events: Sequence[Event]) -> list[Stay]:
    """Which release was live from when to when, and what became of it; oldest first."""
    starts = {str(event.get("op")): event for event in events if event["event"] == "start"}
    marks = [event for event in events if event["event"] == "bad"]
    found: list[Stay] = []
    for event, after in _changes(events):
        verdict, reason = _verdict(event, after, marks, starts)
        found.append(
            Stay(
                str(event["release"]),
                str(event.get("colour", "")),
                str(event.get("op", "")),
                _arrival(found, event, starts),
                moment(event),
                moment(after) if after else None,
                _committed(event),
                str(event.get("revision", "")),
                dict(event.get("digests") or {}),
                verdict,
                reason,
            )
        )
    return found


def _changes(events: Iterable[Event]) -> list[tuple[Event, Event | None]]:
    """Each switch to another release with the one after it. A release proven again is no change."""
    switches: list[Event] = []
    for event in events:
        is_switch = event["event"] == "live" and event.get("release")
        if is_switch and (not switches or switches[-1]["release"] != event["release"]):
            switches.append(event)
    return list(zip_longest(switches, switches[1:]))


def _arrival(before: Sequence[Stay], event: Event, starts: Mapping[str, Event]) -> str:
    """What made a release live: an operation's second switch takes the first one back, but a rollback's is its own.

    A rollback leaves a canary before it starts an older release.
    """
    kind = str(starts.get(str(event.get("op")), {}).get("kind", "recover"))
    again = bool(before) and before[-1].op == event.get("op") and kind != "rollback"
    return "revert" if again or (before and before[-1].verdict == "bad") else kind


def _committed(event: Event) -> datetime | None:
    try:
        return datetime.fromisoformat(str(event.get("committed") or ""))
    except ValueError:
        return None


def _verdict(event: Event, after: Event | None, marks: Iterable[Event], starts: Mapping[str, Event]) -> tuple[str, str]:
    """What became of a stay: taken back with a reason, left by a person, or good."""
    if after is None:
        return "good", ""
    for bad in marks:
        # The mark is written just after the switch that took the release back, by whoever took it back.
        same = bad.get("release") == event["release"] and bad.get("op") == after.get("op")
        if same and moment(bad) >= moment(after):
            return "bad", str(bad.get("reason", ""))
    start = starts.get(str(after.get("op")), {})
    if start.get("kind") == "rollback" and _number(after) < _number(event):
        return "left", f"{start.get('who') or 'somebody'} went back to {after['release']}"
    return "good", ""


def _number(event: Event) -> int:
    parsed = parse_release_id(str(event.get("release")))
    return parsed[0] if parsed else 0


def about(events: Sequence[Event], wanted: str) -> tuple[str, list[Event]]:
    """The events of one release or operation: `wanted` is a number (42 or 0042), a release id or an operation id.

    Returns what it was found as and its events; no events when nothing is known of it.
    """
    releases = {str(event["release"]) for event in events if event.get("release")}
    if wanted.isdigit():
        numbered = sorted(r for r in releases if (parsed := parse_release_id(r)) and parsed[0] == int(wanted))
        wanted = numbered[-1] if numbered else wanted
    if wanted in releases:
        ops = {
            str(e.get("op")) for e in events if e.get("release") == wanted and e["event"] != "start" and e.get("op")
        } - {"recover"}
        return wanted, [e for e in events if str(e.get("op")) in ops or e.get("release") == wanted]
    return wanted, [event for event in events if event.get("op") == wanted]


def now() -> datetime:
    """The present, in UTC; one place, so that tests can tell another."""
    return datetime.now(UTC)


def is_release_operation(operation: Operation) -> bool:
    """Tell whether an operation was about what is live, and not a single phase or a chore."""
    return operation.kind in _RELEASING
