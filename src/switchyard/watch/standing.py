"""Judges what was measured outside a release: when people are told, and when it is over. Pure but for its one file.

A finding that is bad begins a condition. It becomes an alert, told once, when it has been bad for as long as its kind
asks for; it is over when it has been well for `calm_seconds`. The same calm ends a condition that was not told yet, so
a moment's relief in between does not hide what lasts. What could not be measured changes nothing.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from switchyard.engine.announce import Severity
from switchyard.engine.effects import replace_file
from switchyard.engine.layout import STATE

FILE = STATE / "standing.json"
_RANK: dict[str, int] = {"info": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `key` is `KIND` or `KIND:WHAT`, unique together with `app`."""

    key: str
    app: str
    """APP-ENV, or empty for the host itself."""
    problem: str
    """One clause that says what is wrong, or '' when all is well."""
    after: float = 0.0
    """Seconds for which it has to be bad before people are told."""
    severity: Severity = "warning"

    @property
    def identity(self) -> str:
        """Its name among all findings of this host."""
        return f"{self.app}/{self.key}"


@dataclass(frozen=True)
class Condition:
    """What is, or just was, bad. Times are seconds since 1970."""

    key: str
    app: str
    problem: str
    severity: Severity
    since: float
    bad_at: float
    good_since: float = 0.0
    """When it became well again, 0 while it is bad."""
    told: str = ""
    """The severity with which people were told, '' when they were not."""


@dataclass(frozen=True)
class Change:
    """What people have to be told now: an alert, or that one is over."""

    condition: Condition
    over: bool
    seconds: float
    """How long it has been bad."""


@dataclass
class Standing:
    """Everything that one look hands on to the next."""

    looked_at: float = 0.0
    conditions: dict[str, Condition] = field(default_factory=dict)
    quiet: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By application: since when an operation has been changing it, and when that was last so."""
    processors: tuple[float, float] = (0.0, 0.0)
    """Seconds of all processors since boot: busy, and in all."""
    slow_at: float = 0.0
    """When what changes slowly (certificates, backups) was last looked at."""
    heartbeat_at: float = 0.0
    heartbeat_problem: str = ""

    def alerts(self) -> list[Condition]:
        """What people were told and what is not over, the longest first."""
        return sorted((c for c in self.conditions.values() if c.told), key=lambda c: c.since)


def judge(
    standing: Standing, findings: Iterable[Finding], seen: Iterable[str], now: float, *, calm: float, gap: float
) -> list[Change]:
    """Take one look's findings in; returns what people have to be told.

    `seen` are prefixes of identities that were measured whole: a condition below one of them which has no finding any
    more (its service or disk is gone) is well. A condition that nobody looked at for longer than `gap` seconds begins
    anew. Whoever told people notes it with `told`.
    """
    changes = []
    by_identity = {finding.identity: finding for finding in findings}
    prefixes = tuple(seen)
    for identity, known in standing.conditions.items():
        if identity not in by_identity and identity.startswith(prefixes):
            by_identity[identity] = Finding(known.key, known.app, "")
    for identity, finding in by_identity.items():
        known_one = standing.conditions.get(identity)
        after = _step(known_one, finding, now, gap)
        if after is None:
            continue
        standing.conditions[identity] = after
        if finding.problem:
            lasted = after.bad_at - after.since
            louder = _RANK[finding.severity] > _RANK[after.told] if after.told else lasted >= finding.after
            if louder:
                changes.append(Change(after, over=False, seconds=lasted))
        elif now - after.good_since >= calm:
            if after.told:
                changes.append(Change(after, over=True, seconds=after.good_since - after.since))
            else:
                del standing.conditions[identity]
    return changes


def _step(known: Condition | None, finding: Finding, now: float, gap: float) -> Condition | None:
    """The condition after this finding; None when there is none, and was none."""
    if not finding.problem:
        if known is None:
            return None
        # A clock that was set back must not make the calm endless.
        return known if 0 < known.good_since <= now else replace(known, good_since=now)
    fresh = Condition(finding.key, finding.app, finding.problem, finding.severity, now, now)
    if known is None or (not known.told and not 0 <= now - known.bad_at <= gap):
        return fresh
    since = min(known.since, now)
    return replace(fresh, since=since, told=known.told)


def told(standing: Standing, change: Change) -> None:
    """Note that people know of this change."""
    condition = change.condition
    identity = f"{condition.app}/{condition.key}"
    if change.over:
        standing.conditions.pop(identity, None)
    else:
        standing.conditions[identity] = replace(condition, told=condition.severity)


# The file


def load() -> Standing:
    """What the last look left; nothing when there is no such file, or it cannot be understood."""
    try:
        return from_json(json.loads(FILE.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Standing()


def from_json(data: Mapping[str, Any]) -> Standing:
    """Read it back; raises one of Python's own errors when it is none."""
    busy, whole = map(float, data["processors"])
    standing = Standing(
        float(data["looked_at"]),
        {str(identity): Condition(**condition) for identity, condition in data["conditions"].items()},
        {str(app): (float(since), float(last)) for app, (since, last) in data["quiet"].items()},
        (busy, whole),
        float(data["slow_at"]),
        float(data["heartbeat_at"]),
        str(data["heartbeat_problem"]),
    )
    for condition in standing.conditions.values():
        if condition.severity not in _RANK or condition.told not in ("", *_RANK):
            raise ValueError(condition.severity)
        float(condition.since), float(condition.bad_at), float(condition.good_since)
    return standing


def save(standing: Standing) -> None:
    """Replace the file whole, so that a power cut leaves the last look or this one."""
    replace_file(FILE, json.dumps(asdict(standing)) + "\n", step="standing.state", mode=0o640)
