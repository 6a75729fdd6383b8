"""A week in the life of an application, made up but whole: its ledger's lines, and what its users got."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from switchyard import chain
from switchyard.report.traffic import Minutes, Tally

NAME = "shop-production"
PEOPLE = ("ana@laptop", "ben@ci", "chris@ci")


@dataclass
class Week:
    """Events with their times, chained as the engine would have."""

    until: datetime
    days: int = 7
    seed: int = 1
    events: list[dict[str, Any]] = field(default_factory=list)
    text: bytes = b""
    chance: random.Random = field(init=False)
    number: int = 40
    live: str = ""
    colour: str = "blue"

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311 - made-up data
        began = self.until - timedelta(days=self.days)
        self._deploy(began, "good")
        for day in range(self.days):
            self._day(began + timedelta(days=day))

    def _day(self, day: datetime) -> None:
        at = day + timedelta(hours=3)
        self._append(at, "backup", subject="full" if day.weekday() == 6 else "incremental", outcome="ok", seconds=41.0)
        if day.weekday() in (2, 5):
            self._append(
                at + timedelta(minutes=40), "drill", subject="restore of the newest backup", outcome="passed",
                rto_seconds=212.0 + self.chance.random() * 60, rpo_seconds=31.0, seconds=250.0,
            )  # fmt: skip
        for _ in range(self.chance.randrange(2, 5) if day.weekday() < 5 else 1):
            at += timedelta(hours=1 + self.chance.random() * 3)
            how = self.chance.choices(["good", "reverted", "left", "failed", "unchanged"], [14, 2, 1, 2, 1])[0]
            self._deploy(at, how)
        if day.weekday() == 3:
            self._append(at + timedelta(hours=1), "maintenance", subject="on", who=PEOPLE[0], outcome="done")
            self._append(
                at + timedelta(hours=1, minutes=7), "maintenance", subject="off", who=PEOPLE[0], outcome="done"
            )

    def _append(self, at: datetime, event: str, **fields: Any) -> None:
        if at >= self.until:
            return
        entry = {"time": at.isoformat(timespec="milliseconds"), "event": event, **fields}
        entry["n"], entry["prev"] = chain.following(NAME, self.text)
        self.events.append(entry)
        self.text += json.dumps(entry, separators=(",", ":")).encode() + b"\n"

    def _deploy(self, at: datetime, how: str) -> None:
        who = self.chance.choice(PEOPLE)
        op = f"{at:%Y%m%dT%H%M%S}-{self.chance.randrange(16**6):06x}"
        if how in ("good", "reverted", "left", "failed"):
            self.number += 1
        release = f"{self.number:04d}-1.{self.number - 36}.0"
        version = release.partition("-")[2]
        self._append(at, "start", op=op, kind="deploy", who=who, version=version)
        ready = at + timedelta(seconds=8 + self.chance.random() * 9)
        previous, old = self.live, self.colour
        end = {"op": op, "kind": "deploy", "version": version, "release": release}
        if how == "failed":
            message = "api does not answer 2xx within 20 s: 503 database is not reachable. The old release serves on."
            self._append(ready, "end", **end, outcome="failed", code=5, message=message, seconds=31.0, phases={})
            return
        if how == "unchanged":
            message = f"No change: {release} already is what was asked for."
            self._append(ready, "end", **end, outcome="unchanged", code=0, message=message, seconds=1.1, phases={})
            return
        self._switch(ready, op, release, at - timedelta(minutes=self.chance.randrange(11, 400)))
        watched = ready + timedelta(seconds=300)
        phases = {"preflight": 1.2, "pull": 4.1, "migrate": 1.0, "start": 2.9, "verify": 0.3, "switch": 0.1}
        if how == "reverted" and previous:
            back = ready + timedelta(seconds=18 + self.chance.random() * 60)
            reason = "6.1 % of 412 requests failed in the last 60 s (limit 5 %)"
            self._switch(back, op, previous, None, old)
            self._append(back, "bad", op=op, release=release, reason=reason)
            message = f"Release {release} failed on probation: {reason}. {previous} is live again."
            self._append(
                back, "end", **end, outcome="reverted", code=6, message=message, seconds=60.0, phases=phases,
                requests=4120, lost=0,
            )  # fmt: skip
            return
        self._append(
            watched, "end", **end, outcome="live", code=0, message=f"{release} is live on {self.colour}.",
            seconds=round((watched - at).total_seconds(), 2), phases=phases | {"watch": 300.0}, switch_ms=74.2,
        )  # fmt: skip
        if how == "left" and previous:
            again = watched + timedelta(minutes=self.chance.randrange(4, 50))
            op = f"{again:%Y%m%dT%H%M%S}-{self.chance.randrange(16**6):06x}"
            self._append(again, "start", op=op, kind="rollback", who=PEOPLE[0], version=previous.partition("-")[2])
            self._switch(again + timedelta(seconds=1), op, previous, None, old)
            self._append(
                again + timedelta(seconds=1), "end", op=op, kind="rollback", outcome="rolled back", code=0,
                version=previous.partition("-")[2], release=previous, message=f"{previous} is live again.", seconds=0.4,
            )  # fmt: skip

    def _switch(self, at: datetime, op: str, release: str, committed: datetime | None, colour: str = "") -> None:
        self.colour = colour or ("green" if self.colour == "blue" else "blue")
        digest = f"sha256:{self.chance.randrange(16**64):064x}"
        self._append(
            at, "live", op=op, release=release, colour=self.colour, schema_epoch=1, digests={"api": digest},
            revision=f"{self.chance.randrange(16**40):040x}" if committed else "",
            committed=committed.isoformat() if committed else "",
        )  # fmt: skip
        self.live = release

    def traffic(self) -> Minutes:
        """What users got each minute: more by day than by night, and worse from releases that were taken back."""
        bad = {event["release"] for event in self.events if event["event"] == "bad"}
        switches = [(datetime.fromisoformat(e["time"]), e["release"]) for e in self.events if e["event"] == "live"]
        minutes: Minutes = {}
        at = self.until - timedelta(days=self.days)
        while at < self.until:
            live = [(when, release) for when, release in switches if when < at + timedelta(minutes=1)]
            for index, (_, release) in enumerate(live[-2:]):
                # In the minute of a switch both releases answer.
                if index == len(live[-2:]) - 1 or live[-1][0] >= at:
                    share = 1.0 if len(live) < 2 or live[-1][0] < at else 0.5
                    tally = self._minute(at, release in bad, share)
                    minutes.setdefault(int(at.timestamp() // 60), {})[release] = tally
            at += timedelta(minutes=1)
        return minutes

    def _minute(self, at: datetime, sick: bool, share: float) -> Tally:
        hour = at.hour + at.minute / 60
        busy = max(0.0, math.sin((hour - 6) / 16 * math.pi)) ** 1.5 * (0.45 if at.weekday() > 4 else 1.0)
        expected = (70 + 360 * busy) * self.chance.uniform(0.85, 1.15) * share
        tally = Tally()
        for _ in range(int(expected / 8)):
            slow = math.exp(self.chance.gauss(-3.4, 0.5)) * (9 if sick else 1)
            tally.add(500 if self.chance.random() < (0.07 if sick else 0.0015) else 200, slow)
        slots = {slot: count * 8 for slot, count in tally.slots.items()}
        return Tally(tally.requests * 8, tally.errors * 8, tally.seconds * 8, slots)


def week(seed: int = 1, until: datetime | None = None) -> Week:
    """One week that ends at `until`, the same one for the same seed."""
    return Week(until or datetime(2026, 3, 16, 12, 0, tzinfo=UTC), seed=seed)
